"""Prints what is wrong with an ONNX file, as JSON: ``python safety_child.py FILE LARGEST_TENSOR_BYTES``.

The caller sets the limits of this process. This file imports nothing of the project.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any


def look(path: Path, tensor_bytes: int) -> dict[str, Any]:
    """``problem`` is a sentence, or None when nothing was found; ``missing`` says that onnx is not installed."""
    if importlib.util.find_spec("onnx") is None:
        return {"missing": "onnx is not installed"}
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as exc:  # the parser's errors have no common base
        return {"problem": f"it is no ONNX model ({type(exc).__name__})"}
    for tensor in _tensors(onnx, model.graph):
        problem = _tensor_problem(onnx, tensor, path.parent.resolve(), tensor_bytes)
        if problem is not None:
            return {"problem": f"tensor {tensor.name[:80]!r}: {problem}"}
    return {"problem": _graph_problem(onnx, model, tensor_bytes)}


def _tensors(onnx: Any, graph: Any) -> Any:
    """Every tensor of a graph and of the graphs in its nodes."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _tensors(onnx, inner)


def _tensor_problem(onnx: Any, tensor: Any, folder: Path, tensor_bytes: int) -> str | None:
    if any(dimension < 0 for dimension in tensor.dims):
        return f"its shape {list(tensor.dims)} is negative"
    if _size(onnx, tensor.data_type, tensor.dims) > tensor_bytes:
        return f"its shape {list(tensor.dims)} is larger than {tensor_bytes} bytes"
    return _weights_problem(tensor, folder) if tensor.data_location == onnx.TensorProto.EXTERNAL else None


def _weights_problem(tensor: Any, folder: Path) -> str | None:
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    plain = Path(location)
    if not location or plain.is_absolute() or ".." in plain.parts:
        return f"its weights lie at {location!r}, outside of the model's folder"
    place = folder / plain
    if place.is_symlink() or not place.resolve().is_relative_to(folder):
        return f"its weights at {location!r} are reached through a link"
    if not place.is_file():
        return f"its weights at {location!r} are no file"
    return None


def _graph_problem(onnx: Any, model: Any, tensor_bytes: int) -> str | None:
    """A problem with an inferred shape, such as a constant that is expanded to terabytes."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception as exc:  # as above
        return f"its shapes cannot be inferred ({type(exc).__name__}: {str(exc)[:200]})"
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        tensor = value.type.tensor_type
        dims = [dimension.dim_value for dimension in tensor.shape.dim]
        if all(dims) and _size(onnx, tensor.elem_type, dims) > tensor_bytes:
            return f"value {value.name[:80]!r} of shape {dims} is larger than {tensor_bytes} bytes"
    return None


def _size(onnx: Any, data_type: int, dims: Any) -> int:
    """Bytes of a tensor; Python's integers do not overflow."""
    size = 1
    for dimension in dims:
        size *= dimension
    try:
        return size * int(onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize)
    except (KeyError, TypeError, ValueError):
        return size


if __name__ == "__main__":
    sys.stdout.write(json.dumps(look(Path(sys.argv[1]), int(sys.argv[2]))))
