"""Small ONNX files made with the onnx package alone, as other people's exporters write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.precision import PrecisionPlan
from edgedeploy.reference.export import Reference, describe


def convolutional(path: Path, *, named: bool = True, side: int | str = 16, opset: int = 17) -> Path:
    """Conv, batch norm, Relu, twice, then a head of 1 x 1: image (1, 3, side, side) -> out (1, 2, side, side)."""
    rng = np.random.default_rng(0)
    nodes: list[Any] = []
    weights: list[Any] = []

    def constant(name: str, *shape: int, low: float = -0.5, high: float = 0.5) -> str:
        weights.append(numpy_helper.from_array(rng.uniform(low, high, shape).astype(np.float32), name))
        return name

    def add(operator: str, name: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], name=name if named else "", **attributes))
        return output

    tensor, channels = "image", 3
    for index in (1, 2):
        convolved = add(
            "Conv",
            f"/block{index}/conv",
            [tensor, constant(f"w{index}", 8, channels, 3, 3)],
            f"c{index}",
            pads=[1, 1, 1, 1],
        )
        statistics = [constant(f"{kind}{index}", 8, low=0.5, high=1.5) for kind in ("scale", "bias", "mean", "var")]
        normed = add("BatchNormalization", f"/block{index}/norm", [convolved, *statistics], f"n{index}")
        tensor, channels = add("Relu", f"/block{index}/relu", [normed], f"r{index}"), 8
    add("Conv", "/head/conv", [tensor, constant("wh", 2, 8, 1, 1)], "out")
    return _save(path, nodes, weights, [1, 3, side, side], [1, 2, side, side], opset)


def u_shaped(path: Path) -> Path:
    """down -> pool -> deep -> resize -> up, which reads down's output too: image (1, 1, 16, 16) -> out (1, 4, 16, 16)."""
    rng = np.random.default_rng(0)

    def weights(name: str, out: int, into: int) -> tuple[str, Any]:
        return name, rng.standard_normal((out, into, 3, 3)) / 3

    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["d"], name="down", **pads),
        helper.make_node("MaxPool", ["d"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p", "w2"], ["e"], name="deep", **pads),
        helper.make_node("Resize", ["e", "", "scales"], ["r"], name="resize"),
        helper.make_node("Concat", ["r", "d"], ["c"], name="join", axis=1),
        helper.make_node("Conv", ["c", "w3"], ["out"], name="up", **pads),
    ]
    held = [weights("w1", 4, 1), weights("w2", 4, 4), weights("w3", 4, 8), ("scales", np.array([1, 1, 2, 2]))]
    tensors = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in held]
    found = _save(path, nodes, tensors, [1, 1, 16, 16], [1, 4, 16, 16], 17)
    onnx.save(onnx.shape_inference.infer_shapes(onnx.load(str(found))), str(found))
    return found


def norm_after_relu(path: Path) -> Path:
    """Conv, Relu, batch norm, Conv: nothing that a tool could fold it into comes right before the norm."""
    rng = np.random.default_rng(0)
    statistics = [(f"{name}", rng.uniform(0.5, 1.5, 8)) for name in ("scale", "bias", "mean", "var")]
    weights = [("w1", rng.standard_normal((8, 3, 3, 3)) / 3), ("w2", rng.standard_normal((2, 8, 1, 1))), *statistics]
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c"], name="/conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="/relu"),
        helper.make_node("BatchNormalization", ["r", "scale", "bias", "mean", "var"], ["n"], name="/norm"),
        helper.make_node("Conv", ["n", "w2"], ["out"], name="/head"),
    ]
    held = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights]
    return _save(path, nodes, held, [1, 3, 16, 16], [1, 2, 16, 16], 17)


def two_stages(path: Path, gain: float) -> Path:
    """As a W-Net: logits of a first network, about ``gain`` times as large as the image, beside it before the second."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array((factor * rng.standard_normal(shape)).astype(np.float32), name)
        for name, shape, factor in (
            ("w1", (8, 3, 3, 3), 0.2),
            ("w2", (2, 8, 1, 1), gain * 0.3),
            ("w3", (2, 5, 1, 1), 1.0),
        )
    ]
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c"], name="/first/conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="/first/relu"),
        helper.make_node("Conv", ["r", "w2"], ["logits"], name="/first/head"),
        helper.make_node("Concat", ["image", "logits"], ["both"], name="/both", axis=1),
        helper.make_node("Conv", ["both", "w3"], ["out"], name="/second/conv"),
    ]
    return _save(path, nodes, weights, [1, 3, 16, 16], [1, 2, 16, 16], 17)


def transformer_block(path: Path) -> Path:
    """Two matrix products with a Tanh between them and a sum around: image (1, 16, 64) -> out (1, 16, 64)."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array((rng.standard_normal(shape) / 8).astype(np.float32), name)
        for name, shape in (("wa", (64, 128)), ("wb", (128, 64)))
    ]
    nodes = [
        helper.make_node("MatMul", ["image", "wa"], ["a"], name="/mlp/fc1"),
        helper.make_node("Tanh", ["a"], ["t"], name="/mlp/act"),
        helper.make_node("MatMul", ["t", "wb"], ["b"], name="/mlp/fc2"),
        helper.make_node("Add", ["b", "image"], ["out"], name="/mlp/add"),
    ]
    return _save(path, nodes, weights, [1, 16, 64], [1, 16, 64], 17)


def _save(
    path: Path, nodes: list[Any], weights: list[Any], taken: list[int | str], given: list[int | str], opset: int
) -> Path:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, taken)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, given)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, str(path))
    return path


def feeds(spec: TensorSpec, count: int = 8, seed: int = 1) -> Iterator[dict[str, Array]]:
    generator = np.random.default_rng(seed)
    for _ in range(count):
        yield {spec.name: generator.standard_normal(spec.shape).astype(spec.dtype)}


def request(
    path: Path,
    precision: str,
    plan: dict[str, str] | None = None,
    calibrator: str = "",
    source: Callable[[], Iterator[dict[str, Array]]] | None = None,
) -> BuildRequest:
    """What a target is asked to build from the file, calibrated on eight random cases unless ``source`` says otherwise."""
    reference: Reference = describe(path)
    return BuildRequest(
        reference.path,
        reference.inputs,
        reference.outputs,
        precision,
        source or (lambda: feeds(reference.inputs[0])),
        plan=PrecisionPlan.of(plan or {}),
        calibrator=calibrator,
    )
