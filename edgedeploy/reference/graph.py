"""Facts about an ONNX graph: its inputs and outputs, its size, and what does not belong in a shipped file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from edgedeploy.errors import BuildError
from edgedeploy.records.artifact import TensorSpec

_COUNTED: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators whose multiply-accumulates are counted: nearly all of the arithmetic in the networks we measured."""

RANDOM_OPERATORS: Final = (
    *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
)


def strip_metadata(model: Any) -> None:
    """Remove the exporter's debugging metadata, in place.

    It holds stack traces with absolute paths. They would make equal models differ between machines, and would disclose
    the engineer's folders to whoever gets the file.
    """
    del model.metadata_props[:]
    model.doc_string = ""
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


def rename_outputs(model: Any, names: Sequence[str]) -> None:
    """Give the outputs ``names``, in place, and weights the names they have in the user's own module. A value inside the
    graph that has such a name already gets another."""
    graph = model.graph
    wanted = dict(zip((value.name for value in graph.output), names, strict=True))
    inside = {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer}
    renamed = {name: f"{name}_inside" for name in inside.intersection(names) - set(wanted)} | wanted
    for tensor in graph.initializer:
        plain = tensor.name.removeprefix("model.")
        if plain != tensor.name and plain not in inside | set(names):
            renamed.setdefault(tensor.name, plain)
    _rename(graph, renamed)


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:  # the branches of an If read values from outside
            for inner in (attribute.g, *attribute.graphs):
                _rename(inner, names)
    for value in (*graph.output, *graph.initializer, *graph.value_info):
        value.name = names.get(value.name, value.name)


def tensor_spec(value: Any) -> TensorSpec:
    """Name, type and static shape of a graph input or output. Raises ``BuildError`` for an open dimension."""
    import onnx

    tensor = value.type.tensor_type
    shape = []
    for dimension in tensor.shape.dim:
        if not dimension.HasField("dim_value"):
            raise BuildError(
                f"static shape of {value.name!r}",
                f"dimension {dimension.dim_param or 'unnamed'!r} is open",
                "Export with fixed shapes: one artifact serves one shape",
            )
        shape.append(int(dimension.dim_value))
    return TensorSpec(value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, tuple(shape))


def graph_inputs(model: Any) -> tuple[TensorSpec, ...]:
    """The inputs that a caller feeds. Older files also list initializers as inputs; those are left out."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return tuple(tensor_spec(value) for value in model.graph.input if value.name not in constants)


def graph_outputs(model: Any) -> tuple[TensorSpec, ...]:
    return tuple(tensor_spec(value) for value in model.graph.output)


def foreign_node(model: Any) -> Any | None:
    """The first node outside the standard operator set; None when there is none."""
    return next((node for node in model.graph.node if node.domain not in ("", "ai.onnx")), None)


def opset_of(model: Any) -> int:
    """Version of the default operator set."""
    return max(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def count_parameters(model: Any) -> int:
    """Elements of all floating-point initializers, and of int8 weights (which have two dimensions or more)."""
    import onnx

    floating = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)
    return sum(
        math.prod(tensor.dims)
        for tensor in model.graph.initializer
        if tensor.data_type in floating or (tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1)
    )


def count_macs(model: Any) -> int:
    """Multiply-accumulates of one inference in convolutions and matrix products, from inferred shapes.

    Says how big a model is. It is no predictor of latency: memory traffic and kernels decide that.
    """
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes: dict[str, tuple[int, ...]] = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        shapes[value.name] = tuple(int(d.dim_value) for d in value.type.tensor_type.shape.dim)
    return sum(_node_macs(node, shapes) for node in inferred.node if node.op_type in _COUNTED)


def _node_macs(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> int:
    first, second, result = shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]]
    if (
        node.op_type == "Conv"
    ):  # weight (out, in / groups, *kernel): one product per weight of a channel and output element
        return math.prod(result) * math.prod(second[1:])
    if (
        node.op_type == "ConvTranspose"
    ):  # weight (in, out / groups, *kernel): each input element meets its channel's weights
        return math.prod(first) * math.prod(second[1:])
    if node.op_type == "Gemm":
        transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        return math.prod(result) * first[0 if transposed else -1]
    return math.prod(result) * first[-1]
