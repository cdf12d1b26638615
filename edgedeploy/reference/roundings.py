"""Where an int8 build of a reference rounds, and which layers decide it.

A layer is decided by itself when it multiplies with constant weights, or when the target's scheme gives its operator a
precision of its own. Two kinds of places round: the weights of a layer, and the tensors that it reads and writes. What
only passes numbers on (a maximum, a reshape) has the precision of what it reads; an activation belongs to the layer before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

import numpy as np

from edgedeploy.errors import Unsupported
from edgedeploy.records.precision import Int8Scheme
from edgedeploy.reference.external import require_in_one_file
from edgedeploy.reference.layers import fused_from, layers_of, name_nodes
from edgedeploy.reference.skips import input_skips
from edgedeploy.reference.translate import translated

PASSING: Final = (
    *("MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Resize", "Slice", "Gather"),
    *("DepthToSpace", "SpaceToDepth", "Expand", "Dropout", "Split", "Pad"),
)
"""Operators whose outputs hold the numbers of their first input; a resize may mix neighbours, within their range."""
ACTIVATIONS: Final = ("Relu", "Clip")
"""Operators that a runtime computes with the layer before: what is rounded is their output."""
_INT8_BYTES: Final = 0.25
"""Bytes of a weight in int8, as a part of those in float32."""


@dataclass(frozen=True)
class Decided:
    """A layer whose precision is decided. ``name`` is its node in the reference, ``node`` that of the prepared model;
    ``weight`` its weights' tensor with their channels on ``axis``, empty for none; ``size_bytes`` they take in float32."""

    name: str
    node: str
    weight: str = ""
    axis: int = 0
    size_bytes: int = 0

    def bytes_in(self, precision: str) -> float:
        return self.size_bytes * (_INT8_BYTES if precision == "int8" else 1.0)


@dataclass(frozen=True)
class Rounding:
    """A tensor of the prepared model that is rounded when any of ``layers`` is int8; they are places in the list of
    layers."""

    kind: Literal["weights", "tensor"]
    tensor: str
    layers: tuple[int, ...]
    axis: int = 0


@dataclass(frozen=True)
class Roundings:
    """The prepared model with its layers, what rounds, and who hands whom a tensor of how many elements.

    ``groups`` holds the places of layers that have one precision together. ``owners`` maps each node of the reference to the
    layer that it runs with, or that it follows. ``spared`` are the nodes that read the places named there unrounded
    (:mod:`edgedeploy.reference.skips`)."""

    model: Any
    layers: tuple[Decided, ...]
    places: tuple[Rounding, ...]
    links: tuple[tuple[int, int, int], ...]
    groups: tuple[tuple[int, ...], ...]
    owners: Mapping[str, int]
    spared: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def roundings_of(reference: Path, scheme: Int8Scheme) -> Roundings:
    """Raises ``Unsupported`` for a reference that has no layer to decide, or more weights than one protobuf holds;
    ``BuildError`` for one that is not prepared."""
    import onnx

    require_in_one_file(reference, "precision plans", "Search without them")
    source = onnx.load(str(reference))
    name_nodes(source)
    model = prepared(source)
    graph = _Graph(model)
    sources = fused_from(source, model)
    weighted = {layer.name for layer in layers_of(source) if layer.weighted}
    skips = input_skips(model)
    layers: list[Decided] = []
    merged: list[tuple[int, ...]] = []
    for node in model.graph.node:
        own = [name for name in sources[node.name] if name in weighted]
        if own and len(node.input) > 1 and node.input[1] in graph.constants:
            first = len(layers)
            layers += [_product(name, node, graph.constants[node.input[1]]) for name in own]
            merged.append(tuple(range(first, len(layers))))
        elif node.name in skips:
            continue
        elif node.op_type in scheme.operators and sources[node.name] and graph.is_float(node.output[0]):
            layers.append(Decided(sources[node.name][0], node.name))
    if not any(layer.weight for layer in layers):
        found = "no layer multiplies with constant weights"
        raise Unsupported(f"precision plans of {reference.name}", found, "Search without them")
    analysis = _Analysis(graph, tuple(layers), scheme)
    return Roundings(
        model=model,
        layers=analysis.layers,
        places=analysis.places(),
        links=analysis.links(),
        groups=analysis.groups(merged),
        owners=analysis.owners(sources),
        spared=skips,
    )


def prepared(source: Any) -> Any:
    """The model as targets quantize it: batch norms folded, shapes inferred; every node has a name."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    told = translated("a model to be quantized", "Search float32")
    with TemporaryDirectory(prefix="edgedeploy-plan-") as folder, told:
        given, ready = Path(folder, "given.onnx"), Path(folder, "ready.onnx")
        onnx.save(source, str(given))
        quant_pre_process(str(given), str(ready), skip_symbolic_shape=True)
        model = onnx.load(str(ready))
    name_nodes(model)
    return onnx.shape_inference.infer_shapes(model)


def _product(name: str, node: Any, weights: Any) -> Decided:
    transposed = any(item.name == "transB" and item.i for item in node.attribute)
    axis = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0 if transposed else 1}.get(node.op_type, weights.ndim - 1)
    return Decided(name, node.name, node.input[1], axis, 4 * int(weights.size))


class _Graph:
    """Who makes and reads a tensor of a model, and its type and size."""

    def __init__(self, model: Any) -> None:
        import onnx

        graph = model.graph
        self.nodes = {node.name: node for node in graph.node}
        self.constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.producers = {name: node for node in graph.node for name in node.output if name}
        self.readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.outputs = {value.name for value in graph.output}
        values = (*graph.input, *graph.value_info, *graph.output)
        self._types = {value.name: value.type.tensor_type for value in values}
        self._float = onnx.TensorProto.FLOAT

    def is_float(self, tensor: str) -> bool:
        return tensor in self._types and self._types[tensor].elem_type == self._float

    def elements(self, tensor: str) -> int:
        """Numbers in a tensor; 1 for an unknown size."""
        shape = [item.dim_value for item in self._types[tensor].shape.dim] if tensor in self._types else []
        return int(np.prod([size or 1 for size in shape], dtype=np.int64))

    def read_from(self, tensor: str) -> str:
        """The tensor whose numbers ``tensor`` holds: back over what only passes them on."""
        while (node := self.producers.get(tensor)) is not None and node.op_type in PASSING:
            tensor = node.input[0]
        return tensor

    def written(self, tensor: str) -> str:
        """The tensor that a layer with the output ``tensor`` writes: behind its activation."""
        readers = self.readers.get(tensor, [])
        while len(readers) == 1 and readers[0].op_type in ACTIVATIONS and tensor not in self.outputs:
            tensor = readers[0].output[0]
            readers = self.readers.get(tensor, [])
        return tensor


class _Analysis:
    def __init__(self, graph: _Graph, layers: tuple[Decided, ...], scheme: Int8Scheme) -> None:
        self.graph, self.layers, self.scheme = graph, layers, scheme
        self.reads = [self._reads(layer) for layer in layers]
        self.writes = [graph.written(graph.nodes[layer.node].output[0]) for layer in layers]

    def _reads(self, layer: Decided) -> list[str]:
        inputs = self.graph.nodes[layer.node].input
        taken = inputs[:1] if layer.weight else inputs
        found = [self.graph.read_from(name) for name in taken if name and name not in self.graph.constants]
        return [name for name in dict.fromkeys(found) if self.graph.is_float(name)]

    def places(self) -> tuple[Rounding, ...]:
        tensors: dict[str, dict[int, None]] = {}
        for index in range(len(self.layers)):
            written = [self.writes[index]] if self.scheme.outputs else []
            for name in (*self.reads[index], *written):
                tensors.setdefault(name, {})[index] = None
        weights: dict[tuple[str, int], dict[int, None]] = {}
        for index, layer in enumerate(self.layers):
            if layer.weight:
                weights.setdefault((layer.weight, layer.axis), {})[index] = None
        found = [Rounding("weights", name, tuple(own), axis) for (name, axis), own in weights.items()]
        return (*found, *(Rounding("tensor", name, tuple(own)) for name, own in tensors.items()))

    def links(self) -> tuple[tuple[int, int, int], ...]:
        """(who writes a tensor, who reads it, its elements)."""
        writers = {name: index for index, name in enumerate(self.writes)}
        return tuple(
            (writers[name], reader, self.graph.elements(name))
            for reader, names in enumerate(self.reads)
            for name in names
            if name in writers and writers[name] != reader
        )

    def groups(self, merged: Iterable[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
        """Layers that are one node, that share their weights, or that meet in an operator whose inputs need one range."""
        together = [list(places) for places in merged]
        together += [list(place.layers) for place in self.places() if place.kind == "weights"]
        writers = {name: index for index, name in enumerate(self.writes)}
        for node in self.graph.nodes.values():
            if node.op_type in self.scheme.one_range:
                origins = (self.graph.read_from(name) for name in node.input)
                together.append([writers[name] for name in origins if name in writers])
        return _joined(len(self.layers), together)

    def owners(self, sources: Mapping[str, Sequence[str]]) -> dict[str, int]:
        """Nodes of the prepared model come in order: a node that is no layer follows the owner of what it reads."""
        by_node = {layer.node: index for index, layer in enumerate(self.layers)}
        owner: dict[str, int] = {}
        for name, node in self.graph.nodes.items():
            before = (owner[self.graph.producers[read].name] for read in node.input if self._owned(read, owner))
            found = by_node.get(name, next(before, None))
            if found is not None:
                owner[name] = found
        return {source: owner[name] for name in owner for source in sources[name]}

    def _owned(self, tensor: str, owner: Mapping[str, int]) -> bool:
        return tensor in self.graph.producers and self.graph.producers[tensor].name in owner


def _joined(count: int, together: Iterable[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """A partition of 0 ... ``count`` - 1 in which what is ``together`` is in one part."""
    part = list(range(count))
    for members in together:
        for other in members[1:]:
            old, new = part[other], part[members[0]]
            part = [new if own == old else own for own in part]
    return tuple(tuple(i for i in range(count) if part[i] == name) for name in dict.fromkeys(part))
