"""Reads a user's ONNX file with the weights that lie beside it. Only for the process with limits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import DataError
from edgedeploy.reference.safety import check_size, unsafe
from edgedeploy.reference.safety_child import model_problem, model_tensors, weights_place

MAX_NODES: Final = 100_000


def load(path: Path, file_bytes: int, tensor_bytes: int) -> tuple[Any, str]:
    """The model with all weights inside, and the SHA-256 over the file and the weights beside it. Raises ``DataError``
    for a file that may not be loaded; both limits are those of :class:`edgedeploy.reference.safety.Limits`."""
    import onnx
    from google.protobuf.message import DecodeError

    asked = f"model {path}"
    check_size(asked, path, file_bytes)
    data = path.read_bytes()
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError:
        raise DataError(asked, "it is no ONNX model", "Export it again") from None
    if not model.graph.node:
        raise DataError(asked, "it holds no graph", "Export it again")
    if (count := sum(1 for _ in nodes_of(model.graph))) > MAX_NODES:
        raise DataError(asked, f"it has {count} nodes", f"At most {MAX_NODES} are read")
    digest = hashlib.sha256(data)
    del data  # what follows has copies enough
    problem = model_problem(model, path, tensor_bytes)
    if problem is not None:
        raise unsafe(asked, problem)
    for name, content in _weights_beside(path, model, file_bytes).items():
        digest.update(name.encode() + b"\0" + content)
    return model, digest.hexdigest()


def _weights_beside(path: Path, model: Any, file_bytes: int) -> dict[str, bytes]:
    """Move weights that lie in files of their own into the model. Returns the files' contents by name."""
    import onnx

    files: dict[str, bytes] = {}
    left = file_bytes - path.stat().st_size
    for tensor in model_tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        facts = {entry.key: entry.value for entry in tensor.external_data}
        asked = f"weights of tensor {tensor.name!r} in {path.name}"
        name = facts.get("location", "")
        place, problem = weights_place(path, name)
        if place is None:
            raise DataError(asked, f"they lie in {name!r} and {problem}", "Weights must be files beside the model")
        if name not in files:
            left -= place.stat().st_size
            if left < 0:
                raise DataError(asked, "model and weights are too large", f"At most {file_bytes} bytes are read")
            files[name] = place.read_bytes()
        start, length = _extent(asked, facts, len(files[name]))
        tensor.raw_data = files[name][start : start + length]
        tensor.ClearField("data_location")
        del tensor.external_data[:]
    return files


def _extent(asked: str, facts: Mapping[str, str], size_bytes: int) -> tuple[int, int]:
    try:
        start = int(facts.get("offset", "0"))
        length = int(facts.get("length", str(size_bytes - start)))
    except ValueError:
        raise DataError(asked, f"offset or length is no number: {dict(facts)}", "Export it again") from None
    if start < 0 or length < 0 or start + length > size_bytes:
        raise DataError(asked, f"bytes {start} to {start + length} of {size_bytes}", "The weights file is cut short")
    return start, length


def nodes_of(graph: Any) -> Iterator[Any]:
    """The nodes of a graph and of the graphs inside its nodes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
                yield from nodes_of(inner)


def name_all(graph: Any) -> None:
    """Give every node of a graph, and of the graphs inside its nodes, a name that no other node of that graph has. Names
    that are already unique stay."""
    counts = Counter(node.name for node in graph.node)
    for node in graph.node:
        if not node.name or counts[node.name] > 1:
            first = next((output for output in node.output if output), "")
            node.name = f"{node.op_type}:{first}"
        for attribute in node.attribute:
            for inner in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
                name_all(inner)
