"""Values in an ONNX graph that depend on no input, wherever they come from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]


class Constants:
    """Values of tensors that depend on no input: initializers, and results of nodes on constants."""

    def __init__(self, model: Any) -> None:
        self._held = {tensor.name: tensor for tensor in model.graph.initializer}
        self._producers = {output: node for node in model.graph.node for output in node.output if output}
        self._opsets = list(model.opset_import)

    def get(self, name: str) -> Floats | None:
        """Its value; None for what depends on an input."""
        import onnx
        from onnx.reference import ReferenceEvaluator

        if name in self._held:
            value: Floats = onnx.numpy_helper.to_array(self._held[name])
            return value
        nodes: dict[str, Any] = {}
        if not self._collect(name, nodes):
            return None
        read = {tensor for node in nodes.values() for tensor in node.input}
        held = [tensor for tensor in self._held.values() if tensor.name in read]
        graph = onnx.helper.make_graph(list(nodes.values()), "constant", [], [onnx.ValueInfoProto(name=name)], held)
        (value,) = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=self._opsets)).run(None, {})
        return value

    def numbers(self, name: str) -> int:
        """How many numbers it has, by the largest initializer that it is made of; 0 for what depends on an input. Nothing is
        computed, so that a model without the values of its weights will do."""
        nodes: dict[str, Any] = {}
        if not self._collect(name, nodes):
            return 0
        read = {name, *(tensor for node in nodes.values() for tensor in node.input)}
        return max((math.prod(self._held[tensor].dims) for tensor in read if tensor in self._held), default=0)

    def _collect(self, name: str, nodes: dict[str, Any]) -> bool:
        """Collect the nodes that compute tensor ``name`` in topological order. Returns whether it depends on constants
        only."""
        if not name or name in self._held:
            return True
        node = self._producers.get(name)
        if node is None:
            return False
        if node.name not in nodes:
            if not all(self._collect(before, nodes) for before in node.input):
                return False
            nodes[node.name] = node
        return True
