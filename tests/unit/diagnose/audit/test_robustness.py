"""Disturbances of a known strength, and the extra loss that is counted from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgedeploy.diagnose.audit.disagreement import measure_disagreement
from edgedeploy.diagnose.audit.intervals import bootstrap, wilson
from edgedeploy.diagnose.audit.parts import PARTS, Asked
from edgedeploy.diagnose.audit.robustness import STRENGTHS, disturbed
from edgedeploy.diagnose.audit.subject import Pair, Subject
from edgedeploy.records.metrics import MetricInfo

IMAGES = np.full((4, 1, 64, 64), 0.5, np.float32)


@pytest.mark.parametrize("name", sorted(STRENGTHS))
def test_disturbed_images_keep_range_shape_and_type(name: str) -> None:
    images = np.random.default_rng(0).random((2, 1, 16, 16)).astype(np.float32)
    for strength in STRENGTHS[name]:
        found = disturbed(images, name, strength, 0.0, 1.0, np.random.default_rng(1))
        assert found.shape == images.shape
        assert found.dtype == np.float32
        assert found.min() >= 0
        assert found.max() <= 1
        assert not np.array_equal(found, images)


def test_strengths_are_what_they_say() -> None:
    rng = np.random.default_rng(0)
    assert disturbed(IMAGES, "noise", 0.05, 0.0, 1.0, rng).std() == pytest.approx(0.05, rel=0.05)
    assert disturbed(IMAGES, "gain", 0.7, 0.0, 1.0, rng).mean() == pytest.approx(0.35)
    speckle = disturbed(IMAGES, "speckle", 0.2, 0.0, 1.0, rng)
    assert speckle.mean() == pytest.approx(0.5, rel=0.02)
    assert speckle.std() == pytest.approx(0.1, rel=0.05)
    point = np.zeros((1, 1, 33, 33), np.float32)
    point[0, 0, 16, 16] = 1
    blurred = disturbed(point, "blur", 2.0, 0.0, 1.0, rng)[0, 0]
    rows = np.arange(33) - 16
    assert np.sqrt((blurred.sum(axis=1) * rows**2).sum() / blurred.sum()) == pytest.approx(2.0, rel=0.05)


def test_intervals_are_those_of_textbooks() -> None:
    found = wilson(0.9, 100)
    assert (found.low, found.high) == (pytest.approx(0.8256, abs=1e-3), pytest.approx(0.9448, abs=1e-3))
    assert str(wilson(0.0, 12)).startswith("0 to 0.24") and str(wilson(1.0, 12)).endswith(" to 1")
    assert wilson(0.0, 0) == wilson(1.0, 0)
    values = np.random.default_rng(0).normal(1.0, 1.0, 400)
    interval = bootstrap(400, lambda rows: float(values[rows].mean()), 0, "test")
    assert interval.high - interval.low == pytest.approx(2 * 1.96 / 20, rel=0.15)


class Says:
    """A session that answers each image by a rule."""

    def __init__(self, rule: Callable[[np.ndarray], np.ndarray]) -> None:
        self.rule = rule

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": self.rule(feeds["x"])}


def scores(image: np.ndarray) -> np.ndarray:
    mean = float(image.mean())
    return np.array([[mean, 1 - mean]], np.float32)


def no_number_of_dark_images(image: np.ndarray) -> np.ndarray:
    return scores(image) * (np.nan if image.mean() < 0.5 else 1)


def asked(artifact: Callable[[np.ndarray], np.ndarray], task: Any = None) -> Asked:
    images = np.random.default_rng(0).uniform(0.2, 1.0, (12, 1, 8, 8)).astype(np.float32)
    names = SimpleNamespace(inputs=[SimpleNamespace(name="x")], outputs=[SimpleNamespace(name="y")])
    subject = Subject(
        "v",
        Path("r"),
        False,
        names,
        Path(),
        images,
        task=task,
        cases=[SimpleNamespace(id=str(place)) for place in range(12)],
    )  # type: ignore[arg-type]
    pair = Pair(Says(scores), Says(artifact))  # type: ignore[arg-type]
    return Asked(subject, lambda: pair, None, 0, 0, lambda: False, print)  # type: ignore[arg-type]


def test_an_artifact_that_says_nan_does_not_agree() -> None:
    """NaN is the largest for numpy, so that both said the first class."""
    found = measure_disagreement(asked(lambda image: scores(image) * np.nan).subject, asked(scores).pair())
    assert not found.why_not
    nothing = asked(lambda image: scores(image) * np.nan)
    found = measure_disagreement(nothing.subject, nothing.pair())
    assert found.why_not == "0 of 12 cases have NaN in the float model's answer, 12 in the artifact's"


def test_cases_that_the_artifact_alone_has_no_value_for_are_told_and_not_left_out() -> None:
    (part,) = [part for part in PARTS if part.name == "robustness"]
    result = part.make(asked(no_number_of_dark_images))
    assert "gain 0.7: no answers kept of the artifact in" in result.lines[0]
    assert not any("as it is" in line for line in result.lines)
    json.dumps(result.data, allow_nan=False)
    nothing = part.make(asked(lambda image: scores(image) * np.nan))
    assert "as it is: no answers kept of the artifact in 12 of 12 cases" in nothing.lines[0] and not nothing.why_not
    assert "no value" not in part.make(asked(scores)).lines[0]


def test_a_metric_that_disturbed_images_alone_have_or_lack_is_no_traceback() -> None:
    class Fickle:
        """`late` is there of dark images alone, `early` of bright ones."""

        def __init__(self) -> None:
            info = MetricInfo("maximize", "1", "made up")
            self.metrics = {"early": info, "late": info}

        def evaluate(self, outputs: Any, case: Any) -> dict[str, float | None]:
            mean = float(outputs["y"][0, 0])
            return {"early": mean if mean > 0.55 else None, "late": mean if mean < 0.5 else None}

    (part,) = [part for part in PARTS if part.name == "robustness"]
    data = part.make(asked(scores, Fickle())).data
    assert {line["metric"] for line in data["lines"]} == {"early"}
