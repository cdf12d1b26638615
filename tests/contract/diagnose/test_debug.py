"""Finding the layer where an artifact leaves its reference, on artifacts of the real toolchains."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small_onnx import convolutional, feeds, request
from typer.testing import CliRunner

from edgedeploy.cli.app import app
from edgedeploy.diagnose.layers import IN_FLOAT_HERE, debug
from edgedeploy.errors import SpecError
from edgedeploy.files import write_json
from edgedeploy.records.artifact import MANIFEST, Artifact
from edgedeploy.reference.export import describe
from edgedeploy.targets.common import saturates_here
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
from edgedeploy.targets.openvino.target import OpenVinoTarget
from edgedeploy.targets.tensorrt import TensorRtTarget

TARGETS = (OnnxRuntimeTarget, OpenVinoTarget, TensorRtTarget)
each_target = pytest.mark.parametrize("make", TARGETS, ids=[target.name for target in TARGETS])
each_precision = pytest.mark.parametrize("precision", ["float32", "int8"])


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder laid out as a study's: a model, and inputs."""
    model = tmp_path / "models" / "m"
    model.mkdir(parents=True)
    convolutional(model / "reference.onnx")
    reference = describe(model / "reference.onnx")
    write_json(model / "reference.json", reference.as_json())
    (tmp_path / "inputs").mkdir()
    rows = [feed["image"] for feed in feeds(reference.inputs[0], count=6)]
    np.savez(tmp_path / "inputs" / "selection-0.npz", image=np.stack(rows))
    return tmp_path


def build(make: Any, precision: str, study: Path) -> Path:
    folder = study / "artifacts" / f"{make().name}-{precision}"
    folder.parent.mkdir(exist_ok=True)
    artifact = make().build(request(study / "models" / "m" / "reference.onnx", precision), folder)
    write_json(folder / MANIFEST, artifact.as_json())
    return folder


def damage_onnx(folder: Path, layer: str) -> None:
    """Perturb the weights of one layer, which lie behind a DequantizeLinear when they are int8, and a QuantizeLinear for
    TensorRT."""
    model = onnx.load(str(folder / "model.onnx"))
    node = next(node for node in model.graph.node if node.name == layer)
    made_by = {output: other for other in model.graph.node for output in other.output}
    name = node.input[1]
    while name in made_by:
        name = made_by[name].input[0]
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.roll(values, 3, axis=0), name))
    onnx.save(model, str(folder / "model.onnx"))


def damage_openvino(folder: Path, layer: str) -> None:
    import openvino as ov
    import openvino.opset13

    model = ov.Core().read_model(str(folder / "model.xml"))
    products = [op for op in model.get_ordered_ops() if op.get_type_name() == "Convolution"]
    node = products[["/block1/conv", "/block2/conv", "/head/conv"].index(layer)]
    constant = node.input_value(1).get_node()
    while constant.get_type_name() != "Constant":
        constant = constant.input_value(0).get_node()
    constant.output(0).replace(ov.opset13.constant(np.roll(constant.get_data(), 3, axis=0)).output(0))
    ov.save_model(model, str(folder / "again.xml"), compress_to_fp16=False)
    for suffix in (".xml", ".bin"):
        (folder / f"again{suffix}").replace(folder / f"model{suffix}")


DAMAGE: dict[str, Callable[[Path, str], None]] = {
    "onnxruntime": damage_onnx,
    "openvino": damage_openvino,
    "tensorrt": damage_onnx,
}


@each_target
@each_precision
def test_a_sound_artifact_has_no_bad_layer(make: Any, precision: str, study: Path) -> None:
    found = debug(build(make, precision, study))
    assert found.first_bad is None
    told = ("ONNX Runtime ran the file: what an engine computes, only a board can tell",)
    in_float = (IN_FLOAT_HERE,) if saturates_here() and precision == "int8" else ()
    assert found.notes == (told if make is TensorRtTarget else in_float)
    assert found.inputs == "4 cases of selection-0.npz"
    assert {"/block1/conv", "/block2/conv", "/head/conv"} <= {layer.layer for layer in found.layers}
    assert all(layer.sqnr_db > (20 if precision == "int8" else 90) for layer in found.layers)


@each_target
@each_precision
@pytest.mark.parametrize("layer", ["/block1/conv", "/block2/conv", "/head/conv"])
def test_a_damaged_layer_is_the_first_bad_one(make: Any, precision: str, layer: str, study: Path) -> None:
    folder = build(make, precision, study)
    DAMAGE[make().name](folder, layer)
    found = debug(folder)
    assert found.first_bad is not None
    assert found.first_bad.layer == layer
    assert found.noisiest is not None
    assert found.noisiest.layer == layer
    assert any("is not the file that was built" in note for note in found.notes)


@each_target
def test_values_that_are_none_are_found(make: Any, study: Path) -> None:
    folder = build(make, "float32", study)
    reference = study / "models" / "m" / "reference.onnx"
    model = onnx.load(str(reference))
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "w2")
    values = numpy_helper.to_array(weights).copy()
    values[0, 0, 0, 0] = np.nan
    weights.CopyFrom(numpy_helper.from_array(values, "w2"))
    if make is OpenVinoTarget:
        import openvino as ov

        onnx.save(model, str(study / "broken.onnx"))
        ov.save_model(ov.convert_model(str(study / "broken.onnx")), str(folder / "model.xml"), compress_to_fp16=False)
    else:
        onnx.save(model, str(folder / "model.onnx"))
    bad = debug(folder).first_bad
    assert bad is not None
    assert (bad.layer, bad.non_finite > 0, bad.sqnr_db) == ("/block2/conv", True, -400.0)
    json.dumps(debug(folder).as_json(), allow_nan=False)
    shown = CliRunner().invoke(app, ["debug", str(folder)]).output
    assert "nothing alike" in shown and "Most noise enters at /block2/conv (all of the signal)." in shown
    assert "400" not in shown, "it stands for what has no number"


def test_several_passes_say_what_one_pass_says(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build(OnnxRuntimeTarget, "int8", study)
    once = debug(folder).layers
    monkeypatch.setattr("edgedeploy.targets.compare.layers.PASS_BYTES", 1)
    apart = debug(folder).layers
    assert [layer.layer for layer in apart] == [layer.layer for layer in once]
    assert [layer.sqnr_db for layer in apart] == pytest.approx([layer.sqnr_db for layer in once], abs=0.5)


def test_the_command_prints_a_table_and_json(study: Path) -> None:
    folder = build(OnnxRuntimeTarget, "int8", study)
    shown = CliRunner().invoke(app, ["debug", str(folder)])
    assert shown.exit_code == 0, shown.output
    assert "/block2/conv" in shown.output
    assert "No layer is below 12.0 dB" in shown.output
    damage_onnx(folder, "/block2/conv")
    told = CliRunner().invoke(app, ["debug", str(folder), "--json"])
    assert told.exit_code == 1
    assert json.loads(told.output)["first_bad"] == "/block2/conv"


def test_layers_that_are_equal_are_called_so(study: Path) -> None:
    """They had an SQNR of 400 dB beside the largest error."""
    folder = build(OnnxRuntimeTarget, "float32", study)
    path = study / "inputs" / "selection-0.npz"
    with np.load(path) as stored:
        images = stored["image"]
    np.savez(path, image=images * np.float32(1e-9))
    assert {layer.sqnr_db for layer in debug(folder).layers} == {400.0}
    shown = CliRunner().invoke(app, ["debug", str(folder)]).output
    assert "equal" in shown and "400" not in shown


def test_without_stored_inputs_random_ones_are_named(study: Path) -> None:
    folder = build(OnnxRuntimeTarget, "float32", study)
    (study / "inputs" / "selection-0.npz").unlink()
    assert "random" in debug(folder).inputs


def test_what_cannot_be_found_is_said(study: Path) -> None:
    folder = build(OnnxRuntimeTarget, "float32", study)
    with pytest.raises(SpecError, match="no manifest"):
        debug(study / "artifacts")
    artifact = Artifact.from_json(json.loads((folder / MANIFEST).read_text()))
    write_json(folder / MANIFEST, {**artifact.as_json(), "reference_sha256": "0" * 64})
    with pytest.raises(SpecError, match="--reference"):
        debug(folder)
    given = debug(folder, reference=study / "models" / "m" / "reference.onnx")
    assert any("is not the reference" in note for note in given.notes)


def test_an_artifact_of_an_older_version_has_its_manifest_beside_it(study: Path) -> None:
    folder = build(OnnxRuntimeTarget, "float32", study)
    older = (folder / MANIFEST).rename(folder.with_suffix(".json"))
    assert debug(folder).first_bad is None
    assert older.is_file(), "looking changes nothing"
