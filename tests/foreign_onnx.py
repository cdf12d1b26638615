"""ONNX files as strangers write them, some of them to do harm, made with the onnx package alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IMAGE = [1, 4, 8, 8]


def save(
    path: Path,
    nodes: Sequence[Any],
    *,
    inputs: dict[str, tuple[int, list[int | str] | None]] | None = None,
    outputs: dict[str, tuple[int, list[int | str] | None]] | None = None,
    weights: dict[str, Any] | None = None,
    opset: int = 17,
    functions: Sequence[Any] = (),
    domains: Sequence[str] = (),
) -> Path:
    """A file of float ``x`` (1, 4, 8, 8) -> ``y`` of unknown shape, where nothing else is said."""
    taken = {"x": (TensorProto.FLOAT, IMAGE)} if inputs is None else inputs
    given = {"y": (TensorProto.FLOAT, None)} if outputs is None else outputs
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in taken.items()],
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in given.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions)
    path.write_bytes(model.SerializeToString())
    return path


def constant(name: str, **value: Any) -> Any:
    return helper.make_node("Constant", [], [name], **value)


def branch(nodes: Sequence[Any], output: str, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_graph(nodes, output, [], [helper.make_tensor_value_info(output, kind, None)])


def bomb_of_100_bytes(path: Path) -> Path:
    """About a hundred bytes that ask for 64 GiB."""
    nodes = [
        constant("s", value_ints=[1 << 34]),
        helper.make_node("ConstantOfShape", ["s"], ["y"]),
    ]
    return save(path, nodes)


def _bomb() -> list[Any]:
    return [
        constant("s", value_ints=[1 << 19, 1 << 19]),
        helper.make_node("ConstantOfShape", ["s"], ["h"]),
        helper.make_node("ReduceMax", ["h"], ["m"], keepdims=0),
    ]


def bomb_in_a_branch(path: Path) -> Path:
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Less", ["sum", "low"], ["c"]),
        helper.make_node(
            "If",
            ["c"],
            ["y"],
            then_branch=branch(_bomb(), "m"),
            else_branch=branch([constant("k", value_float=0.0)], "k"),
        ),
    ]
    return save(path, nodes, weights={"low": np.float32(-1e9)})


def loop(body: Sequence[Any], count: str = "count", output: str = "y") -> Any:
    graph = helper.make_graph(
        [*body, helper.make_node("Identity", ["go"], ["go_on"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, None),
        ],
    )
    return helper.make_node("Loop", [count, "", "x"], [output], body=graph, name="the_loop")


def bomb_in_a_loop(path: Path) -> Path:
    return save(path, [loop([*_bomb(), helper.make_node("Add", ["v", "m"], ["w"])])], weights={"count": np.int64(2)})


def growing_loop(path: Path) -> Path:
    """Each round doubles the array: no shape is declared anywhere, and round 40 asks for terabytes."""
    return save(path, [loop([helper.make_node("Concat", ["v", "v"], ["w"], axis=0)])], weights={"count": np.int64(40)})


def endless_loop(path: Path) -> Path:
    nodes = [loop([helper.make_node("Sin", ["v"], ["w"])])]
    return save(path, nodes, weights={"count": np.int64(1 << 60)})


def bomb_in_a_function(path: Path) -> Path:
    function = helper.make_function(
        "own",
        "Boom",
        ["v"],
        ["w"],
        [*_bomb(), helper.make_node("Add", ["v", "m"], ["w"])],
        [helper.make_opsetid("", 17)],
    )
    return save(path, [helper.make_node("Boom", ["x"], ["y"], domain="own")], functions=[function], domains=["own"])


def function_that_calls_itself(path: Path) -> Path:
    function = helper.make_function(
        "own",
        "Again",
        ["v"],
        ["w"],
        [helper.make_node("Again", ["v"], ["w"], domain="own")],
        [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)],
    )
    return save(path, [helper.make_node("Again", ["x"], ["y"], domain="own")], functions=[function], domains=["own"])


def huge_text(path: Path) -> Path:
    """A tensor of strings that declares far more of them than it holds."""
    save(path, [helper.make_node("Relu", ["x"], ["y"])])
    model = onnx.load(str(path))
    model.graph.initializer.append(
        TensorProto(name="t", data_type=TensorProto.STRING, dims=[1 << 40], string_data=[b"a"])
    )
    path.write_bytes(model.SerializeToString())
    return path


def huge_input(path: Path) -> Path:
    return save(path, [helper.make_node("Relu", ["x"], ["y"])], inputs={"x": (TensorProto.FLOAT, [1 << 62, 1 << 62])})


def _elsewhere(path: Path, location: str, wrap: str = "graph") -> Path:
    tensor = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    held = [helper.make_node("Constant", [], ["c"], value=tensor), helper.make_node("Add", ["v", "c"], ["w"])]
    if wrap == "function":
        function = helper.make_function("own", "F", ["v"], ["w"], held, [helper.make_opsetid("", 17)])
        return save(path, [helper.make_node("F", ["x"], ["y"], domain="own")], functions=[function], domains=["own"])
    return save(path, [loop(held)], weights={"count": np.int64(2)})


def weights_upwards_in_a_loop(path: Path) -> Path:
    (path.parent.parent / "secret").write_bytes(b"ssss")
    return _elsewhere(path, "../secret")


def weights_upwards_in_a_function(path: Path) -> Path:
    (path.parent.parent / "secret").write_bytes(b"ssss")
    return _elsewhere(path, "../secret", "function")


def weights_in_a_circle(path: Path) -> Path:
    (path.parent / "weights").symlink_to("weights")
    return _elsewhere(path, "weights")


def weights_of_a_device(path: Path) -> Path:
    (path.parent / "weights").symlink_to("/dev/zero")
    return _elsewhere(path, "weights")


HOSTILE = (
    *(bomb_of_100_bytes, bomb_in_a_branch, bomb_in_a_loop, bomb_in_a_function, growing_loop),
    *(function_that_calls_itself, huge_text, huge_input),
    *(weights_upwards_in_a_loop, weights_upwards_in_a_function, weights_in_a_circle, weights_of_a_device),
)
