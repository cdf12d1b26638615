"""Quantized ONNX files without the bytes that say nothing.

The quantizer names a dozen tensors a layer after the layer's own, each name in the file two or three times, and writes a
scale and a zero point for every weight and bias, most of them again and again. Of a UNet pruned to a quarter that is a
third of the file. The runtime computes the same, bit for bit.
"""

from __future__ import annotations

import itertools
from typing import Any, Final

PAIRED: Final = ("QuantizeLinear", "DequantizeLinear")


def compact(model: Any, source: Any) -> None:
    """Merge equal constants, shorten names that ``source`` has not, and drop recorded shapes, in place.

    Layers and their tensors keep the names of ``source``, and quantized activations that of their DequantizeLinear:
    profiles and ``edgedeploy debug`` find them so. A model with subgraphs is left alone, because they read tensors by
    name from outside.
    """
    graph = model.graph
    if any(item.g.node or item.graphs for node in graph.node for item in node.attribute):
        return
    known = {value.name for value in (*graph.input, *graph.output)} | _tensors(source)
    _merge_constants(graph, known)
    constants = {tensor.name for tensor in graph.initializer}
    renamed = constants - known
    for node in graph.node:
        activation = node.op_type == "DequantizeLinear" and node.input[0] not in constants
        if node.op_type in PAIRED and not activation and node.output[0] not in known:
            renamed.add(node.output[0])
    taken = known | {name for node in graph.node for name in node.output}
    fresh = (name for name in map("t{}".format, itertools.count()) if name not in taken)
    order = [tensor.name for tensor in graph.initializer] + [node.output[0] for node in graph.node if node.output]
    short = {name: next(fresh) for name in order if name in renamed}
    layers = {node.name for node in source.graph.node}
    for tensor in graph.initializer:
        tensor.name = short.get(tensor.name, tensor.name)
    numbers = (name for name in map("n{}".format, itertools.count()) if name not in layers)
    for node in graph.node:
        _rename(node.input, short)
        _rename(node.output, short)
        if node.op_type in PAIRED and node.name not in layers:
            node.name = next(numbers)
    del graph.value_info[:]


def _tensors(source: Any) -> set[str]:
    graph = source.graph
    return {tensor.name for tensor in graph.initializer} | {name for node in graph.node for name in node.output}


def _merge_constants(graph: Any, known: set[str]) -> None:
    """Equal constants become the first of them; those by the source's names stay."""
    kept: dict[bytes, str] = {}
    instead: dict[str, str] = {}
    left = []
    for tensor in graph.initializer:
        copy = type(tensor).FromString(tensor.SerializeToString())
        copy.ClearField("name")
        first = kept.setdefault(copy.SerializeToString(deterministic=True), tensor.name)
        if tensor.name in known or first == tensor.name:
            left.append(tensor)
        else:
            instead[tensor.name] = first
    copies = [type(tensor).FromString(tensor.SerializeToString()) for tensor in left]
    del graph.initializer[:]
    graph.initializer.extend(copies)
    for node in graph.node:
        _rename(node.input, instead)


def _rename(names: Any, instead: dict[str, str]) -> None:
    for index, name in enumerate(names):
        names[index] = instead.get(name, name)
