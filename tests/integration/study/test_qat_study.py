"""A study over calibrated and trained int8, end to end on real runtimes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from board_kit import squares_study
from typer.testing import CliRunner

import edgedeploy
from edgedeploy.cli.app import app
from edgedeploy.errors import SpecError
from edgedeploy.study.account import summarise
from edgedeploy.study.store import Store

pytestmark = [pytest.mark.beside, pytest.mark.slow]

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return squares_study(
        tmp_path,
        ("width = [1.0, 0.5]", "width = [0.5]"),
        ("kernel = [3, 5]", 'training = ["ptq", "qat"]'),
        ("trials = 6", "trials = 9"),
    )


def test_trained_int8_is_searched_beside_calibrated_int8(study: Path, tmp_path: Path) -> None:
    out, trainings = tmp_path / "out", list[str]()

    def hear(event: Any) -> None:
        if "epoch" in event.text:
            trainings.append(event.text)

    result = edgedeploy.load_study(study).run(
        edgedeploy.RunOptions(out=out, board="here", confirm=False), observer=hear
    )
    store = Store(out)
    assert not store.failures()
    by_recipe = {(item.variant.target, item.variant.recipe, item.variant.width): item for item in store.measurements()}
    recipes = {
        (target, recipe, 0.5) for target in ("onnxruntime", "openvino") for recipe in ("float32", "int8", "int8 qat")
    }
    assert set(by_recipe) == recipes
    for target in ("onnxruntime", "openvino"):
        trained, calibrated = by_recipe[target, "int8 qat", 0.5], by_recipe[target, "int8", 0.5]
        assert trained.candidate.executed["int8"] >= 2
        assert trained.metrics["correct"] >= calibrated.metrics["correct"] - 0.1
        assert trained.artifact.reference_sha256 != calibrated.artifact.reference_sha256
        assert "calibration" not in trained.variant.as_json()
    references = {
        by_recipe[target, "int8 qat", 0.5].artifact.reference_sha256 for target in ("onnxruntime", "openvino")
    }
    assert len(references) == 1, "one training serves both targets"
    assert sum("qat" in text for text in trainings) == 1, trainings
    assert summarise(store.times()).seconds["train"] > 0
    assert result.report().is_file()

    digest = by_recipe["onnxruntime", "int8 qat", 0.5].variant.digest
    told = CliRunner().invoke(app, ["debug", str(out), "--variant", digest, "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.output)["layers"]

    edgedeploy.load_study(study).run(
        edgedeploy.RunOptions(out=out, board="here", confirm=False, resume=True), observer=hear
    )
    assert sum("qat" in text for text in trainings) == 1, "a resumed study trains nothing again"


def test_litert_measures_what_was_trained(study: Path, tmp_path: Path) -> None:
    """Its trained int8 is a variant of its own, from the training that other targets share."""
    study.write_text(study.read_text().replace('"onnxruntime", "openvino"]', '"onnxruntime", "litert"]'))
    out, told = tmp_path / "out", list[str]()

    def hear(event: Any) -> None:
        told.append(event.text)

    options = edgedeploy.RunOptions(out=out, board="here", confirm=False)
    edgedeploy.load_study(study).run(options, observer=hear)
    store = Store(out)
    assert not store.failures()
    by_recipe = {(item.variant.target, item.variant.recipe): item for item in store.measurements()}
    assert set(by_recipe) == {
        (target, recipe) for target in ("onnxruntime", "litert") for recipe in ("float32", "int8", "int8 qat")
    }
    trained, calibrated = by_recipe["litert", "int8 qat"], by_recipe["litert", "int8"]
    assert trained.candidate.executed == {"int8": 3}
    shared = by_recipe["onnxruntime", "int8 qat"].artifact
    assert trained.artifact.reference_sha256 == shared.reference_sha256 != calibrated.artifact.reference_sha256
    assert trained.artifact.digest != calibrated.artifact.digest
    assert trained.parity["worst_rel_l2"] < 0.1
    assert trained.metrics["correct"] >= calibrated.metrics["correct"] - 0.1
    assert any(note.startswith("1 range is calibrated") for note in trained.notes), "of the last layer's output"
    assert not any("calibrated" in note for note in calibrated.notes)
    assert sum(" qat" in text and "epoch" in text for text in told) == 1, told
    told_layers = CliRunner().invoke(app, ["debug", str(out), "--variant", trained.variant.digest, "--json"])
    assert told_layers.exit_code == 0, told_layers.output
    assert len(json.loads(told_layers.output)["layers"]) == 3


def test_a_folder_of_before_keeps_calibrated_int8_on_litert(study: Path, tmp_path: Path) -> None:
    """Its `study.json` lacks the key: what it measured stays what a proposal stands for, and nothing is measured anew."""
    study.write_text(study.read_text().replace('"onnxruntime", "openvino"]', '"litert"]'))
    text = study.read_text()
    study.write_text(text.replace('training = ["ptq", "qat"]', 'training = ["ptq"]'))
    out, told = tmp_path / "out", list[str]()
    options = edgedeploy.RunOptions(out=out, board="here", confirm=False)
    edgedeploy.load_study(study).run(options)
    before = {item.variant.digest for item in Store(out).measurements()}
    as_before(out, text)
    study.write_text(text)

    def hear(event: Any) -> None:
        told.append(event.text)

    edgedeploy.load_study(study).run(
        edgedeploy.RunOptions(out=out, board="here", confirm=False, resume=True), observer=hear
    )
    assert {item.variant.digest for item in Store(out).measurements()} == before
    assert any("begun before LiteRT took models" in text for text in told)


def as_before(out: Path, text: str) -> None:
    """Make a folder what an older version had left of a study file that names both trainings."""
    kept = json.loads((out / "study.json").read_text())
    assert kept.pop("litert_takes_trained") is True
    (out / "study.json").write_text(json.dumps({**kept, "spec_digest": "of another version"}))
    (out / "study.toml").write_text(text)


def test_a_plan_keeps_layers_of_a_trained_model_in_float(study: Path, tmp_path: Path) -> None:
    text = study.read_text().replace(
        'training = ["ptq", "qat"]', 'training = ["qat"]\nplan = ["none", "head", "wrong"]'
    )
    text = text.replace('targets = ["onnxruntime", "openvino"]', 'targets = ["onnxruntime"]')
    text = text.replace('precision = ["float32", "int8"]', 'precision = ["int8"]')
    study.write_text(text + '\n[plans.head]\n"node_linear" = "float32"\n\n[plans.wrong]\n"node_linea" = "float32"\n')
    out, trainings = tmp_path / "out", set[str]()

    def hear(event: Any) -> None:
        if "epoch" in event.text and "qat" in event.text:
            trainings.add(event.text.split(": epoch")[0])

    edgedeploy.load_study(study).run(edgedeploy.RunOptions(out=out, board="here", confirm=False), observer=hear)
    store = Store(out)
    found = {item.variant.recipe: item for item in store.measurements() if item.variant.training}
    assert set(found) == {"int8 qat", "int8 qat node_linear=float32"}
    mixed, whole = found["int8 qat node_linear=float32"], found["int8 qat"]
    assert mixed.variant.model_digest != whole.variant.model_digest
    assert mixed.artifact.reference_sha256 != whole.artifact.reference_sha256
    assert mixed.candidate.executed["int8"] == whole.candidate.executed["int8"] - 1
    assert mixed.candidate.executed["float32"] == 1
    (failure,) = store.failures()
    assert "no layer has that name" in failure.message and "node_linear" in failure.message
    assert len(trainings) == 2, f"a plan that fits nothing is found before anything is trained: {trainings}"


def test_a_task_without_training_is_refused(study: Path, tmp_path: Path) -> None:
    module = study.with_name("squares.py")
    module.write_text(module.read_text().replace("def batches(", "def unused("))
    with pytest.raises(SpecError, match=r"space\.training: .*task 'squares' has no training"):
        edgedeploy.load_study(study).run(edgedeploy.RunOptions(out=tmp_path / "out", board="here"))
