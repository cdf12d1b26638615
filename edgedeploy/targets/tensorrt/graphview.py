"""A cached view of an ONNX graph for the lint's questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.interfaces.task import Array
from edgedeploy.reference.graph import opset_of
from edgedeploy.reference.translate import translated

QDQ: Final = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class GraphView:
    """A model with its shapes inferred. Nodes inside ``If`` and ``Loop`` bodies are seen too."""

    model: Any

    @classmethod
    def open(cls, path: Path) -> GraphView:
        """Raises ``BuildError`` for a file that is no valid model."""
        import onnx

        with translated(f"{path.name} as an ONNX model", "Build it again"):
            model = onnx.load(str(path))
            return cls(onnx.shape_inference.infer_shapes(model))

    @cached_property
    def nodes(self) -> tuple[Any, ...]:
        return tuple(nodes_of(self.model.graph))

    @cached_property
    def opset(self) -> int:
        return opset_of(self.model)

    @cached_property
    def constants(self) -> Mapping[str, Any]:
        """Tensors that are known when the engine is built, by name."""
        found = {tensor.name: tensor for tensor in self.model.graph.initializer}
        for node in self.nodes:
            if node.op_type == "Constant":
                for item in node.attribute:
                    if item.name == "value":
                        found[node.output[0]] = item.t
        return found

    @cached_property
    def values(self) -> tuple[Any, ...]:
        """Inputs, outputs and inferred values: everything with a shape."""
        graph = self.model.graph
        return (*graph.input, *graph.value_info, *graph.output)

    @cached_property
    def ranks(self) -> Mapping[str, int]:
        known = {value.name: len(value.type.tensor_type.shape.dim) for value in self.values}
        return {**known, **{name: len(tensor.dims) for name, tensor in self.constants.items()}}

    @cached_property
    def quantizers(self) -> tuple[Any, ...]:
        return tuple(node for node in self.nodes if node.op_type in QDQ)

    def array(self, name: str) -> Array | None:
        """A constant's value; None for what is computed."""
        import onnx

        tensor = self.constants.get(name)
        return None if tensor is None else np.asarray(onnx.numpy_helper.to_array(tensor))


def label(node: Any) -> str:
    """A node as people find it: its name, or its first output when it has none."""
    return f"{node.op_type} {node.name or node.output[0]}"


def attribute(node: Any, name: str) -> Any:
    """An attribute's value, bytes as text; None when the node leaves it out."""
    import onnx

    for item in node.attribute:
        if item.name == name:
            value = onnx.helper.get_attribute_value(item)
            return value.decode() if isinstance(value, bytes) else value
    return None


def nodes_of(graph: Any) -> Iterator[Any]:
    """The nodes of a graph and of the graphs in them."""
    for node in graph.node:
        yield node
        for item in node.attribute:
            for inner in (item.g, *item.graphs):
                yield from nodes_of(inner)


def reads(node: Any) -> Iterator[str]:
    """Names of the tensors that a node reads, including those that its subgraphs take from outside."""
    yield from node.input
    for item in node.attribute:
        for inner in (item.g, *item.graphs):
            yield from (name for part in nodes_of(inner) for name in part.input)
