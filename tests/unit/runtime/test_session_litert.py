"""What the LiteRT session reads out of an interpreter, without one."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.sessions.litert.session import _find_runtime, _Port, precisions_of


def node(operator: str, inputs: list[int], output: int) -> dict[str, Any]:
    return {"op_name": operator, "inputs": np.array(inputs), "outputs": np.array([output])}


def test_layers_are_told_by_the_types_of_activation_and_weight() -> None:
    types = {0: "float32", 1: "float32", 2: "int8", 3: "int8", 4: "float16", 5: "float32", 6: "int32", 7: "int8"}
    nodes = [
        node("CONV_2D", [0, 1, 9], 20),
        node("FULLY_CONNECTED", [0, 2, -1], 21),
        node("DEPTHWISE_CONV_2D", [7, 3, 9], 22),
        node("DEQUANTIZE", [4], 5),
        node("CONV_2D", [0, 5, 9], 23),
        node("TRANSPOSE_CONV", [6, 3, 7], 24),
        node("ADD", [0, 1], 25),
        node("TfLiteXNNPackDelegate", [0], 25),
    ]
    assert precisions_of(nodes, types) == ["float32", "int8-dynamic", "int8", "float16-weights", "int8"]


def test_int8_weights_that_are_widened_first_are_a_float_layer() -> None:
    types = {0: "float32", 1: "int8", 2: "float32"}
    assert precisions_of([node("DEQUANTIZE", [1], 2), node("CONV_2D", [0, 2], 3)], types) == ["float32"]


def port(dtype: str, scale: float | None = None, zero: int = 0, layout: str = "") -> _Port:
    scales, zeros = ([scale], [zero]) if scale is not None else ([], [])
    parameters = {"scales": np.array(scales, np.float32), "zero_points": np.array(zeros)}
    return _Port({"index": 3, "dtype": np.dtype(dtype).type, "quantization_parameters": parameters}, layout)


def test_real_numbers_become_steps_and_come_back() -> None:
    edge = port("int8", scale=0.5, zero=-3)
    given = np.array([-1.0, 0.0, 0.26, 63.0, 1000.0], np.float32)
    steps = edge.encode("image", given)
    assert steps.dtype == np.int8
    assert steps.tolist() == [-5, -3, -2, 123, 127]
    np.testing.assert_array_equal(edge.decode(steps), np.array([-1.0, 0.0, 0.5, 63.0, 65.0], np.float32))


def test_channels_last_comes_out_in_the_order_of_the_reference() -> None:
    inside = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    outside = port("float32", layout="0,3,1,2").decode(inside)
    assert outside.shape == (1, 4, 2, 3)
    assert outside.flags.c_contiguous
    assert outside[0, 3, 1, 2] == inside[0, 1, 2, 3]


def test_integers_are_narrowed_only_where_nothing_is_lost() -> None:
    edge = port("int32")
    assert edge.encode("tokens", np.array([1, 2], np.int64)).dtype == np.int32
    assert edge.decode(np.array([7], np.int32)).dtype == np.int32
    with pytest.raises(RuntimeFault, match="'tokens' is int64"):
        edge.encode("tokens", np.array([1 << 40], np.int64))
    with pytest.raises(RuntimeFault, match="'image' is float64"):
        port("float32").encode("image", np.zeros(3))


def test_a_board_without_a_runtime_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ai_edge_litert.interpreter", "tflite_runtime.interpreter"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="pip install ai-edge-litert"):
        _find_runtime()
