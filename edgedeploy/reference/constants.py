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
        self._opsets = list(model.opset_import)
        self._made: dict[str, Any] = {}  # by tensor, the nodes on constants alone, in topological order
        for node in model.graph.node:
            inside = any(item.g.node or item.graphs for item in node.attribute)  # it may read what it does not list
            if not inside and all(not name or name in self for name in node.input):
                self._made.update({name: node for name in node.output if name})

    def __contains__(self, name: str) -> bool:
        return name in self._held or name in self._made

    def get(self, name: str) -> Floats | None:
        """Its value; None for what depends on an input."""
        import onnx
        from onnx.reference import ReferenceEvaluator

        if name in self._held:
            value: Floats = onnx.numpy_helper.to_array(self._held[name])
            return value
        if name not in self._made:
            return None
        nodes = self._nodes_of(name)
        read = {tensor for node in nodes for tensor in node.input}
        held = [tensor for tensor in self._held.values() if tensor.name in read]
        graph = onnx.helper.make_graph(nodes, "constant", [], [onnx.ValueInfoProto(name=name)], held)
        (value,) = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=self._opsets)).run(None, {})
        return value

    def numbers(self, name: str) -> int:
        """How many numbers it has, by the largest initializer that it is made of; 0 for what depends on an input. Nothing is
        computed, so that a model without the values of its weights will do."""
        read = {name, *(tensor for node in self._nodes_of(name) for tensor in node.input)}
        return max((math.prod(self._held[tensor].dims) for tensor in read if tensor in self._held), default=0)

    def _nodes_of(self, name: str) -> list[Any]:
        """The nodes that compute a constant tensor, in topological order; none for an initializer and for what depends on
        an input. A walk and no recursion: a network has thousands of nodes in a row."""
        wanted: set[str] = set()
        waiting = [name]
        while waiting:
            tensor = waiting.pop()
            if tensor in self._made and tensor not in wanted:
                wanted.update(filter(None, self._made[tensor].output))
                waiting += self._made[tensor].input
        return list({id(node): node for tensor, node in self._made.items() if tensor in wanted}.values())
