"""Which nodes carry an input to an output, and what stays float for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedeploy.records.precision import Int8Scheme
from edgedeploy.reference.roundings import roundings_of
from edgedeploy.reference.sensitivity import Simulation, sensitivity_of
from edgedeploy.reference.skips import input_skips

CONV = helper.make_node("Conv", ["image", "w"], ["c"], name="conv", pads=[1, 1, 1, 1])


def model(*nodes: Any, channels: int = 1, second: bool = False) -> Any:
    """Of an image (1, C, 8, 8), and of another one where there is a ``second``; the last node's output is ``out``."""
    names = ["image", "other"] if second else ["image"]
    shape = [1, channels, 8, 8]
    weights = np.full((channels, channels, 3, 3), 0.01, np.float32)
    held = [("w", weights), ("two", np.float32(2.0)), ("scales", np.array([1, 1, 2, 2], np.float32))]
    graph = helper.make_graph(
        [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes],
        "small",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in held],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def node(operator: str, inputs: list[str], output: str) -> Any:
    return helper.make_node(operator, inputs, [output], name=f"{operator.lower()} {output}")


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([CONV, node("Add", ["c", "image"], "out")], {"add out": (1,)}),
        ([CONV, node("Sub", ["image", "c"], "out")], {"sub out": (0,)}),
        (
            [CONV, node("Add", ["image", "c"], "s"), node("Relu", ["s"], "out")],
            {"add s": (0,), "relu out": ()},
        ),
        (
            [CONV, node("Mul", ["image", "two"], "m"), node("Add", ["m", "c"], "out")],
            {"add out": (0,), "mul m": (0,)},
        ),
    ],
    ids=["added", "subtracted", "something behind it", "scaled"],
)
def test_a_sum_with_the_input_is_found(nodes: list[Any], expected: dict[str, tuple[int, ...]]) -> None:
    assert input_skips(model(*nodes)) == expected


@pytest.mark.parametrize(
    "nodes",
    [
        [CONV, node("Relu", ["c"], "out")],
        [CONV, node("Add", ["c", "image"], "s"), helper.make_node("Conv", ["s", "w"], ["out"], name="after")],
        [CONV, helper.make_node("Conv", ["c", "w"], ["d"], name="deep"), node("Add", ["c", "d"], "out")],
        [CONV, node("Add", ["c", "two"], "out")],
        [CONV, node("Add", ["image", "two"], "p"), node("Concat", ["p", "c"], "out")],
    ],
    ids=["no sum", "weights behind it", "of two layers", "of a constant", "beside it"],
)
def test_other_networks_have_none(nodes: list[Any]) -> None:
    assert input_skips(model(*nodes)) == {}


def test_a_sum_of_two_inputs_has_nothing_to_keep() -> None:
    assert input_skips(model(CONV, node("Add", ["image", "other"], "out"), second=True)) == {}


def test_a_plan_s_simulation_lets_the_input_through(tmp_path: Any) -> None:
    """Rounding the image costs what the convolution makes of it, a hundredth, and the sum is no layer to decide."""
    onnx.save(model(CONV, node("Add", ["c", "image"], "out")), str(tmp_path / "m.onnx"))
    found = roundings_of(tmp_path / "m.onnx", Int8Scheme(operators=("Add",)))
    assert [layer.name for layer in found.layers] == ["conv"]
    feeds = [{"image": np.random.default_rng(0).uniform(0, 1, (1, 1, 8, 8)).astype(np.float32)}]
    losses = sensitivity_of(Simulation(found, iter(feeds), Int8Scheme(operators=("Add",))))
    (place,) = (index for index, place in enumerate(found.places) if place.tensor == "image")
    image = feeds[0]["image"]
    rounded = np.rint(image * 255 / image.max()) * image.max() / 255
    whole = float(np.square(rounded - image).sum() / np.square(image).sum())
    assert 0 < losses.losses[place] < 0.01 * whole


def test_what_forks_and_joins_again_is_walked_once() -> None:
    """50 sums of a value with itself are 2^50 ways from the input to the last of them."""
    doubled = [node("Add", [f"d{step}" if step else "image"] * 2, f"d{step + 1}") for step in range(50)]
    found = input_skips(model(CONV, *doubled, node("Add", ["d50", "c"], "out")))
    assert set(found) == {f"add d{step + 1}" for step in range(50)} | {"add out"}
