"""Small networks as strangers bring them: recurrent, without products, with control flow, scalars, lists, functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from foreign_onnx import branch, constant, loop, save
from onnx import TensorProto, helper

FLOAT = TensorProto.FLOAT
INT64 = TensorProto.INT64


def lstm(path: Path) -> Path:
    rng = np.random.default_rng(0)
    weights = {
        name: rng.standard_normal(shape).astype(np.float32) for name, shape in (("w", (1, 32, 4)), ("r", (1, 32, 8)))
    }
    nodes = [helper.make_node("LSTM", ["x", "w", "r"], ["y", "h", "c"], hidden_size=8)]
    given = dict.fromkeys(("y", "h", "c"), (FLOAT, None))
    return save(path, nodes, inputs={"x": (FLOAT, [5, 1, 4])}, outputs=given, weights=weights)


def gru(path: Path) -> Path:
    rng = np.random.default_rng(0)
    weights = {"w": rng.random((1, 24, 4), np.float32), "r": rng.random((1, 24, 8), np.float32)}
    return save(
        path,
        [helper.make_node("GRU", ["x", "w", "r"], ["y"], hidden_size=8)],
        inputs={"x": (FLOAT, [5, 1, 4])},
        weights=weights,
    )


def einsum(path: Path) -> Path:
    nodes = [helper.make_node("Einsum", ["x", "w"], ["y"], equation="bchw,cd->bdhw")]
    return save(path, nodes, weights={"w": np.eye(4, 3, dtype=np.float32)})


def elementwise(path: Path) -> Path:
    return save(path, [helper.make_node("Tanh", ["x"], ["t"]), helper.make_node("Mul", ["t", "x"], ["y"])])


def scalars(path: Path) -> Path:
    """An input and an output of rank 0."""
    nodes = [helper.make_node("Mul", ["x", "gain"], ["m"]), helper.make_node("ReduceMean", ["m"], ["y"], keepdims=0)]
    return save(path, nodes, inputs={"x": (FLOAT, [1, 4]), "gain": (FLOAT, [])}, outputs={"y": (FLOAT, [])})


def counted_loop(path: Path) -> Path:
    return save(path, [loop([helper.make_node("Sin", ["v"], ["w"])])], weights={"count": np.int64(3)})


def decided_if(path: Path) -> Path:
    """The look-alike of exporters' ``squeeze``: a branch that depends on a shape alone, and the ranks differ."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        constant("first", value_int=0),
        helper.make_node("Gather", ["shape", "first"], ["n"]),
        constant("one", value_int=1),
        helper.make_node("Equal", ["n", "one"], ["c"]),
        constant("axes", value_ints=[0]),
        helper.make_node(
            "If",
            ["c"],
            ["s"],
            then_branch=branch([helper.make_node("Squeeze", ["x", "axes"], ["a"])], "a"),
            else_branch=branch([helper.make_node("Identity", ["x"], ["b"])], "b"),
        ),
        helper.make_node("Relu", ["s"], ["y"]),
    ]
    return save(path, nodes)


def list_of_parts(path: Path) -> Path:
    """torch's ``split`` and ``stack`` as older exporters write them."""
    nodes = [
        constant("two", value_int=2),
        helper.make_node("SplitToSequence", ["x", "two"], ["parts"], axis=1),
        constant("first", value_int=0),
        helper.make_node("SequenceAt", ["parts", "first"], ["p"]),
        helper.make_node("Relu", ["p"], ["y"]),
    ]
    return save(path, nodes)


def function(path: Path) -> Path:
    nodes = [helper.make_node("Sigmoid", ["v"], ["s"]), helper.make_node("Mul", ["v", "s"], ["w"])]
    inner = helper.make_function("torch", "Gate", ["v"], ["w"], nodes, [helper.make_opsetid("", 17)])
    return save(path, [helper.make_node("Gate", ["x"], ["y"], domain="torch")], functions=[inner], domains=["torch"])


def unused_input(path: Path) -> Path:
    return save(path, [helper.make_node("Relu", ["x"], ["y"])], inputs={"x": (FLOAT, [1, 4]), "extra": (FLOAT, [2])})


def identity(path: Path) -> Path:
    return save(path, [helper.make_node("Identity", ["x"], ["y"])])


def constant_output(path: Path) -> Path:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), constant("anchors", value_floats=[1.0, 2.0])]
    return save(path, nodes, outputs={"y": (FLOAT, None), "anchors": (FLOAT, [2])})


def half(path: Path) -> Path:
    kind = TensorProto.FLOAT16
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])]
    weights = {"w": np.random.default_rng(0).standard_normal((2, 4, 3, 3)).astype(np.float16)}
    return save(path, nodes, inputs={"x": (kind, [1, 4, 8, 8])}, outputs={"y": (kind, None)}, weights=weights)


def nameless_twice(path: Path) -> Path:
    """Two nodes of one name, two without."""
    nodes = [helper.make_node("Relu", ["x"], ["a"], name="n"), helper.make_node("Neg", ["a"], ["b"], name="n")]
    nodes += [helper.make_node("Abs", ["b"], ["c"]), helper.make_node("Neg", ["c"], ["y"])]
    return save(path, nodes)


def convolutional_lstm(path: Path) -> Path:
    """A convolution over time and a recurrent layer after it: x (1, 8, 16) -> y (16, 1, 1, 8)."""
    rng = np.random.default_rng(0)
    shapes = {"k": (8, 8, 3), "w": (1, 32, 8), "r": (1, 32, 8)}
    weights = {name: rng.standard_normal(shape).astype(np.float32) / 3 for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], pads=[1, 1]),
        helper.make_node("Relu", ["c"], ["a"]),
        helper.make_node("Transpose", ["a"], ["t"], perm=[2, 0, 1]),
        helper.make_node("LSTM", ["t", "w", "r"], ["y"], hidden_size=8),
    ]
    return save(path, nodes, inputs={"x": (FLOAT, [1, 8, 16])}, weights=weights)


def recurrent_cell(path: Path, name: str = "state") -> Path:
    """One step of a recurrent network with its state as input and output, and a gain without a dimension:
    x (1, 8), state (1, 8), gain () -> y (1, 4), stateN (1, 8)."""
    rng = np.random.default_rng(0)
    shapes = {"v": (8, 8), "u": (8, 8), "h": (8, 4)}
    weights = {key: (rng.standard_normal(shape) / 3).astype(np.float32) for key, shape in shapes.items()}
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["a"], name="/in"),
        helper.make_node("MatMul", [name, "u"], ["b"], name="/back"),
        helper.make_node("Add", ["a", "b"], ["c"], name="/sum"),
        helper.make_node("Tanh", ["c"], ["stateN"], name="/tanh"),
        helper.make_node("Mul", ["stateN", "gain"], ["g"], name="/gain"),
        helper.make_node("MatMul", ["g", "h"], ["y"], name="/head"),
    ]
    inputs = {"x": (FLOAT, [1, 8]), name: (FLOAT, [1, 8]), "gain": (FLOAT, [])}
    return save(path, nodes, inputs=inputs, outputs={"y": (FLOAT, [1, 4]), "stateN": (FLOAT, [1, 8])}, weights=weights)


NETWORKS: tuple[Callable[[Path], Path], ...] = (
    *(lstm, gru, einsum, elementwise, scalars, counted_loop, decided_if, list_of_parts, function, unused_input),
    *(identity, constant_output, half, nameless_twice),
)
