"""Studies that end before training, that run open variants again, whose trainings start from wider models, and that train
ahead of the board."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from board_kit import squares_study
from typer.testing import CliRunner

import edgedeploy
from edgedeploy.cli.app import app
from edgedeploy.evidence.reruns import run_count
from edgedeploy.files import read_json
from edgedeploy.runtime.sensors.probe import probe
from edgedeploy.study import run as study_run
from edgedeploy.study import settling
from edgedeploy.study.front import read_front
from edgedeploy.study.store import Store
from edgedeploy.study.wider import start_path

pytestmark = pytest.mark.beside

ONE_TARGET = ('targets = ["onnxruntime", "openvino"]', 'targets = ["onnxruntime"]')
QUICK = (("queries = 64", "queries = 16"), ("cold_starts = 1", "cold_starts = 0"))
TWO_VARIANTS = (ONE_TARGET, ("width = [1.0, 0.5]\n", ""), ("kernel = [3, 5]\n", ""), ("trials = 6", "trials = 2"))


def test_a_limit_below_the_weights_ends_a_study_before_anything_is_trained(tmp_path: Path) -> None:
    limit = '[[constraints]]\nmetric = "size_bytes"\nat_most = "100 B"\n\n[budget]'
    study, out = squares_study(tmp_path, ONE_TARGET, ("[budget]", limit)), tmp_path / "out"
    told = CliRunner().invoke(app, ["search", str(study), "--out", str(out), "--board", "here"])
    assert told.exit_code == 1, told.output
    assert "0 variants evaluated; ended because of: impossible" in told.output
    said = " ".join(told.output.split())
    assert "No variant can meet size_bytes at most 100 B: none is below" in said and "8 bits at least" in said
    assert not list((out / "models").glob("*")) and not (out / "baseline").exists()
    shown = CliRunner().invoke(app, ["front", str(out), "--json"])
    assert shown.exit_code == 1
    (proof,) = json.loads(shown.output)["proofs"]
    assert proof["provenance"] == "bound" and proof["best"] > 100


def test_what_is_open_runs_again_in_processes_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything counts as open here, because how far two runs differ is no matter of a test."""
    monkeypatch.setattr(settling, "UNSURE", (-1.0, 2.0))
    monkeypatch.setattr(settling, "MOST_RUNS", 2)
    changes = (*TWO_VARIANTS, ("recovered_baseline = false", 'wall_clock = "4 min"'), ("queries = 64", "queries = 128"))
    study, out = (
        squares_study(tmp_path, *changes, ("[measure]", "[search]\nremeasure = 0.5\n\n[measure]")),
        tmp_path / "out",
    )
    notes: list[str] = []
    options = edgedeploy.RunOptions(out=out, board="here", confirm=False)
    edgedeploy.load_study(study).run(options, observer=lambda event: notes.append(event.text))
    found = {item.variant.precision: item for item in Store(out).measurements()}
    again = found["int8"]
    assert (run_count(found["float32"]), run_count(again)) == (1, 2), notes
    first, second = again.environment["runs"]
    assert first["blocks"] == second["blocks"] == len(again.candidate.blocks_ns) / 2
    assert again.baseline is not None and len(again.baseline.blocks_ns) == len(again.candidate.blocks_ns)
    row = read_front(out).row(again.digest)
    assert row is not None and row.estimates["latency_ratio"].value == again.metrics["latency_ratio"]
    assert any(note.startswith("open after 1 further run") for note in notes)


RUNGS = (
    ONE_TARGET,
    *QUICK,
    ("kernel = [3, 5]\n", "recovery_epochs = [0, 1]\n"),
    ("width = [1.0, 0.5]", "width = [1.0, 0.75, 0.5]"),
    ('precision = ["float32", "int8"]', 'precision = ["float32"]'),
    ("trials = 6", "trials = 5"),
)


def test_trainings_start_from_wider_models_and_measurements_say_so(tmp_path: Path) -> None:
    study, out = squares_study(tmp_path, *RUNGS), tmp_path / "out"
    options = edgedeploy.RunOptions(out=out, board="here", confirm=False)
    edgedeploy.load_study(study).run(options)
    store = Store(out)
    trained = [item for item in store.measurements() if item.variant.recovery_epochs == 1]
    assert {item.variant.width for item in trained} == {0.75, 0.5}
    made = {item.variant.width: store.model_folder(item.variant.model_digest) for item in trained}
    for item in trained:
        start = read_json(start_path(store, item.variant.model_digest))
        wider = [note for note in item.notes if "wider model" in note]
        if start["variant"] is None:
            assert not wider
        else:
            assert item.variant.width == 0.5 and start["model"] == made[0.75].name
            assert wider == [f"its training started from the wider model w0.75 kernel=3 1ep, model {made[0.75].name}"]


def test_models_are_trained_while_a_board_that_is_another_machine_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """STAND-IN: this host takes itself for another machine than the board, which in truth it is."""
    found = {**probe(), "boot_id": "another kernel", "identity": "another machine"}
    monkeypatch.setattr(study_run, "probe", lambda: found)
    threads: list[tuple[str, str]] = []

    def heard(event: Any) -> None:
        threads.append((event.text, threading.current_thread().name))

    out = tmp_path / "out"
    options = edgedeploy.RunOptions(out=out, board="here", confirm=False)
    result = edgedeploy.load_study(squares_study(tmp_path, *RUNGS)).run(options, observer=heard)
    assert result.evaluated == 5 and len(Store(out).measurements()) == 5
    assert any(text.startswith("training w") or text.startswith("training width") for text, _ in threads)
    assert any(name == "board ahead" for text, name in threads if text.startswith("training"))
