"""Values that depend on no input, in graphs of any depth."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edgedeploy.reference.constants import Constants


def model_of(nodes: list[Any], **weights: Any) -> Any:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    held = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_thousands_of_layers_in_a_row_are_followed() -> None:
    count = 3000
    names = ["x", *(f"t{index}" for index in range(1, count)), "y"]
    varying = [helper.make_node("Relu", [before], [after]) for before, after in itertools.pairwise(names)]
    still = [
        helper.make_node("Neg", [f"c{index}" if index else "w"], [f"c{index + 1}"], name=f"n{index}")
        for index in range(40)
    ]
    constants = Constants(model_of([*still, *varying], w=np.arange(4)))
    assert constants.get("y") is None and constants.numbers("y") == 0
    found = constants.get("c40")
    assert found is not None and found.tolist() == [0, 1, 2, 3]
    assert constants.numbers("c40") == 4 and constants.numbers("w") == 4


def test_what_a_branch_reads_from_outside_is_no_constant() -> None:
    inner = helper.make_tensor_value_info("inner", TensorProto.FLOAT, [4])
    ways = [
        helper.make_graph([helper.make_node(kind, ["x"], ["inner"])], kind, [], [inner]) for kind in ("Relu", "Neg")
    ]
    nodes = [
        helper.make_node("Cast", ["w"], ["way"], to=TensorProto.BOOL),
        helper.make_node("If", ["way"], ["y"], then_branch=ways[0], else_branch=ways[1]),
    ]
    constants = Constants(model_of(nodes, w=1.0))
    assert constants.get("way") is not None and constants.get("y") is None
