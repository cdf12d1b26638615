"""Widths by the times of layers: from a study file to variants, with one profile for good."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from board_kit import squares_study

import edgedeploy
from edgedeploy.errors import DataError
from edgedeploy.records.layer_times import LayerTimes
from edgedeploy.report.make import make_report
from edgedeploy.study.layer_times import kept_times
from edgedeploy.study.store import Store

pytestmark = pytest.mark.beside

BY_TIME = (
    ("kernel = [3, 5]", "kernel = [3]"),
    ("width = [1.0, 0.5]", 'width = [1.0, 0.5]\nallocation = ["uniform", "time"]'),
    ("queries = 64", "queries = 16"),
)
ASKED = '\n[[try]]\nwidth = 0.5\nallocation = "time"\n'


def timed_study(folder: Path, *changes: tuple[str, str]) -> Path:
    """The example with layers that are wide enough to be spread, and a point of the user's own that is spread by time."""
    study = squares_study(folder, *BY_TIME, *changes)
    study.write_text(study.read_text() + ASKED)
    task = folder / "squares.py"
    text = task.read_text()
    for old, new in (("Conv2d(1, 8,", "Conv2d(1, 32,"), ("Conv2d(8, 16,", "Conv2d(32, 64,"), ("(32, 2)", "(128, 2)")):
        assert text.count(old) == 1
        text = text.replace(old, new)
    task.write_text(text)
    return study


def run(study: Path, out: Path, **options: Any) -> list[str]:
    """What the run told."""
    told: list[str] = []
    asked = edgedeploy.RunOptions(out=out, board="here", confirm=False, **options)
    edgedeploy.load_study(study).run(asked, observer=lambda event: told.append(event.text))
    return told


def spread_by_time(out: Path) -> dict[str, str]:
    """The layer times that variants of a study's folder name, and when each was measured."""
    found = [item for item in Store(out).measurements() if item.variant.allocation == "time"]
    assert all(any(item.variant.layer_times in note for note in item.notes) for item in found)
    return {item.variant.layer_times: item.created_utc for item in found}


def test_the_layers_are_timed_once_and_a_resumed_study_goes_on_with_them(tmp_path: Path) -> None:
    study, out = timed_study(tmp_path, ("trials = 6", "trials = 3")), tmp_path / "out"
    told = run(study, out)
    times = kept_times(out)
    assert isinstance(times, LayerTimes)
    assert set(times.layers) | set(times.untimed) == {"0", "3", "7"} and "3" in times.layers
    assert (times.target, times.board, times.provenance) == ("onnxruntime", "here", "measured")
    assert told.count(times.text) == 1
    measured = spread_by_time(out)
    assert set(measured) == {times.digest}
    assert times.text[1:] in make_report(out).read_text(encoding="utf-8")

    kept = (out / "layer-times.json").read_bytes()
    told = run(study, out, resume=True, trials=6)
    assert times.text not in told, "it is not taken again"
    assert (out / "layer-times.json").read_bytes() == kept
    assert spread_by_time(out).items() >= measured.items()
    assert len(Store(out).measurements()) == 6
