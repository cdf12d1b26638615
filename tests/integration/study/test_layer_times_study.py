"""Widths by the times of layers: from a study file to variants, with one profile for good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from board_kit import squares_study

import edgedeploy
from edgedeploy.records.measurement import Measurement
from edgedeploy.report.make import make_report
from edgedeploy.study.layer_times import kept_times
from edgedeploy.study.layout import LAYER_TIMES
from edgedeploy.study.store import Store
from edgedeploy.study.trial import Trials

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


def run(study: Path, out: Path, board: str = "here", *, until: str = "", **options: Any) -> list[str]:
    """What the run told; it is interrupted at a line that begins with ``until``."""
    told: list[str] = []

    def hear(event: edgedeploy.Event) -> None:
        told.append(event.text)
        if until and event.text.startswith(until):
            raise KeyboardInterrupt

    asked = edgedeploy.RunOptions(out=out, board=board, confirm=False, **options)
    edgedeploy.load_study(study).run(asked, observer=hear)
    return told


def spread_by_time(out: Path) -> list[Measurement]:
    found = [item for item in Store(out).measurements() if item.variant.allocation == "time"]
    assert all(any(item.variant.layer_times in note for note in item.notes) for item in found)
    return found


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that was killed once its layers were timed, and has gone on since, beside its study file."""
    folder = tmp_path_factory.mktemp("timed")
    out = folder / "first"
    study = timed_study(folder, ("trials = 6", "trials = 3"))
    with pytest.raises(KeyboardInterrupt):
        run(study, out, until="widths by time follow")
    kept = (out / LAYER_TIMES).read_bytes()
    measured = {item.digest: item.created_utc for item in Store(out).measurements()}
    assert len(measured) == 2 and not spread_by_time(out), "the baselines alone were measured before"
    told = run(study, out, resume=True)
    assert not any(text.startswith("widths by time follow") for text in told)
    assert (out / LAYER_TIMES).read_bytes() == kept, "it is not taken again"
    assert {item.digest: item.created_utc for item in Store(out).measurements()}.items() > measured.items()
    return folder


def test_the_layers_are_timed_once_and_the_variant_names_their_times(first: Path) -> None:
    times = kept_times(first / "first")
    assert times is not None
    assert {*times.layers, *times.untimed} == {"0", "3", "7"} and "3" in times.layers
    assert (times.target, times.board, times.provenance) == ("onnxruntime", "here", "measured")
    (item,) = spread_by_time(first / "first")
    assert item.variant.layer_times == times.digest
    planned = edgedeploy.load_study(first / "study.toml").plan(first / "first", board="here").tried
    assert planned is not None and item.variant.model_digest in planned.models, "of the other target's variant"
    assert any("widths by time follow the layer times of the baseline" in line for line in planned.later)
    assert times.text[1:] in make_report(first / "first").read_text(encoding="utf-8")


def test_a_second_board_takes_over_the_models_with_their_times(first: Path, tmp_path: Path) -> None:
    board = ('kind = "local"', 'kind = "local"\n\n[[boards]]\nname = "second"\nkind = "local"')
    study = timed_study(
        first,
        board,
        ("[budget]", f'[search]\nwarm_start = "{first / "first"}"\n\n[budget]'),
        ("trials = 6", "trials = 3"),
    )
    told = run(study, tmp_path / "out", "second")
    assert (tmp_path / "out" / LAYER_TIMES).read_bytes() == (first / "first" / LAYER_TIMES).read_bytes()
    assert not [text for text in told if text.startswith("training")]
    (before,), (now,) = spread_by_time(first / "first"), spread_by_time(tmp_path / "out")
    assert now.variant.model_digest == before.variant.model_digest and now.board.name == "second"
    assert now.artifact.digest == before.artifact.digest


def test_without_a_profile_such_widths_are_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIMULATED: a runtime without a profiler."""
    untold = {"candidate": {"missing": "no profiler here"}}
    monkeypatch.setattr(Trials, "_layers", lambda *_: untold)
    study, out = timed_study(tmp_path, ("trials = 6", "trials = 3")), tmp_path / "out"
    told = run(study, out)
    assert any(text.startswith("no widths by time: ") and "onnxruntime: no profiler here" in text for text in told)
    assert not [text for text in told if "width 0.5 time" in text]
    (failure,) = Store(out).failures()
    assert (failure.kind, failure.phase, failure.variant.layer_times) == ("Unsupported", "network", "")
    assert "openvino: no profiler here" in failure.message and 'allocation = ["compute"]' in failure.message
    assert not (out / LAYER_TIMES).exists()
