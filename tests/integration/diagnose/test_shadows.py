"""Membership inference through a task's own training: shadows on halves of its cases, and why there are none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from bundle_kit import FLOAT, INT8, made_up_study

from edgedeploy.diagnose.audit.shadows import measure_membership, restricted
from edgedeploy.interfaces.task import Task, TrainRecipe
from edgedeploy.records.variant import Scalar
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.study.bundle.material import Material, gather
from edgedeploy.tasks.segmentation.ultrasound import SyntheticUltrasound, UltrasoundOptions

pytestmark = pytest.mark.beside


OPTIONS = UltrasoundOptions(
    image_size=32,
    resolutions=(32,),
    depth=2,
    base_channels=4,
    train_cases=8,
    calibration_cases=2,
    selection_cases=8,
    confirmation_cases=2,
    baseline=TrainRecipe(epochs=1, batch_size=4, learning_rate=1e-3),
)


def task() -> Task:
    return SyntheticUltrasound(OPTIONS)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return gather(made_up_study(tmp_path_factory.mktemp("study")).root, INT8.digest)


def test_float_and_int8_are_attacked_alone_and_jointly(material: Material) -> None:
    path, artifact = material.reference.path, material.artifact
    sessions = {
        "float": open_session("onnxruntime", path.parent, path.name, {}, 1),
        "int8": open_session("onnxruntime", material.artifact_folder, artifact.entry, dict(artifact.settings), 1),
    }
    told: list[str] = []
    found = measure_membership(task(), INT8, sessions, 4, tell=told.append)
    assert not found.why_not
    assert [each.artifacts for each in found.attacks] == [("float",), ("int8",), ("float", "int8")]
    for each in found.attacks:
        assert each.shadows == 4
        assert each.tpr is None, "eight outsiders cannot tell one of a hundred"
        assert each.auc_interval.low <= each.auc <= each.auc_interval.high
    assert told == [f"shadow {number} of 4" for number in range(1, 5)]
    assert (
        measure_membership(task(), INT8, sessions, 4, deadline=lambda: True).why_not
        == "the time was over after 0 of 4 shadows"
    )


def test_why_there_are_none() -> None:
    assert "--shadows 8" in measure_membership(task(), INT8, {}, 0).why_not
    assert "too few" in measure_membership(task(), INT8, {}, 2).why_not
    assert "shadows are baselines" in measure_membership(task(), replace(INT8, width=0.5), {}, 8).why_not


def test_batches_that_do_not_follow_the_cases_are_found_out() -> None:
    whole = task()

    class Fixed(SyntheticUltrasound):
        def batches(self, seed: int, batch_size: int, **arch: Scalar) -> Iterator[tuple[Any, Any]]:
            found: Iterator[tuple[Any, Any]] = whole.batches(seed, batch_size, **arch)  # type: ignore[attr-defined]
            return found

    assert "do not follow its cases" in measure_membership(Fixed(OPTIONS), FLOAT, {}, 8).why_not
    assert len(restricted(whole, whole.cases("train")[:3]).cases("train")) == 3
    assert len(whole.cases("train")) == 8
