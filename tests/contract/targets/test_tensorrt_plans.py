"""Single layers in a precision of their own, ways to calibrate, and verdicts, for the target that needs a Jetson to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_onnx import convolutional, feeds, request, transformer_block

from edgedeploy.errors import BuildError, Unsupported
from edgedeploy.interfaces.target import Calibrating, PerLayer
from edgedeploy.reference.export import describe, open_onnx, run_reference
from edgedeploy.reference.parity import check_parity
from edgedeploy.runtime.files import sha256_file
from edgedeploy.targets.onnxruntime.quantize import CALIBRATIONS, narrow_nodes
from edgedeploy.targets.tensorrt import Level, TensorRtTarget, rtx, verdict
from edgedeploy.targets.tensorrt.halves import half_nodes, narrow_floats, widened
from edgedeploy.targets.tensorrt.rtx import ProxyDied
from edgedeploy.targets.tensorrt.version import TrtVersion

LEVEL = Level.LINT if rtx.installed_version() is None else Level.BUILT


def build(path: Path, precision: str, plan: dict[str, str], folder: Path) -> onnx.ModelProto:
    artifact = TensorRtTarget().build(request(path, precision, plan), folder)
    return onnx.load(str(folder / artifact.entry))


def precisions_of(model: onnx.ModelProto) -> dict[str, str]:
    return {**narrow_nodes(model), **half_nodes(model)}


def agrees(path: Path, model: onnx.ModelProto, *precisions: str) -> float:
    """The file computed in float. bfloat16 runs in float32 with its rounded weights."""
    onnx.save(widened(model), str(path.with_name("runs.onnx")))
    session = open_onnx(path.with_name("runs.onnx"), threads=1, as_written=True)
    reference = describe(path)
    rows = list(feeds(reference.inputs[0], count=3, seed=9))
    wanted = np.concatenate([run_reference(reference, feed)["out"] for feed in rows])
    found = np.concatenate([session.run(["out"], feed)[0] for feed in rows])
    return check_parity({"out": wanted}, {"out": found}, *precisions)["rel_l2"]


def test_it_offers_layers_and_calibrations() -> None:
    assert isinstance(TensorRtTarget(), PerLayer)
    assert isinstance(TensorRtTarget(), Calibrating)


@pytest.mark.parametrize(
    ("precision", "layer", "narrow"),
    [
        ("int8", "float32", {"/block1/conv": "int8", "/head/conv": "int8"}),
        ("int8", "float16", {"/block1/conv": "int8", "/head/conv": "int8", "/block2/conv": "float16"}),
        ("float32", "int8", {"/block2/conv": "int8"}),
        ("float32", "bfloat16", {"/block2/conv": "bfloat16"}),
        ("float16", "float32", {"/block1/conv": "float16", "/head/conv": "float16"}),
        ("float16", "int8", {"/block1/conv": "float16", "/head/conv": "float16", "/block2/conv": "int8"}),
        ("bfloat16", "int8", {"/block1/conv": "bfloat16", "/head/conv": "bfloat16", "/block2/conv": "int8"}),
    ],
)
def test_a_layer_has_its_own_precision(precision: str, layer: str, narrow: dict[str, str], tmp_path: Path) -> None:
    path = convolutional(tmp_path / "m.onnx")
    model = build(path, precision, {"/block2/conv": layer}, tmp_path / "out")
    assert precisions_of(model) == narrow
    assert agrees(path, model, precision, layer) > 1e-5
    settings = dict(TensorRtTarget().build(request(path, precision, {"*2/conv": layer}), tmp_path / "again").settings)
    assert (settings["layer_precisions"], settings["level"]) == (layer, LEVEL)


def test_matrix_products_too(tmp_path: Path) -> None:
    path = transformer_block(tmp_path / "m.onnx")
    model = build(path, "float16", {"/mlp/fc2": "int8"}, tmp_path / "out")
    assert precisions_of(model) == {"/mlp/fc1": "float16", "/mlp/fc2": "int8"}
    agrees(path, model, "float16", "int8")


def test_what_lies_between_wide_layers_is_never_rounded(tmp_path: Path) -> None:
    """Casts stand at the borders only: one down before the narrow layer, one up behind it."""
    path = convolutional(tmp_path / "m.onnx")
    model = build(path, "float32", {"/head/conv": "float16"}, tmp_path / "out")
    casts = [(list(node.input), list(node.output)) for node in model.graph.node if node.op_type == "Cast"]
    assert casts == [(["r2"], ["r2:float16"]), (["out:float16"], ["out"])]
    onnx.checker.check_model(model, full_check=True)


def test_bfloat16_keeps_what_float16_cannot_hold(tmp_path: Path) -> None:
    path = convolutional(tmp_path / "m.onnx")
    model = onnx.load(str(path))
    (weight,) = [tensor for tensor in model.graph.initializer if tensor.name == "wh"]
    weight.CopyFrom(numpy_helper.from_array(np.full((2, 8, 1, 1), 1e6, np.float32), "wh"))
    found = {
        precision: numpy_helper.to_array(
            next(t for t in narrow_floats(model, precision, {"/head/conv"}).graph.initializer if "wh" in t.name)
        ).astype(np.float32)
        for precision in ("float16", "bfloat16")
    }
    assert (found["float16"] == 65504).all()
    assert found["bfloat16"] == pytest.approx(1e6, rel=2**-8)


def test_what_a_branch_reads_from_around_it_stays_there(tmp_path: Path) -> None:
    def branch(operator: str) -> onnx.GraphProto:
        output = helper.make_tensor_value_info(operator, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(operator, ["c"], [operator])], operator, [], [output])

    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], name="conv", pads=[1] * 4),
        helper.make_node("If", ["yes"], ["out"], name="if", then_branch=branch("Relu"), else_branch=branch("Neg")),
    ]
    weights = [
        numpy_helper.from_array(np.random.default_rng(0).random((2, 2, 3, 3), np.float32), "w"),
        numpy_helper.from_array(np.array(True), "yes"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 8, 8]) for name in ("image", "out")]
    graph = helper.make_graph(nodes, "branches", values[:1], values[1:], weights)
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    model = build(path, "float16", {}, tmp_path / "out")
    assert half_nodes(model) == {"conv": "float16"}
    assert agrees(path, model, "float16") > 1e-5


@pytest.mark.parametrize(
    ("rules", "error", "told"),
    [
        ({"/blok1/conv": "float32"}, BuildError, r"no layer has that name.*Did you mean '/block1/conv'"),
        ({"*": "int8", "/head/conv": "float32"}, BuildError, r"'/head/conv'.*rules before it decide"),
        ({"/block1/relu": "int8"}, Unsupported, r"multiplies with no constant weights"),
        ({"/head/conv": "int4-weights"}, Unsupported, r"int4-weights.*it has float32"),
        ({"/head/conv": "float16", "/block1/conv": "bfloat16"}, Unsupported, r"the plan names both"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_an_error(
    rules: dict[str, str], error: type[Exception], told: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=told):
        TensorRtTarget().build(request(convolutional(tmp_path / "m.onnx"), "int8", rules), tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_each_way_to_calibrate_and_no_other(tmp_path: Path) -> None:
    path = convolutional(tmp_path / "m.onnx")
    spec = describe(path).inputs[0]

    def with_outlier() -> Any:
        for index, feed in enumerate(feeds(spec)):
            if index == 3:
                feed["image"][0, 0, 0, 0] = 40.0
            yield feed

    files = set()
    for way in CALIBRATIONS:
        asked = request(path, "int8", None, way, with_outlier)
        TensorRtTarget().build(asked, tmp_path / way)
        model = onnx.load(str(tmp_path / way / "model.onnx"))
        zeros = [t for t in model.graph.initializer if t.name.endswith("zero_point")]
        assert zeros and not any(numpy_helper.to_array(tensor).any() for tensor in zeros), "symmetric in every way"
        agrees(path, model, "int8")
        files.add(sha256_file(tmp_path / way / "model.onnx"))
    assert len(files) == len(CALIBRATIONS)
    with pytest.raises(Unsupported, match="calibration 'guess'"):
        TensorRtTarget().build(request(path, "int8", None, "guess"), tmp_path / "out")


def test_a_batch_norm_that_cannot_be_folded_keeps_its_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shapes = {"scale": (2,), "bias": (2,), "mean": (2,), "var": (2,), "w": (2, 2, 3, 3)}
    weights = [numpy_helper.from_array(rng.random(shape, np.float32) + 0.5, name) for name, shape in shapes.items()]
    nodes = [
        helper.make_node("BatchNormalization", ["image", "scale", "bias", "mean", "var"], ["n"], name="norm"),
        helper.make_node("Conv", ["n", "w"], ["out"], name="conv", pads=[1] * 4),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 8, 8]) for name in ("image", "out")]
    graph = helper.make_graph(nodes, "norm", values[:1], values[1:], weights)
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    model = build(path, "int8", {}, tmp_path / "out")
    constants = {tensor.name for tensor in model.graph.initializer}
    (norm,) = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    assert set(norm.input[1:]) <= constants
    assert precisions_of(model) == {"conv": "int8"}


# -- verdicts


@pytest.mark.parametrize("precision", TensorRtTarget.precisions)
def test_verdict_of_a_sound_model(precision: str, tmp_path: Path) -> None:
    found = verdict(request(convolutional(tmp_path / "m.onnx"), precision), tmp_path / "out")
    assert found.level is LEVEL, found.reasons
    assert found.releases[-2:] == ("10.3.0", "10.13.3")
    assert any("opset-new" in reason and "8.2.1" in reason for reason in found.reasons), "which boards it is not for"
    assert (tmp_path / "out" / "model.onnx").is_file()
    assert found.as_json()["level"] == LEVEL.value


def one_node(path: Path, operator: str) -> Path:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 8, 8]) for name in ("image", "out")]
    graph = helper.make_graph([helper.make_node(operator, ["image"], ["out"], name="n")], "one", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def test_verdict_of_a_model_that_the_rules_refuse(tmp_path: Path) -> None:
    found = verdict(request(one_node(tmp_path / "m.onnx", "Bernoulli"), "float32"), tmp_path / "out")
    assert (found.level, found.releases) == (None, ())
    assert "operator-unsupported" in found.reasons[0]
    assert list((tmp_path / "out").iterdir()) == []


def test_verdict_for_one_release_alone(tmp_path: Path) -> None:
    asked = request(convolutional(tmp_path / "m.onnx"), "bfloat16")
    found = verdict(asked, tmp_path / "out", (TrtVersion(8, 5, 2),))
    assert found.level is None
    assert "bfloat16-type" in found.reasons[0]


def test_verdict_when_the_proxy_refuses_or_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a proxy of this or another version may say, made up: the label stays at what was proved without it."""
    path = convolutional(tmp_path / "m.onnx")
    refused = rtx.RtxResult("9", False, False, 0, 0, ("In node 3: no importer",), (), ())
    monkeypatch.setattr(rtx, "installed_version", lambda: "9")
    monkeypatch.setattr(rtx, "check", lambda file: refused)
    found = verdict(request(path, "float32"), tmp_path / "a")
    assert found.level is Level.LINT
    assert "no importer" in found.reasons[0]

    def died(file: Path) -> rtx.RtxResult:
        raise ProxyDied("a check", "exit status -11: silence")

    monkeypatch.setattr(rtx, "check", died)
    found = verdict(request(path, "float32"), tmp_path / "b")
    assert found.level is Level.LINT
    assert "exit status -11" in found.reasons[0]


def test_a_16_bit_rule_that_changes_nothing_is_an_error(tmp_path: Path) -> None:
    """A Cast gives the type that its attribute says, whatever a plan asks of it."""
    model = transformer_block(tmp_path / "m.onnx")
    proto = onnx.load(str(model))
    for node in proto.graph.node:
        if node.name == "/mlp/act":
            node.op_type = "Cast"
            node.attribute.append(onnx.helper.make_attribute("to", onnx.TensorProto.FLOAT))
    onnx.save(proto, str(model))
    with pytest.raises(Unsupported, match=r"'/mlp/act' in float16.*stays in float32"):
        TensorRtTarget().build(request(model, "float32", {"/mlp/act": "float16"}), tmp_path / "out")
