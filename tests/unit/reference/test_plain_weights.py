"""The float values that quantized constants stand for."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgedeploy.reference.layers import weights_of
from edgedeploy.reference.quantized import plain_weights

STEPS = np.array([[1, -2], [3, 127]], np.int8)
SCALES = np.array([0.5, 0.25], np.float32)


def model_of(nodes: list[onnx.NodeProto], **constants: np.ndarray) -> onnx.ModelProto:
    edges = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2]) for name in ("x", "y")]
    held = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    return helper.make_model(helper.make_graph(nodes, "g", edges[:1], edges[1:], held))


def test_constants_of_either_kind_become_their_values_and_activations_keep_their_pairs() -> None:
    """Steps that are stored, as of most layers, and floats with a pair, as of transposed convolutions."""
    zero, one = np.zeros(2, np.int8), np.int8(0)
    model = model_of(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["dq"]),
            helper.make_node("DequantizeLinear", ["steps", "scales", "zeros"], ["first"], axis=1),
            helper.make_node("MatMul", ["dq", "first"], ["middle"], name="one"),
            helper.make_node("QuantizeLinear", ["floats", "scales", "zeros"], ["qw"], axis=0),
            helper.make_node("DequantizeLinear", ["qw", "scales", "zeros"], ["second"], axis=0),
            helper.make_node("MatMul", ["middle", "second"], ["y"], name="two"),
        ],
        steps=STEPS,
        floats=np.array([[0.6, -1.0], [0.4, 99.0]], np.float32),
        scales=SCALES,
        zeros=zero,
        s=np.float32(0.1),
        z=np.asarray(one),
    )
    plain_weights(model)
    found = weights_of(model)
    np.testing.assert_array_equal(found["one"], np.sort(np.array([0.5, -0.5, 1.5, 31.75], np.float32)))
    np.testing.assert_array_equal(found["two"], np.sort(np.array([0.5, -1.0, 0.5, 31.75], np.float32)))
    assert [node.op_type for node in model.graph.node] == ["QuantizeLinear", "DequantizeLinear", "MatMul", "MatMul"]


def test_a_float_model_stays_as_it_is() -> None:
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], w=np.eye(2, dtype=np.float32))
    before = model.SerializeToString()
    plain_weights(model)
    assert model.SerializeToString() == before
