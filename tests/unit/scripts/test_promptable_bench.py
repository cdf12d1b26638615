"""The benchmark's own arithmetic: what a loss over cases of some images is worth, and which candidate is chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.large_kit import promptable
from benchmarks.large_kit.promptable import Candidate, _chosen, _clustered
from benchmarks.shared.rows import Asked
from promptable_kit import SMALL

from edgedeploy.tasks.promptable.task import Promptable


def test_cases_of_one_image_are_no_more_than_one() -> None:
    differences = np.random.default_rng(0).normal(0.01, 0.1, 400)
    mean, error = _clustered(differences, [str(place) for place in range(400)])
    assert mean == pytest.approx(differences.mean())
    assert error == pytest.approx(differences.std() / 20)
    twice = np.repeat(differences, 2)
    assert _clustered(twice, [str(place // 2) for place in range(800)]) == (pytest.approx(mean), pytest.approx(error))
    assert _clustered(twice, [str(place) for place in range(800)])[1] < 0.8 * error


def test_the_best_of_those_that_are_fast_enough_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = [Candidate(name, "onnxruntime", "float32", None) for name in ("float", "slow", "good", "worse")]
    dice = {"float": 0.9, "slow": 0.89, "good": 0.85, "worse": 0.8}
    task: Any = type("Task", (), {"cases": lambda self, split: [split]})()
    monkeypatch.setattr(promptable, "_dice", lambda task, side, cases: [dice[side.network]])
    ratios = np.array([[1.0, 1.0, 1.0], [0.5, 0.2, 0.5], [0.2, 0.2, 0.9], [0.1, 0.1, 0.1]])
    assert _chosen(task, sides, ratios).network == "good"
    assert _chosen(task, sides, ratios + 0.3).network == "worse"


def test_the_row_trains_once_and_says_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEDEPLOY_CACHE", str(tmp_path))
    monkeypatch.setattr(promptable, "SIDE_PX", 32)
    monkeypatch.setattr(promptable, "VIT", "vit-1")
    monkeypatch.setattr(promptable, "STUDENT", "cnn-4")
    monkeypatch.setattr(
        promptable, "CANDIDATES", (("vit-1", "onnxruntime", "int8-dynamic"), ("cnn-4", "onnxruntime", "float32"))
    )
    monkeypatch.setattr(promptable, "ROUNDS", 3)
    monkeypatch.setattr(promptable, "_task", lambda seed: (Promptable(SMALL), "made-up images"))
    row = promptable.promptable_variant(Asked())
    assert "made-up images" in row.what
    assert "lost" in row.found and "on onnxruntime" in row.found
    (folder,) = tmp_path.iterdir()
    kept = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert {"vit-1.pt", "cnn-4.pt"} <= set(kept)
    promptable._trained(Promptable(SMALL))
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == kept
