"""Float16 for chosen nodes of an ONNX graph, in place, with a Cast only where a wide and a half node meet.

ONNX Runtime's own converter casts every tensor between a quantized layer and its quantizers back and forth; TensorRT then
no longer sees the Q and DQ around the layer. Here nothing but the chosen nodes is touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

ATTRIBUTE_TYPED: Final = ("Cast", "Constant", "ConstantOfShape", "EyeLike", "RandomNormal", "RandomUniform")
"""Operators whose output type an attribute sets: they stay as they are."""

LARGEST: Final = 65504.0
"""Of float16. Larger constants (masks of attention) become this instead of infinity."""

SUFFIX: Final = "__half"


def halve(model: Any, types: Mapping[str, str], chosen: set[str], opset: int) -> None:
    """Make the nodes named in ``chosen`` compute in float16, in place; inputs and outputs of the graph keep their types.
    ``types`` maps tensors to their element types; nodes without a float16 form stay wide."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    half = [node for node in graph.node if node.name in chosen and _can(node, types, opset)]
    made = {name for node in half for name in _outputs(node, types, opset)}
    kept = {value.name for value in graph.output}
    kept |= {name for node in graph.node if node not in half for name in _all_inputs(node)}
    kept |= {node.input[i] for node in half for i in range(len(node.input)) if i not in _inputs(node, types, opset)}
    names = {node.name for node in half}
    nodes: list[Any] = []
    cast: set[str] = set()
    for node in graph.node:
        if node.name not in names:
            nodes.append(node)
            continue
        outputs = _outputs(node, types, opset)
        for index in _inputs(node, types, opset):
            name = node.input[index]
            if name not in made and name + SUFFIX not in cast:
                cast.add(name + SUFFIX)
                if name in constants:
                    graph.initializer.append(_narrowed(constants[name]))
                else:
                    nodes.append(_cast(name, name + SUFFIX, "FLOAT16"))
            node.input[index] = name + SUFFIX
        nodes.append(node)
        for index, name in enumerate(node.output):
            if name in outputs:
                node.output[index] = name + SUFFIX
                if name in kept:
                    nodes.append(_cast(name + SUFFIX, name, "FLOAT"))
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]  # they keep the types from before
    used = {name for node in graph.node for name in _all_inputs(node)} | {value.name for value in graph.output}
    left = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(left)


def _can(node: Any, types: Mapping[str, str], opset: int) -> bool:
    """Whether the operator may give float16 for what it gives in float32 now."""
    if (
        node.op_type in ATTRIBUTE_TYPED
        or node.domain not in ("", "ai.onnx")
        or any(item.g.node for item in node.attribute)
    ):
        return False
    floats = [name for name in node.output if types.get(name) == "FLOAT"]
    return bool(floats) and set(floats) == set(_outputs(node, types, opset))


def _inputs(node: Any, types: Mapping[str, str], opset: int) -> list[int]:
    """Places of the inputs that are float32 now and may be float16 (the scales of a Resize may not)."""
    formal = _schema(node, opset).inputs
    return [
        index
        for index, name in enumerate(node.input)
        if types.get(name) == "FLOAT" and "tensor(float16)" in formal[min(index, len(formal) - 1)].types
    ]


def _outputs(node: Any, types: Mapping[str, str], opset: int) -> list[str]:
    formal = _schema(node, opset).outputs
    return [
        name
        for index, name in enumerate(node.output)
        if types.get(name) == "FLOAT" and "tensor(float16)" in formal[min(index, len(formal) - 1)].types
    ]


def _schema(node: Any, opset: int) -> Any:
    import onnx

    return onnx.defs.get_schema(node.op_type, opset)


def _all_inputs(node: Any) -> Iterator[str]:
    """What a node reads, inside the bodies of ``If`` and ``Loop`` too."""
    yield from node.input
    for item in node.attribute:
        for body in (item.g, *item.graphs):
            for inner in body.node:
                yield from _all_inputs(inner)
            yield from (value.name for value in body.output)


def _narrowed(tensor: Any) -> Any:
    import onnx

    values = np.clip(onnx.numpy_helper.to_array(tensor), -LARGEST, LARGEST).astype(np.float16)
    return onnx.numpy_helper.from_array(values, tensor.name + SUFFIX)


def _cast(source: str, result: str, kind: str) -> Any:
    import onnx

    to = getattr(onnx.TensorProto, kind)
    return onnx.helper.make_node("Cast", [source], [result], name=f"Cast:{result}", to=to)
