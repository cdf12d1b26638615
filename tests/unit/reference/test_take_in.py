"""Strangers' ONNX files: what is taken in and stays the same, what is folded, what is refused and why."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from foreign_networks import FLOAT, INT64, NETWORKS, elementwise
from foreign_onnx import branch, constant, loop, save
from onnx import helper
from small_onnx import convolutional

from edgedeploy.errors import DataError, EdgeDeployError, SpecError, Unsupported
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.reference.take_in import TakenIn, take_in


def operators(taken: TakenIn) -> set[str]:
    return {node.op_type for node in onnx.ModelProto.FromString(taken.data).graph.node}


def run(data: bytes, feed: dict[str, Any]) -> list[Any]:
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    values: list[Any] = session.run(None, feed)
    return values


def same(path: Path, taken: TakenIn, constants: dict[str, Any] | None = None) -> bool:
    """Whether original and copy give equal outputs on an input that is not the one of the taking in."""
    rng = np.random.default_rng(9)
    feed = {spec.name: rng.standard_normal(spec.shape).astype(spec.dtype) for spec in taken.inputs}
    original = onnx.load(str(path))
    for node in original.graph.node:  # a runtime refuses two nodes of one name
        node.name = ""
    first = run(original.SerializeToString(), {**feed, **(constants or {})})
    second = run(taken.data, feed)
    return all(np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("write", NETWORKS, ids=lambda item: item.__name__)
def test_it_is_taken_and_computes_the_same(write: Callable[[Path], Path], tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx")
    taken = take_in(path, {})
    assert same(path, taken)
    assert not operators(taken) & {"If", "SplitToSequence", "SequenceAt", "Gate"}
    model = onnx.ModelProto.FromString(taken.data)
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    assert [tuple(value.shape) for value in run(taken.data, _zeros(taken))] == [spec.shape for spec in taken.outputs]


def _zeros(taken: TakenIn) -> dict[str, Any]:
    return {spec.name: np.zeros(spec.shape, spec.dtype) for spec in taken.inputs}


def sample_rate(path: Path) -> Path:
    """The look-alike of a published voice detector: the sampling rate is an input, and chooses one of two networks."""
    nodes = [
        constant("high", value_int=16000),
        helper.make_node("Equal", ["sr", "high"], ["c"]),
        helper.make_node(
            "If",
            ["c"],
            ["y"],
            then_branch=branch([helper.make_node("Tanh", ["x"], ["a"])], "a"),
            else_branch=branch([helper.make_node("AveragePool", ["x"], ["b"], kernel_shape=[2, 2])], "b"),
        ),
    ]
    return save(path, nodes, inputs={"x": (FLOAT, [1, 4, 8, 8]), "sr": (INT64, [])})


def test_an_input_that_chooses_the_network_is_given_as_a_constant(tmp_path: Path) -> None:
    path = sample_rate(tmp_path / "m.onnx")
    with pytest.raises(Unsupported, match=r"operator If .* gives depends on values.*constants = \{"):
        take_in(path, {})
    for rate, side, left in ((16000, 8, "Tanh"), (8000, 7, "AveragePool")):
        taken = take_in(path, {}, {"sr": rate})
        assert [spec.name for spec in taken.inputs] == ["x"]
        assert taken.outputs[0].shape == (1, 4, side, side)
        assert operators(taken) == {left}
        assert same(path, taken, {"sr": np.array(rate)})


@pytest.mark.parametrize(
    ("constants", "told"),
    [
        ({"rate": 1}, "constants.rate.*no such input"),
        ({"sr": [1, 2]}, r"the model has \[\]"),
        ({"sr": "fast"}, "no number"),
    ],
)
def test_a_constant_that_does_not_fit_is_named(constants: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=told):
        take_in(sample_rate(tmp_path / "m.onnx"), {}, constants)


@pytest.mark.skipif(find_spec("silero_vad") is None, reason="the package silero-vad is not installed")
@pytest.mark.parametrize(
    "name",
    ["silero_vad", "silero_vad_16k_op15", "silero_vad_half", "silero_vad_op18_ifless", "silero_vad_openvino_16k"],
)
def test_a_published_voice_detector_is_taken(name: str) -> None:
    spec = find_spec("silero_vad")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "data" / f"{name}.onnx"
    rate = {"sr": 16000} if name not in ("silero_vad_half", "silero_vad_openvino_16k") else {}
    taken = take_in(path, {"input": (1, 576), "state": (2, 1, 128)}, rate)
    assert {spec.name for spec in taken.inputs} == {"input", "state"}
    assert [spec.shape for spec in taken.outputs] == [(1, 1), (2, 1, 128)]
    assert same(path, taken, {"sr": np.array(16000)} if rate else {})


@pytest.mark.parametrize("opset", [9, 10, 11, 12])
def test_older_operator_sets_are_lifted(opset: int, tmp_path: Path) -> None:
    """Operators whose attributes became inputs, or that have a new name since."""
    modes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"} if opset > 10 else {}
    resized = ["x", "roi", "scales"] if opset > 10 else ["x", "scales"]
    nodes = [
        helper.make_node("Upsample" if opset == 9 else "Resize", resized, ["u"], mode="nearest", **modes),
        helper.make_node("Clip", ["u"], ["k"], min=-1.0, max=1.0)
        if opset < 11
        else helper.make_node("Clip", ["u", "low", "high"], ["k"]),
        helper.make_node("Slice", ["k"], ["p"], axes=[2], starts=[1], ends=[5])
        if opset == 9
        else helper.make_node("Slice", ["k", "starts", "ends", "axes"], ["p"]),
        helper.make_node("ReduceSum", ["p"], ["r"], axes=[3], keepdims=0),
        helper.make_node("Squeeze", ["r"], ["s"], axes=[0]),
        helper.make_node("Softmax", ["s"], ["y"], axis=1),
    ]
    weights = {"scales": np.float32([1, 1, 2, 2])}
    if opset > 9:
        weights |= {"starts": np.int64([1]), "ends": np.int64([5]), "axes": np.int64([2])}
    if opset > 10:
        weights |= {"roi": np.float32([]), "low": np.float32(-1), "high": np.float32(1)}
    path = save(tmp_path / "m.onnx", nodes, weights=weights, opset=opset)
    taken = take_in(path, {})
    assert any(f"operator set {opset} was converted to 13" in note for note in taken.notes)
    assert same(path, taken)


def hub_cache(folder: Path) -> Path:
    """A download as the Hugging Face hub keeps it: the snapshot holds links to files named by their hash."""
    blobs, snapshot = folder / "blobs", folder / "snapshots" / "abc" / "onnx"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    model = onnx.load(str(convolutional(folder / "plain.onnx")))
    onnx.save(model, str(folder / "m.onnx"), save_as_external_data=True, location="m.onnx_data", size_threshold=0)
    for name, hashed in (("m.onnx", "11aa"), ("m.onnx_data", "22bb")):
        (folder / name).rename(blobs / hashed)
        (snapshot / name).symlink_to(f"../../../blobs/{hashed}")
    return snapshot / "m.onnx"


def test_a_download_made_of_links_is_taken(tmp_path: Path) -> None:
    path = hub_cache(tmp_path)
    assert take_in(path, {}).data == take_in(tmp_path / "plain.onnx", {}).data
    (path.parent / "m.onnx_data").unlink()
    (tmp_path / "secret").write_bytes(bytes(1 << 16))
    (path.parent / "m.onnx_data").symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match="through a link, outside of the model's folder"):
        take_in(path, {})


def test_a_model_behind_a_link_finds_the_weights_beside_it(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "study").mkdir()
    model = onnx.load(str(convolutional(tmp_path / "plain.onnx")))
    onnx.save(model, str(tmp_path / "models" / "m.onnx"), save_as_external_data=True, location="w", size_threshold=0)
    (tmp_path / "study" / "m.onnx").symlink_to("../models/m.onnx")
    assert take_in(tmp_path / "study" / "m.onnx", {}).data == take_in(tmp_path / "plain.onnx", {}).data


def training_norm(path: Path) -> Path:
    stats = {name: np.ones(4, np.float32) for name in ("s", "b", "m", "v")}
    nodes = [helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y", "mm", "vv"], training_mode=1)]
    return save(path, nodes, weights=stats)


def training_dropout(path: Path) -> Path:
    weights = {"ratio": np.float32(0.5), "train": np.bool_(True)}
    return save(path, [helper.make_node("Dropout", ["x", "ratio", "train"], ["y"])], weights=weights)


def random_noise(path: Path) -> Path:
    nodes = [helper.make_node("RandomNormalLike", ["x"], ["n"]), helper.make_node("Add", ["x", "n"], ["y"])]
    return save(path, nodes)


def list_output(path: Path) -> Path:
    nodes = [helper.make_node("SequenceConstruct", ["x", "x"], ["y"])]
    save(path, nodes)
    model = onnx.load(str(path))
    model.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("y", FLOAT, None))
    path.write_bytes(model.SerializeToString())
    return path


def list_inside(path: Path) -> Path:
    """A list whose length the model decides by a value: no folding removes it."""
    nodes = [
        helper.make_node("SplitToSequence", ["x", "n"], ["parts"], axis=1),
        helper.make_node("ConcatFromSequence", ["parts"], ["y"], axis=0),
    ]
    return save(path, nodes, inputs={"x": (FLOAT, [1, 4, 8, 8]), "n": (INT64, [])})


def loop_by_value(path: Path) -> Path:
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["count"], to=INT64),
        loop([helper.make_node("Concat", ["v", "v"], ["w"], axis=0)]),
    ]
    return save(path, nodes)


def custom_in_a_branch(path: Path) -> Path:
    nodes = [loop([helper.make_node("Honey", ["v"], ["w"], domain="com.example", name="bee")])]
    return save(path, nodes, weights={"count": np.int64(2)}, domains=["com.example"])


def open_rank(path: Path) -> Path:
    return save(path, [helper.make_node("Relu", ["x"], ["y"])], inputs={"x": (FLOAT, None)})


def no_inputs(path: Path) -> Path:
    return save(path, [constant("y", value_floats=[1.0])], inputs={})


def too_new(path: Path) -> Path:
    model = onnx.load(str(elementwise(path)))
    model.ir_version = onnx.IR_VERSION + 1
    path.write_bytes(model.SerializeToString())
    return path


REFUSED: tuple[tuple[Callable[[Path], Path], str], ...] = (
    (training_norm, "BatchNormalization of node .* exported in training mode"),
    (training_dropout, "Dropout of node .* exported in training mode"),
    (random_noise, "RandomNormalLike of node .* draws random numbers"),
    (list_output, "tensor 'y' of m.onnx as an array: it is a sequence_type"),
    (list_inside, "operator SplitToSequence .* gives a list of arrays"),
    (loop_by_value, r"operator Loop \(the_loop\) gives depends on values"),
    (custom_in_a_branch, "com.example.Honey of node 'bee' .* custom operator"),
    (open_rank, "how many dimensions it has.* name it in .task.options.shapes., 'x' = "),
    (no_inputs, "inputs of m.onnx, each with a name of its own: it has none"),
    (too_new, r"IR version \d+: onnx .* reads up to"),
)


@pytest.mark.parametrize(("write", "told"), REFUSED, ids=[write.__name__ for write, _ in REFUSED])
def test_it_is_refused_by_name(write: Callable[[Path], Path], told: str, tmp_path: Path) -> None:
    with pytest.raises(EdgeDeployError, match=told):
        take_in(write(tmp_path / "m.onnx"), {})


def test_weights_of_gigabytes_are_bounded(tmp_path: Path) -> None:
    model = onnx.load(str(convolutional(tmp_path / "plain.onnx")))
    onnx.save(model, str(tmp_path / "m.onnx"), save_as_external_data=True, location="weights", size_threshold=0)
    with (tmp_path / "weights").open("r+b") as stream:
        stream.truncate(3 << 30)  # a hole: nothing is written
    with pytest.raises(DataError, match=r"model and weights are too large\. At most 1073741824 bytes are read"):
        take_in(tmp_path / "m.onnx", {})


def test_weights_among_the_inputs_are_constants(tmp_path: Path) -> None:
    model = onnx.load(str(convolutional(tmp_path / "m.onnx")))
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    onnx.save(model, str(tmp_path / "m.onnx"))
    taken = take_in(tmp_path / "m.onnx", {})
    assert [spec.name for spec in taken.inputs] == ["image"]
    assert any("11 weights were listed as inputs" in note for note in taken.notes)


def test_a_rank_that_is_open_can_be_given(tmp_path: Path) -> None:
    assert take_in(open_rank(tmp_path / "m.onnx"), {"x": (1, 3)}).outputs == (TensorSpec("y", "float32", (1, 3)),)


def test_an_ir_version_newer_than_boards_read_is_written_as_an_older_one(tmp_path: Path) -> None:
    model = onnx.load(str(elementwise(tmp_path / "m.onnx")))
    model.ir_version = onnx.IR_VERSION
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    taken = take_in(tmp_path / "m.onnx", {})
    assert onnx.ModelProto.FromString(taken.data).ir_version == 10
    assert any("IR version" in note for note in taken.notes)
