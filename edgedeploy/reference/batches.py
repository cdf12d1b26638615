"""Opens the first axis of an ONNX model that was exported with one case, so that it takes several cases at once.

What exporters write down for one case is rewritten: shapes that inputs, outputs, Reshape and Resize are given, and
constants that stand beside a case. Nothing here proves that cases stay apart: whoever builds an artifact of it runs a batch
and each case alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

BATCH: Final = "batch"
"""Name of the open axis in the file."""

_RESIZE_HAS_AXES: Final = 18


def open_batch(path: Path) -> None:
    """Rewrite the file at ``path``; weights that lie in a file of their own stay there."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    open_model_batch(model)
    onnx.save(model, str(path))


def open_model_batch(model: Any) -> None:
    """Rewrite an ``onnx.ModelProto`` in place."""
    graph = model.graph
    for value in (*graph.input, *graph.output):
        sizes = value.type.tensor_type.shape.dim
        if sizes and sizes[0].dim_value == 1:
            sizes[0].ClearField("dim_value")
            sizes[0].dim_param = BATCH
    del graph.value_info[:]
    opset = max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=0)
    constants = _constants(graph)
    for index, node in enumerate(list(graph.node)):
        if node.op_type == "Reshape" and node.input[1] in constants:
            shape = constants[node.input[1]]
            _replace(graph, node, 1, _open_reshape(shape), index)
            if 0 not in shape:  # torch writes allowzero, with which a 0 would be no size of before
                _remove_attribute(node, "allowzero")
        elif (
            node.op_type == "Resize"
            and opset >= _RESIZE_HAS_AXES
            and len(node.input) > 3
            and node.input[3] in constants
        ):
            _open_resize(graph, node, constants[node.input[3]], index)
    _repeat_constants(graph)


def _repeat_constants(graph: Any) -> None:
    """What is put beside the cases along another axis, as a class token beside an image's, is there once for each case."""
    from onnx import helper, numpy_helper

    held = {item.name: tuple(item.dims) for item in graph.initializer}
    written = [node for node in graph.node if node.op_type == "Constant"]
    held |= {node.output[0]: tuple(item.t.dims) for node in written for item in node.attribute}
    opened = [value.name for value in graph.input if value.type.tensor_type.shape.dim[:1] and _is_open(value)]
    nodes = []
    for node in graph.node:
        once = [name for name in node.input if held.get(name, ())[:1] == (1,)]
        axis = next((item.i for item in node.attribute if item.name == "axis"), 0)
        beside = node.op_type == "Concat" and once and not {*node.input} <= {*held}
        if beside and opened and axis % len(held[once[0]]):
            count = f"{node.output[0]}_{BATCH}"
            graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.int64), f"{count}_first"))
            nodes.append(helper.make_node("Shape", [opened[0]], [f"{count}_shape"], f"{count}_shape"))
            nodes.append(helper.make_node("Gather", [f"{count}_shape", f"{count}_first"], [count], count))
            for name in dict.fromkeys(once):
                rest, sizes, made = (f"{count}_{name}_{word}" for word in ("rest", "sizes", "each"))
                graph.initializer.append(numpy_helper.from_array(np.ones(len(held[name]) - 1, np.int64), rest))
                nodes.append(helper.make_node("Concat", [count, rest], [sizes], sizes, axis=0))
                nodes.append(helper.make_node("Expand", [name, sizes], [made], made))
                for place, other in enumerate(node.input):
                    if other == name:
                        node.input[place] = made
        nodes.append(node)
    kept = [item.SerializeToString() for item in nodes]
    del graph.node[:]
    for data in kept:
        graph.node.add().ParseFromString(data)


def _remove_attribute(node: Any, name: str) -> None:
    place = next((index for index, item in enumerate(node.attribute) if item.name == name), None)
    if place is not None:
        del node.attribute[place]


def _is_open(value: Any) -> bool:
    return bool(value.type.tensor_type.shape.dim[0].dim_param == BATCH)


def _constants(graph: Any) -> dict[str, Any]:
    """Whole numbers that the file itself holds, by name."""
    from onnx import TensorProto, numpy_helper

    inside = (item for item in graph.initializer if item.data_location != TensorProto.EXTERNAL)
    found = {item.name: item for item in inside if item.data_type == TensorProto.INT64}
    for node in graph.node:
        if node.op_type == "Constant":
            found.update((node.output[0], item.t) for item in node.attribute if item.t.data_type == TensorProto.INT64)
    return {name: numpy_helper.to_array(item) for name, item in found.items() if len(item.dims) == 1}


def _open_reshape(shape: Any) -> Any:
    """A leading 1 becomes whatever is left, or where something else is that, the size that there was before."""
    if not shape.size or shape[0] != 1:
        return shape
    return np.array([0 if -1 in shape else -1, *shape[1:]], dtype=np.int64)


def _open_resize(graph: Any, node: Any, sizes: Any, index: int) -> None:
    """Sizes of all axes but the first."""
    from onnx import helper

    if any(item.name == "axes" for item in node.attribute) or not sizes.size or sizes[0] != 1:
        return
    node.attribute.append(helper.make_attribute("axes", list(range(1, sizes.size))))
    _replace(graph, node, 3, sizes[1:], index)


def _replace(graph: Any, node: Any, place: int, value: Any, index: int) -> None:
    """Give the node a constant of its own: others may share the one that it has."""
    from onnx import numpy_helper

    name = f"{node.input[place]}_{BATCH}_{index}"
    graph.initializer.append(numpy_helper.from_array(value, name))
    node.input[place] = name
