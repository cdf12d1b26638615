"""Opens the first axis of an ONNX model that was exported with one case, so that it takes several cases at once.

What exporters write down for one case is rewritten: shapes that inputs, outputs, Reshape and Resize are given. Nothing here
proves that cases stay apart: whoever builds an artifact of it runs a batch and each case alone.
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
            _replace(graph, node, 1, _open_reshape(constants[node.input[1]]), index)
        elif (
            node.op_type == "Resize"
            and opset >= _RESIZE_HAS_AXES
            and len(node.input) > 3
            and node.input[3] in constants
        ):
            _open_resize(graph, node, constants[node.input[3]], index)


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
