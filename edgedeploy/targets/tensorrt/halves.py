"""Converts layers of an ONNX file to float16 or bfloat16, in the file's types.

ONNX Runtime's own converter supports float16 only. Around each layer that stays float32 it also casts inputs and
outputs to 16 bits, which rounds values that should stay exact and separates a layer from its Q and DQ. Here a tensor
between two float32 layers stays float32, and casts are added only where the precision changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from edgedeploy.reference.layers import WEIGHTED_OPERATORS
from edgedeploy.targets.tensorrt.graphview import QDQ, reads

HALVES: Final = ("float16", "bfloat16")

ALWAYS_WIDE: Final = (
    *QDQ, "Cast", "CastLike", "Constant", "ConstantOfShape", "CumSum", "EyeLike", "If", "Loop", "NonMaxSuppression",
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Range", "Resize", "RoiAlign", "Scan", "TopK",
    "Upsample",
)  # fmt: skip
"""Operators that stay float32: some of their inputs must be float32, or an attribute fixes their type."""


def narrow_floats(model: Any, precision: str, layers: Collection[str]) -> Any:
    """A copy of ``model`` with the nodes in ``layers`` in ``precision``, except those without floats and those in
    :data:`ALWAYS_WIDE`. Inputs and outputs of the model stay float32."""
    import onnx

    model = onnx.shape_inference.infer_shapes(model)
    rewrite = _Rewrite(model.graph, precision)
    nodes = list(_sorted(model.graph.node))
    narrow = {id(node) for node in nodes if node.name in layers and rewrite.narrows(node)}
    read_wide = {name for node in nodes if id(node) not in narrow for name in reads(node)}
    read_wide |= {value.name for value in model.graph.output}
    written = [made for node in nodes for made in rewrite.node(node, id(node) in narrow, read_wide)]
    copies = [type(node).FromString(node.SerializeToString()) for node in written]
    del model.graph.node[:]
    del model.graph.value_info[:]  # they keep the types from before
    model.graph.node.extend(copies)
    model.graph.initializer.extend(rewrite.constants.values())
    used = {name for node in copies for name in reads(node)} | {value.name for value in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    kept = [type(tensor).FromString(tensor.SerializeToString()) for tensor in kept]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def widened(model: Any) -> Any:
    """A float32 copy of a bfloat16 model that keeps its rounded constants, for runtimes without bfloat16."""
    import onnx

    narrow, wide = onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in copy.graph.initializer:
        if tensor.data_type == narrow:
            value = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    for node in copy.graph.node:
        for item in node.attribute:
            if node.op_type == "Cast" and item.name == "to" and item.i == narrow:
                item.i = wide
    return copy


def half_nodes(model: Any) -> dict[str, str]:
    """Layers whose weights are 16-bit floats in the file, by name."""
    import onnx

    kinds = {onnx.TensorProto.FLOAT16: "float16", onnx.TensorProto.BFLOAT16: "bfloat16"}
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    weighted = [node for node in model.graph.node if node.op_type in WEIGHTED_OPERATORS]
    return {node.name: kinds[types[node.input[1]]] for node in weighted if types.get(node.input[1]) in kinds}


def nodes_in_halves(model: Any) -> tuple[str, ...]:
    """Nodes with a 16-bit float output, with or without weights, by name."""
    import onnx

    kinds = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.value_info, *graph.output)
    half = {value.name for value in values if value.type.tensor_type.elem_type in kinds}
    return tuple(node.name for node in graph.node if node.op_type != "Cast" and half & set(node.output))


@dataclass
class _Rewrite:
    """The state of a conversion: 16-bit copies of ``constants`` and ``computed`` tensors by the float32 tensor's
    name."""

    graph: Any
    precision: str
    constants: dict[str, Any] = field(default_factory=dict)
    computed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        import onnx

        float32 = onnx.TensorProto.FLOAT
        values = (*self.graph.input, *self.graph.value_info, *self.graph.output)
        self._known: Mapping[str, Any] = dict(_constants(self.graph))
        self._floats = {value.name for value in values if value.type.tensor_type.elem_type == float32}
        self._floats |= {name for name, tensor in self._known.items() if tensor.data_type == float32}
        half = onnx.TensorProto.FLOAT16 if self.precision == "float16" else onnx.TensorProto.BFLOAT16
        self._types = {"wide": float32, "half": half}

    def narrows(self, node: Any) -> bool:
        floats = any(name in self._floats for name in node.input) and any(name in self._floats for name in node.output)
        return floats and node.op_type not in ALWAYS_WIDE

    def node(self, node: Any, narrow: bool, read_wide: Set[str]) -> Iterator[Any]:
        """The node with the casts that it needs before and after it."""
        if not narrow:
            yield node
            return
        for index, name in enumerate(node.input):
            if name in self._floats:
                yield from self._made_half(name)
                node.input[index] = self._half(name)
        for index, name in enumerate(node.output):
            if name in self._floats:
                node.output[index] = self._half(name)
                self.computed.add(name)
        yield node
        for name in sorted(name for name in self._floats & read_wide if self._half(name) in node.output):
            yield self._cast(self._half(name), name, "wide")

    def _made_half(self, name: str) -> Iterator[Any]:
        if name in self._known:
            self.constants.setdefault(name, self._constant(name))
        elif name not in self.computed:
            self.computed.add(name)
            yield self._cast(name, self._half(name), "half")

    def _constant(self, name: str) -> Any:
        import onnx

        dtype = onnx.helper.tensor_dtype_to_np_dtype(self._types["half"])
        value = onnx.numpy_helper.to_array(self._known[name])
        if self.precision == "float16":  # a mask of -1e9 stands for minus infinity
            limit = float(np.finfo(np.float16).max)
            value = np.where(np.isfinite(value), np.clip(value, -limit, limit), value)
        return onnx.numpy_helper.from_array(value.astype(dtype), self._half(name))

    def _half(self, name: str) -> str:
        return f"{name}:{self.precision}"

    def _cast(self, source: str, target: str, kind: str) -> Any:
        import onnx

        return onnx.helper.make_node("Cast", [source], [target], name=f"Cast:{target}", to=self._types[kind])


def _constants(graph: Any) -> Iterator[tuple[str, Any]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if node.op_type == "Constant":
            yield from ((node.output[0], item.t) for item in node.attribute if item.name == "value")


def _sorted(nodes: Collection[Any]) -> Iterator[Any]:
    """The nodes in topological order, otherwise in the given order: quantizers append new nodes at the end."""
    waiting, made = list(nodes), {output for node in nodes for output in node.output if output}
    while waiting:
        ready = [node for node in waiting if made.isdisjoint(reads(node))]
        yield from ready
        made.difference_update(output for node in ready for output in node.output)
        left = [node for node in waiting if not made.isdisjoint(node.output)]
        if len(left) == len(waiting):
            raise ValueError("the graph has a cycle")
        waiting = left
