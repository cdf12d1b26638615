"""Finds out whether an ONNX file says itself what computes in what: quantized already, or float64."""

from __future__ import annotations

from typing import Any, Final

from edgedeploy.reference.foreign import nodes_of

QUANTIZED: Final = (
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"),
    *("MatMulNBits", "MatMulBnb4", "GatherBlockQuantized", "QAttention", "QGemm", "QEmbedLayerNormalization", "QMoE"),
)
"""Operators of the ONNX standard and of ONNX Runtime that work on quantized values, with those that begin as below."""

_BEGINNINGS: Final = ("QLinear", "DynamicQuantize", "MatMulInteger")

PRODUCTS: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN")


def quantized_by(model: Any) -> str:
    """A sentence that names the first operator on quantized values; empty for a float model."""
    for node in nodes_of(model.graph):
        if node.op_type in QUANTIZED or node.op_type.startswith(_BEGINNINGS):
            return f"it is quantized already (operator {node.op_type} of node {node.name!r})"
    return ""


def computes_doubles(model: Any) -> str:
    """A sentence that names where a model of known types computes in float64; empty where it does not."""
    graph = model.graph
    double = {value.name for value in (*graph.input, *graph.value_info, *graph.output) if _is_double(value)}
    for node in graph.node:
        if node.op_type in PRODUCTS and set(node.output) & double:
            return f"it computes in float64 (operator {node.op_type} of node {node.name!r})"
    for value in (*graph.input, *graph.output):
        if value.name in double:
            return f"it computes in float64 (tensor {value.name!r})"
    return ""


def _is_double(value: Any) -> bool:
    import onnx

    return bool(value.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE)
