"""A study on a board whose int8 sums are said to saturate: both builds exist, the board chooses, the report says why.

The board is this machine, whatever its processor; that one without VNNI chooses 7 bits is shown on the emulated one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from board_kit import squares_study

import edgedeploy
from edgedeploy.errors import MeasurementError
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.job import Job, RawRun
from edgedeploy.report.make import make_report
from edgedeploy.study.store import Store
from edgedeploy.study.trial import Trials

pytestmark = [pytest.mark.beside, pytest.mark.slow]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in ("study.preflight", "study.run"):
        monkeypatch.setattr(f"edgedeploy.{module}.sums_int8_exactly", lambda arch, isa: False)
    return squares_study(
        tmp_path,
        ("width = [1.0, 0.5]", "width = [1.0]"),
        ("kernel = [3, 5]", 'training = ["ptq", "qat"]'),
        ("trials = 6", "trials = 9"),
    )


def largest_weights(folder: Path) -> list[int]:
    model = onnx.load(str(folder / "model.onnx"))
    found = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer if len(tensor.dims) > 1]
    return [int(np.abs(weights.astype(int)).max()) for weights in found if weights.dtype == np.int8]


def test_the_board_chooses_and_the_report_says_why(study: Path, tmp_path: Path) -> None:
    out, said = tmp_path / "out", list[str]()
    edgedeploy.load_study(study).run(
        edgedeploy.RunOptions(out=out, board="here", confirm=False), observer=lambda event: said.append(event.text)
    )
    store = Store(out)
    assert not store.failures()
    by_recipe = {(item.variant.target, item.variant.recipe): item for item in store.measurements()}
    for target in ("onnxruntime", "openvino"):
        assert by_recipe[target, "float32"].weight_bits is None
        chosen = by_recipe[target, "int8"].weight_bits
        assert chosen is not None
        assert set(chosen.distances) == {7, 8}
        assert chosen.bits == min(chosen.distances, key=lambda bits: (chosen.distances[bits], bits))
        assert all(0 < value < 0.5 for value in chosen.distances.values())
        assert (chosen.cases, chosen.split) == (16, "training cases")
        trained = by_recipe[target, "int8 qat"].weight_bits
        assert trained is not None
        assert (trained.bits, dict(trained.distances)) == (7, {})
        assert sum(f"int8 weights of {chosen.text}" in line for line in said) == 1
    assert any("board here: int8 sums of this processor saturate" in line for line in said)

    name = by_recipe["onnxruntime", "int8"].variant.artifact_name
    eight, seven = (largest_weights(store.artifact_folder(folder)) for folder in (name, f"{name}-weights7"))
    assert len(eight) == len(seven) >= 2
    assert max(eight) == 127
    assert max(seven) == 64
    trained_name = by_recipe["onnxruntime", "int8 qat"].variant.artifact_name
    assert max(largest_weights(store.artifact_folder(trained_name))) == 64

    page = make_report(out).read_text()
    for item in by_recipe.values():
        assert item.weight_bits is None or item.weight_bits.text in page

    said.clear()
    edgedeploy.load_study(study).run(
        edgedeploy.RunOptions(out=out, board="here", confirm=True, resume=True),
        observer=lambda event: said.append(event.text),
    )
    assert not any("int8 weights of" in line for line in said), "the choice is kept"
    by_digest = {item.digest: item for item in store.measurements()}
    for item in store.confirmations():
        assert item.artifact.digest == by_digest[item.digest].artifact.digest


def test_a_damaged_choice_is_made_again(study: Path, tmp_path: Path) -> None:
    out, said = tmp_path / "out", list[str]()
    text = study.read_text().replace(', "openvino"]', "]").replace('training = ["ptq", "qat"]\n', "")
    study.write_text(text.replace('precision = ["float32", "int8"]', 'precision = ["int8"]'))

    def run(resume: bool) -> None:
        edgedeploy.load_study(study).run(
            edgedeploy.RunOptions(out=out, board="here", trials=1, resume=resume, confirm=False),
            observer=lambda event: said.append(event.text),
        )

    run(resume=False)
    store = Store(out)
    (kept,) = store.measurements()
    (out / "measurements" / f"{kept.digest}.json").unlink()
    path = store.weight_bits_path(kept.variant.artifact_name)
    path.write_text('{"bits": 9, ')
    said.clear()
    run(resume=True)
    (again,) = store.measurements()
    assert any(f"{path.name} is damaged and set aside" in line for line in said)
    assert again.weight_bits == kept.weight_bits
    assert not store.failures()


def test_a_build_that_the_board_finds_broken_loses_and_is_no_failure_of_the_variant(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_board = Trials._on_board

    def broken(self: Trials, job: Job, folder: Path) -> tuple[BoardInfo, RawRun]:
        if job.candidate.artifact.precision == "int8" and not job.candidate.folder.name.endswith("-weights7"):
            raise MeasurementError("run it", "non_finite: output 'out0' holds NaN", "Do not ship this artifact")
        return on_board(self, job, folder)

    monkeypatch.setattr(Trials, "_on_board", broken)
    out = tmp_path / "out"
    text = study.read_text().replace(', "openvino"]', "]").replace('training = ["ptq", "qat"]\n', "")
    study.write_text(text.replace('precision = ["float32", "int8"]', 'precision = ["int8"]'))
    edgedeploy.load_study(study).run(edgedeploy.RunOptions(out=out, board="here", trials=1, confirm=False))
    store = Store(out)
    assert not store.failures()
    (measured,) = store.measurements()
    assert measured.weight_bits is not None
    assert (measured.weight_bits.bits, measured.weight_bits.distances[8]) == (7, float("inf"))
