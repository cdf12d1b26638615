"""Prints what is wrong with an ONNX file, as JSON: ``python safety_child.py FILE LARGEST_TENSOR_BYTES``.

The caller sets the limits of this process. This file imports nothing of the project.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any


def look(path: Path, tensor_bytes: int) -> dict[str, Any]:
    """``problem`` is a sentence, or None when nothing was found: then ``sha256`` is that of the bytes that were parsed, and
    ``alone`` says whether all tensors lie in them. ``missing`` says that onnx is not installed."""
    if importlib.util.find_spec("onnx") is None:
        return {"missing": "onnx is not installed"}
    import onnx

    try:
        data = path.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        model = onnx.load_from_string(data, onnx.serialization.registry.get_format_from_file_extension(path.suffix))
        del data
    except Exception as exc:  # the parser's errors have no common base
        return {"problem": f"it is no ONNX model ({type(exc).__name__})"}
    try:
        alone = all(tensor.data_location != onnx.TensorProto.EXTERNAL for tensor in model_tensors(model))
        return {"problem": model_problem(model, path, tensor_bytes), "sha256": sha256, "alone": alone}
    except RecursionError:
        return {"problem": "its graphs are nested too deeply"}


def model_problem(model: Any, path: Path, tensor_bytes: int) -> str | None:
    """What is wrong with a parsed model that was read from ``path``."""
    import onnx

    for tensor in model_tensors(model):
        problem = _tensor_problem(onnx, tensor, path, tensor_bytes)
        if problem is not None:
            return f"tensor {tensor.name[:80]!r}: {problem}"
    return _graph_problem(onnx, model, tensor_bytes)


SMALL = 64
"""Elements of a constant that may be a shape, or a part of one."""


def outline(model: Any) -> Any:
    """A copy of a model without the values of its weights, but those of small constants, which shapes are computed from:
    for who looks at names and shapes alone. Tools that infer shapes have four copies of what they are given."""
    import onnx

    copy = onnx.ModelProto(ir_version=model.ir_version)
    copy.opset_import.extend(model.opset_import)
    copy.functions.extend(model.functions)
    copy.graph.name = model.graph.name
    for field in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(copy.graph, field).extend(getattr(model.graph, field))
    for tensor in model.graph.initializer:
        elements = 1
        for dimension in tensor.dims:
            elements *= dimension
        if elements <= SMALL:
            copy.graph.initializer.add().CopyFrom(tensor)
        else:
            copy.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    return copy


def model_tensors(model: Any) -> Any:
    """Every constant tensor of a model: of its graph, its functions, and the graphs that it was trained with."""
    yield from _tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)
    for training in model.training_info:
        yield from _tensors(training.initialization)
        yield from _tensors(training.algorithm)


def _tensors(graph: Any) -> Any:
    """Every tensor of a graph and of the graphs in its nodes."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Any) -> Any:
    for node in nodes:
        for attribute in node.attribute:
            yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)
            held = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            for sparse in (*held, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _tensors(inner)


def _tensor_problem(onnx: Any, tensor: Any, path: Path, tensor_bytes: int) -> str | None:
    if any(dimension < 0 for dimension in tensor.dims):
        return f"its shape {list(tensor.dims)} is negative"
    if _size(onnx, tensor.data_type, tensor.dims) > tensor_bytes:
        return f"its shape {list(tensor.dims)} is larger than {tensor_bytes} bytes"
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return None
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    place, problem = weights_place(path, location)
    return None if place is not None else f"its weights at {location!r} {problem}"


def weights_place(path: Path, location: str) -> tuple[Path | None, str]:
    """The file of weights that the model at ``path`` names by ``location``, or None and what is wrong.

    It must lie in the model's own folder. A cache of downloads keeps files elsewhere and links to them: where the model
    is a link itself, its folder is the link's and that of the file behind the link. A ``..``, an absolute path and a
    link that leads anywhere else could read any file of this machine into an artifact.
    """
    plain = Path(location)
    if not location or "\0" in location or plain.is_absolute() or ".." in plain.parts:
        return None, "lie outside of the model's folder"
    try:
        folders = list(dict.fromkeys((path.absolute().parent.resolve(), path.resolve().parent)))
        found = next((folder / plain for folder in folders if (folder / plain).is_file()), None)
        if found is None:
            found = next((folder / plain for folder in folders if (folder / plain).is_symlink()), None)
            return None, "are no file" if found is None else "are reached through a link that leads nowhere"
        place = found.resolve()
    except (OSError, RuntimeError) as exc:  # a name too long; links that go round in a circle
        return None, f"cannot be reached ({type(exc).__name__})"
    if any(place.is_relative_to(folder) for folder in folders):
        return place, ""
    return None, "are reached through a link, outside of the model's folder"


def _graph_problem(onnx: Any, model: Any, tensor_bytes: int) -> str | None:
    """A problem with an inferred shape, such as a constant that is expanded to terabytes."""
    model = outline(model)
    try:
        if model.functions:
            from onnx.inliner import inline_local_functions

            model = inline_local_functions(model)
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as exc:  # as above
        return f"its shapes cannot be inferred ({type(exc).__name__}: {str(exc)[:200]})"
    for value in _values(inferred.graph):
        tensor = value.type.tensor_type
        dims = [dimension.dim_value for dimension in tensor.shape.dim]
        if all(dims) and _size(onnx, tensor.elem_type, dims) > tensor_bytes:
            return f"value {value.name[:80]!r} of shape {dims} is larger than {tensor_bytes} bytes"
    return None


def _values(graph: Any) -> Any:
    """Everything with a shape in a graph and in the graphs in its nodes."""
    yield from (*graph.input, *graph.value_info, *graph.output)
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _values(inner)


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
