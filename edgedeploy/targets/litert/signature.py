"""Repairs the output names of a quantized LiteRT file, and drops names that nobody reads.

When a layer inside the model also reads an output, ai-edge-quantizer 0.10 adds a new dequantized tensor for both
readers, but the signature still names the old tensor. The file then runs, but its output cannot be read ("Tensor data
is null").
"""

from __future__ import annotations

from typing import Any


def repaired(quantized: bytes, floating: bytes) -> bytes:
    """``quantized`` with each name of its signature moved to the output that has the same position as in
    ``floating``."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(quantized))
    before = flatbuffer_utils.read_model_from_bytearray(bytearray(floating))
    positions = {name: position for name, _, position in _outputs(before)}
    stale = [(item, positions[name]) for name, item, position in _outputs(model) if position is None]
    if not stale:
        return quantized
    for item, position in stale:
        item.tensorIndex = int(model.subgraphs[0].outputs[position])
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def nameless(quantized: bytes) -> bytes:
    """``quantized`` with short names for the tensors between its inputs and outputs.

    The converter names each after the Python modules that it comes from: 43 kB of a UNet, twice its int8 weights once it is
    pruned to a quarter. Runtimes go by numbers, and layers are found before the quantizer has changed them.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(quantized))
    for graph in model.subgraphs:
        edges = {int(index) for index in (*graph.inputs, *graph.outputs)}
        for index, tensor in enumerate(graph.tensors):
            if index not in edges:
                tensor.name = f"t{index}".encode()
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _outputs(model: Any) -> list[tuple[bytes, Any, int | None]]:
    """Name and entry of each output of the signature, with its position among the graph's outputs (None: it is not one
    of them). The converters write one signature and one graph."""
    order = [int(index) for index in model.subgraphs[0].outputs]
    found = []
    for item in model.signatureDefs[0].outputs:
        position = order.index(item.tensorIndex) if item.tensorIndex in order else None
        found.append((bytes(item.name), item, position))
    return found
