"""A bare ONNX file from a study file to a front: precision, plan, calibration and target searched, nothing trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from foreign_networks import recurrent_cell
from quantized_onnx import operators, pairs
from small_onnx import convolutional
from typer.testing import CliRunner

import edgedeploy
from edgedeploy.cli.app import app
from edgedeploy.errors import EdgeDeployError, SpecError
from edgedeploy.study.store import Store

pytestmark = pytest.mark.beside

STUDY = """\
[study]
name = "bare"
targets = ["onnxruntime", "openvino"]

[task]
kind = "onnx"
model = "{model}"

[task.options]
calibration = "calibration.npz"
selection = "selection.npz"
confirmation = "confirmation.npz"
{options}

[[boards]]
name = "here"
kind = "local"

[space]
precision = ["float32", "int8"]
plan = ["none", "wide"]
calibration = ["minmax", "percentile"]
calibration_cases = [2, 6]

[plans.wide]
"{wide}" = "float32"

[[objectives]]
metric = "reference_rel_l2"

[[objectives]]
metric = "latency_ratio"

[budget]
trials = {trials}

# Tests run on busy machines and judge no speed: few queries, wide limits on what counts as stable.
[measure]
queries = 16
warmup = 1
cold_starts = 0
max_drift = 50.0
max_spread = 50.0
max_background_cores = 64.0
"""


def study(
    folder: Path, model: Path, name: str, shape: tuple[int, ...], wide: str, trials: int, options: str = ""
) -> Path:
    for seed, split in enumerate(("calibration", "selection", "confirmation")):
        rows = np.random.default_rng(seed).random((6, *shape)).astype(np.float32)
        np.savez(folder / f"{split}.npz", **{name: rows})
    path = folder / "study.toml"
    path.write_text(STUDY.format(model=model, wide=wide, trials=trials, options=options), encoding="utf-8")
    return path


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    model = convolutional(tmp_path / "model.onnx", named=False)
    return study(tmp_path, model, "image", (1, 3, 16, 16), "Conv:c1", 8)


def was_elsewhere(out: Path, flag: str) -> None:
    """As if all had been measured before the board, a virtual machine, came to a processor without ``flag``."""
    for path in (out / "measurements").glob("*.json"):
        data = json.loads(path.read_text(encoding="utf-8"))
        data["board"]["isa"].append(flag)
        path.write_text(json.dumps(data), encoding="utf-8")


def test_from_file_to_front(bare: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = edgedeploy.load_study(bare).run(edgedeploy.RunOptions(out=out))
    measured = Store(out).measurements()
    assert result.evaluated == len(measured) == 8
    assert len({item.artifact.digest for item in measured}) >= 5
    assert {item.variant.target for item in measured} == {"onnxruntime", "openvino"}
    for item in measured:
        planned = item.variant.precision == "int8" and bool(item.variant.plan.rules)
        assert item.variant.width == 1.0
        assert item.metrics["reference_rel_l2"] < (0.25 if item.variant.precision == "int8" else 1e-3)
        if planned:
            assert item.candidate.executed == {"int8": 2, "float32": 1}
    assert result.front.members
    assert "reference_rel_l2" in result.report().read_text(encoding="utf-8")
    assert not (out / "baseline").exists()

    digest = next(item.digest for item in measured if item.variant.precision == "int8")
    told = CliRunner().invoke(app, ["debug", str(out), "--variant", digest[:8], "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.output)
    assert found["inputs"].startswith("4 cases of ")
    assert "Conv:c1" in {layer["layer"] for layer in found["layers"]}

    told = CliRunner().invoke(app, ["front", str(out), "--json"])
    board = measured[0].board
    assert json.loads(told.output)["processors"] == {
        board.name: {"cpu": board.cpu, "arch": board.arch, "cores": board.cores, "isa": list(board.isa)}
    }
    assert set(board.isa) <= set(board.isa_known)
    assert ", ".join(board.isa) in result.report().read_text(encoding="utf-8")

    convolutional(tmp_path / "model.onnx", side=16, opset=18)
    with pytest.raises(SpecError, match="has changed since the study began"):
        edgedeploy.load_study(bare).run(edgedeploy.RunOptions(out=out, resume=True, trials=9))

    lacking = min(set(board.isa_known) - set(board.isa))  # no processor has all of them
    was_elsewhere(out, lacking)
    with pytest.raises(SpecError, match=f"not the board that was measured before: CPU flags without {lacking}"):
        edgedeploy.load_study(bare).run(edgedeploy.RunOptions(out=out, resume=True, trials=9))


def test_what_needs_training_is_no_part_of_the_space(bare: Path, tmp_path: Path) -> None:
    text = bare.read_text().replace("[space]\n", "[space]\nwidth = [1.0, 0.5]\n")
    bare.write_text(text)
    with pytest.raises(SpecError, match=r"space\.width: a ready-made model cannot be pruned"):
        edgedeploy.load_study(bare).run(edgedeploy.RunOptions(out=tmp_path / "out"))
    bare.write_text(text.replace("width = [1.0, 0.5]", 'training = ["ptq", "qat"]'))
    with pytest.raises(SpecError, match=r"space\.training: .*a ready-made model has no training.*calibration"):
        edgedeploy.load_study(bare).run(edgedeploy.RunOptions(out=tmp_path / "out"))


def test_state_is_carried_over_clips_on_the_board(tmp_path: Path) -> None:
    """A recurrent cell with a state and an input without a dimension, over clips of 5 frames."""
    recurrent_cell(tmp_path / "model.onnx")
    path = study(tmp_path, tmp_path / "model.onnx", "x", (5, 8), "/head", 2, 'states = { state = "stateN" }')
    for split in ("calibration", "selection", "confirmation"):
        with np.load(tmp_path / f"{split}.npz") as arrays:
            np.savez(tmp_path / f"{split}.npz", x=arrays["x"], gain=np.ones((6, 5), np.float32))
    edgedeploy.load_study(path).run(edgedeploy.RunOptions(out=tmp_path / "out", confirm=False))
    store = Store(tmp_path / "out")
    measured = {item.variant.target: item for item in store.measurements()}
    assert set(measured) == {"onnxruntime", "openvino"}
    for item in measured.values():
        assert item.metrics["reference_rel_l2"] < 1e-5
        assert item.candidate.executed == {"float32": 3}
        with np.load(store.outputs_path(item.variant.digest, "selection")) as outputs:
            assert {name: outputs[name].shape for name in outputs.files} == {"y": (6, 5, 1, 4)}
    told = CliRunner().invoke(app, ["debug", str(tmp_path / "out"), "--variant", item.digest[:8], "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.output)["inputs"].startswith("the first frames of 4 clips of selection-")


GIVEN = (
    *(('precision = ["float32", "int8"]', 'precision = ["as-given"]'), ('plan = ["none", "wide"]\n', "")),
    *(('calibration = ["minmax", "percentile"]\n', ""), ("calibration_cases = [2, 6]\n", "")),
    ('[plans.wide]\n"/head" = "float32"\n', ""),
)
"""What a study of a quantized model leaves out, one after the other."""


def given_study(folder: Path, write: Callable[[Path], Path], changes: int = len(GIVEN)) -> Path:
    path = study(folder, write(folder / "model.onnx"), "image", (1, 3, 16, 16), "/head", 1)
    text = path.read_text()
    for old, new in GIVEN[:changes]:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path


def test_a_quantized_file_is_measured_as_it_is(tmp_path: Path) -> None:
    path = given_study(tmp_path, pairs)
    edgedeploy.load_study(path).run(edgedeploy.RunOptions(out=tmp_path / "out", confirm=False, trials=2))
    measured = Store(tmp_path / "out").measurements()
    assert {item.variant.target for item in measured} == {"onnxruntime", "openvino"}
    for item in measured:
        assert item.variant.precision == "as-given"
        assert item.candidate.executed == {"int8": 3}
    first = next(item for item in measured if item.variant.target == "onnxruntime")
    assert (tmp_path / "model.onnx").stat().st_size > 0.8 * first.artifact.size_bytes
    assert first.metrics["reference_rel_l2"] == 0.0


@pytest.mark.parametrize(
    ("write", "changes", "change", "told"),
    [
        (pairs, 0, None, r"space.precision: .*cannot be built in float32, int8: it is quantized already \(operator "),
        (pairs, 1, None, r"space.plan: the model is measured as it is given: it is quantized already"),
        (operators, 5, None, "OpenVINO as it is given: .*QLinearConv.*Leave out the target openvino"),
        (pairs, 5, ('"openvino"]', '"litert"]'), "target 'litert' .*builds from float models, and it is quantized"),
        (convolutional, 5, None, "space.precision.* no target of this study builds as-given"),
    ],
    ids=["precision", "plan", "operator", "target", "float"],
)
def test_what_does_not_go_with_a_model_as_given_is_told_before_anything_starts(
    write: Callable[[Path], Path], changes: int, change: tuple[str, str] | None, told: str, tmp_path: Path
) -> None:
    if change is not None and find_spec("ai_edge_litert") is None:
        pytest.skip("LiteRT is not installed")
    path = given_study(tmp_path, write, changes)
    if change is not None:
        path.write_text(path.read_text().replace(*change))
    with pytest.raises(EdgeDeployError, match=told):
        edgedeploy.load_study(path).run(edgedeploy.RunOptions(out=tmp_path / "out"))
    assert not list((tmp_path / "out").glob("measurements/*"))


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "shape", "wide", "options"),
    [
        ("ultraface/version-slim-320_without_postprocessing.onnx", (1, 3, 240, 320), "Conv:185", ""),
        ("yunet/yunet_n_320_320.onnx", (1, 3, 320, 320), "Conv_0", ""),
        ("yunet/yunet_n_dynamic.onnx", (1, 3, 320, 320), "Conv_0", "shapes = { input = [1, 3, 320, 320] }"),
    ],
    ids=["ultraface", "yunet", "yunet-dynamic"],
)
def test_published_models_are_searched(
    name: str, shape: tuple[int, ...], wide: str, options: str, shared: Path, tmp_path: Path
) -> None:
    path = study(tmp_path, shared / "models" / name, "input", shape, wide, 4, options)
    edgedeploy.load_study(path).run(edgedeploy.RunOptions(out=tmp_path / "out", confirm=False))
    store = Store(tmp_path / "out")
    targets = {item.variant.target for item in store.measurements() if item.variant.precision == "float32"}
    assert targets == {"onnxruntime", "openvino"}
    assert len(store.measurements()) + len(store.failures()) == 4
    assert all(item.kind == "ParityError" for item in store.failures()), "int8 of random pictures may stray, no more"
