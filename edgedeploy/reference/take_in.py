"""Makes a clean copy of a user's ONNX file, from which artifacts are then built.

The file is not trusted: its size is limited and its weights must lie in its own folder. What no target supports (an
open dimension, a custom operator, a text input) is refused, and the error names the tensor or operator.

In the copy every node has a name, weights are not inputs, the exporter's metadata is gone, and the operator set can
express int8 with a scale per channel. Both files are run to show that they compute the same.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.errors import DataError, SpecError, Unsupported, nearest
from edgedeploy.records.artifact import TensorSpec, random_feed
from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.sessions.onnxruntime import open_model

MAX_MODEL_BYTES: Final = 1 << 30
"""Largest model including its weights. protobuf's own limit is 2 GiB; edge boards hold far less."""

MAX_NODES: Final = 100_000
LOWEST_OPSET: Final = 13
"""The first operator set whose QuantizeLinear has a scale per channel; older files are converted to it."""

SAME: Final = 1e-4
"""Largest relative L2 distance between the original and the copy, per output."""

BY_VALUE: Final = ("NonZero", "NonMaxSuppression", "Unique", "Compress", "If", "Loop", "Scan", "SequenceConstruct")
"""Operators whose output shape depends on input values."""

DOMAINS: Final = ("", "ai.onnx", "com.microsoft")
ELEMENT_TYPES: Final = ("float32", "float64", "float16", "uint8", "int8", "int16", "int32", "int64", "bool")


@dataclass(frozen=True)
class TakenIn:
    """The clean copy. ``sha256`` is that of the original with its weights; ``notes`` say what was changed."""

    data: bytes
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    notes: tuple[str, ...]


def take_in(path: Path, shapes: Mapping[str, Sequence[int]]) -> TakenIn:
    """A clean copy of the model at ``path``; ``shapes`` maps input names to shapes and fixes their open dimensions.

    Raises ``DataError`` for a file that is not a model or reads outside its folder, ``SpecError`` for shapes that do
    not fit, ``Unsupported`` for what no target supports.
    """
    import onnx

    model, sha256 = _load(path)
    _check_operators(path, model)
    notes = _as_caller_sees_it(model)
    notes += _fix_shapes(path, model, shapes)
    notes += _convert(path, model)
    _name_nodes(model)
    _strip(model)
    try:
        model = _close(path, model)
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        raise DataError(f"model {path.name}", f"it is not valid ONNX ({_short(exc)})", "Export it again") from exc
    inputs = tuple(_spec(path, value) for value in model.graph.input)
    outputs = tuple(_spec(path, value) for value in model.graph.output)
    data: bytes = model.SerializeToString()
    _prove(path, data, inputs, outputs)
    return TakenIn(data, sha256, inputs, outputs, tuple(notes))


def sha256_with_weights(path: Path) -> str:
    """SHA-256 over the file and the weights that lie beside it."""
    return _load(path)[1]


def _load(path: Path) -> tuple[Any, str]:
    import onnx
    from google.protobuf.message import DecodeError

    asked = f"model {path}"
    if not path.is_file():
        raise DataError(asked, "there is no such file", "Paths are relative to the study file")
    if path.stat().st_size > MAX_MODEL_BYTES:
        raise DataError(asked, f"it has {path.stat().st_size} bytes", f"At most {MAX_MODEL_BYTES} are read")
    data = path.read_bytes()
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError:
        raise DataError(asked, "it is no ONNX model", "Export it again") from None
    if not model.graph.node:
        raise DataError(asked, "it holds no graph", "Export it again")
    if len(model.graph.node) > MAX_NODES:
        raise DataError(asked, f"it has {len(model.graph.node)} nodes", f"At most {MAX_NODES} are read")
    digest = hashlib.sha256(data)
    for name, content in _weights_beside(path, model).items():
        digest.update(name.encode() + b"\0" + content)
    return model, digest.hexdigest()


def _weights_beside(path: Path, model: Any) -> dict[str, bytes]:
    """Move weights that lie in files of their own into the model. Returns the files' contents by name.

    Paths must stay inside the model's own folder: an absolute path, a ``..`` or a link that leads out could read any
    file of this machine into an artifact.
    """
    import onnx

    files: dict[str, bytes] = {}
    folder = path.resolve().parent
    left = MAX_MODEL_BYTES - path.stat().st_size
    for tensor in _tensors(model.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        facts = {entry.key: entry.value for entry in tensor.external_data}
        asked = f"weights of tensor {tensor.name!r} in {path.name}"
        name = facts.get("location", "")
        place = (folder / name).resolve()
        if not name or not place.is_relative_to(folder) or not place.is_file():
            raise DataError(asked, f"they lie in {name!r}", "Weights must be files in the model's own folder")
        if name not in files:
            left -= place.stat().st_size
            if left < 0:
                raise DataError(asked, "model and weights are too large", f"At most {MAX_MODEL_BYTES} bytes are read")
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


def _graphs(graph: Any) -> Iterator[Any]:
    """A graph and the graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _graphs(inner)


def _nodes(graph: Any) -> Iterator[Any]:
    for inner in _graphs(graph):
        yield from inner.node


def _tensors(graph: Any) -> Iterator[Any]:
    """All constant tensors of a graph, those in attributes included."""
    for inner in _graphs(graph):
        yield from inner.initializer
    for node in _nodes(graph):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _check_operators(path: Path, model: Any) -> None:
    for node in model.graph.node:
        if node.domain not in DOMAINS and not model.functions:
            raise Unsupported(
                f"operator {node.domain}.{node.op_type} of node {node.name or node.output[0]!r} in {path.name}",
                "it is a custom operator",
                "Export the model with standard ONNX operators",
            )


def _as_caller_sees_it(model: Any) -> list[str]:
    """Remove weights from the inputs, where older files also list them: runtimes do not fold what a caller could
    replace."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    found = len(model.graph.input) - len(inputs)
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    used = {name for node in _nodes(model.graph) for name in node.input} | {value.name for value in model.graph.output}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
        model.graph.initializer.remove(tensor)
    return [f"{found} weights were listed as inputs and are constants now"] if found else []


def _fix_shapes(path: Path, model: Any, shapes: Mapping[str, Sequence[int]]) -> list[str]:
    inputs = {value.name: value for value in model.graph.input}
    for name, wanted in shapes.items():
        if name not in inputs:
            raise SpecError(f"task.options.shapes.{name}", "the model has no such input", nearest(name, inputs))
        dimensions = inputs[name].type.tensor_type.shape.dim
        found = [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in dimensions]
        if len(found) != len(wanted) or any(
            isinstance(old, int) and old != new for old, new in zip(found, wanted, strict=True)
        ):
            raise SpecError(
                f"task.options.shapes.{name} = {list(wanted)}", f"the model has {found}", "Give its open dimensions"
            )
        for dimension, size in zip(dimensions, wanted, strict=True):
            dimension.dim_value = size
    for value in model.graph.input:
        _spec(path, value)
    if not shapes:
        return []
    for value in model.graph.output:  # the recorded output shapes were inferred from open input shapes
        for dimension in value.type.tensor_type.shape.dim:
            if not dimension.HasField("dim_value"):
                dimension.Clear()
    del model.graph.value_info[:]
    return [f"input {name} was given the shape {list(shape)}" for name, shape in shapes.items()]


def _convert(path: Path, model: Any) -> list[str]:
    import onnx

    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    model.ir_version = max(model.ir_version, 7)
    if opset >= LOWEST_OPSET:
        return []
    try:
        converted = onnx.version_converter.convert_version(model, LOWEST_OPSET)
    except Exception as exc:  # the converter raises bare RuntimeError for an operator it has no adapter for
        raise Unsupported(
            f"{path.name} of operator set {opset} in {LOWEST_OPSET}", _short(exc), f"Export it with {LOWEST_OPSET}"
        ) from exc
    model.CopyFrom(converted)
    return [f"operator set {opset} was converted to {LOWEST_OPSET}"]


def _name_nodes(model: Any) -> None:
    """Give every node a unique name, because plans and findings name layers. Names that are already unique stay."""
    counts = Counter(node.name for node in model.graph.node)
    for node in model.graph.node:
        if not node.name or counts[node.name] > 1:
            first = next((output for output in node.output if output), "")
            node.name = f"{node.op_type}:{first}"


def _strip(model: Any) -> None:
    """Remove the exporter's metadata: it may hold paths of the machine that it ran on."""
    del model.metadata_props[:]
    model.doc_string = ""
    graph = model.graph
    graph.doc_string = ""
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


def _close(path: Path, model: Any) -> Any:
    """The model with the shape of every tensor recorded. Shapes that inference cannot tell are taken from two runs.

    Raises ``Unsupported`` naming an operator whose output shape depends on values.
    """
    import onnx

    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    known = {tensor.name for tensor in model.graph.initializer}
    known |= {
        value.name for value in (*model.graph.input, *model.graph.value_info, *model.graph.output) if _fixed(value)
    }
    open_now = {name: node for node in model.graph.node for name in node.output if name and name not in known}
    if not open_now:
        return model
    for name, node in open_now.items():
        if node.op_type in BY_VALUE:
            raise _unshaped(path, name, node)
    outputs = {value.name for value in model.graph.output}
    probe = onnx.ModelProto.FromString(model.SerializeToString())
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in open_now if name not in outputs)
    specs = tuple(_spec(path, value) for value in model.graph.input)
    first, second = (_run_bytes(path, probe.SerializeToString(), random_feed(specs, seed)) for seed in (1, 2))
    stale = [value for value in model.graph.value_info if value.name not in open_now]
    del model.graph.value_info[:]
    model.graph.value_info.extend(stale)
    for name, node in open_now.items():
        shape = first[name].shape
        if shape != second[name].shape or 0 in shape:
            raise _unshaped(path, name, node)
        kind = onnx.helper.np_dtype_to_tensor_dtype(first[name].dtype)
        value = onnx.helper.make_tensor_value_info(name, kind, shape)
        if name in outputs:
            next(output for output in model.graph.output if output.name == name).CopyFrom(value)
        else:
            model.graph.value_info.append(value)
    return model


def _fixed(value: Any) -> bool:
    tensor = value.type.tensor_type
    return bool(tensor.HasField("shape")) and all(d.HasField("dim_value") for d in tensor.shape.dim)


def _unshaped(path: Path, name: str, node: Any) -> Unsupported:
    return Unsupported(
        f"tensor {name!r} of {path.name} with one shape",
        f"the shape that operator {node.op_type} ({node.name}) gives depends on values",
        "Export the model without this operator (often post-processing such as non-maximum suppression)",
    )


def _spec(path: Path, value: Any) -> TensorSpec:
    import onnx

    asked = f"tensor {value.name!r} of {path.name}"
    if not value.type.HasField("tensor_type"):
        raise Unsupported(
            f"{asked} as an array", f"it is a {value.type.WhichOneof('value')}", "Export it with arrays only"
        )
    tensor = value.type.tensor_type
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    except KeyError:
        dtype = "undefined"
    if dtype not in ELEMENT_TYPES:
        raise Unsupported(f"{asked} as numbers", f"its element type is {dtype}", "Export it with numbers only")
    shape = []
    for place, dimension in enumerate(tensor.shape.dim):
        if not dimension.HasField("dim_value") or dimension.dim_value < 1:
            found = f"dimension {place} ({dimension.dim_param or 'unnamed'}) is open"
            remedy = f"One artifact serves one shape: name it in [task.options.shapes], {value.name!r} = [1, ...]"
            raise Unsupported(f"one shape for {asked}", found, remedy)
        shape.append(int(dimension.dim_value))
    return TensorSpec(value.name, dtype, tuple(shape))


def _prove(path: Path, data: bytes, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
    """Run the original and the copy on one seeded input. Raises ``Unsupported`` for what ONNX Runtime cannot run."""
    feed = random_feed(inputs, 0)
    found = [_run(path, path, feed), _run_bytes(path, data, feed)]
    for spec in outputs:
        original, ours = (np.asarray(values[spec.name], np.float64) for values in found)
        if tuple(ours.shape) != spec.shape:
            raise Unsupported(
                f"output {spec.name!r} of {path.name} as {spec.shape}", f"{ours.shape}", "Export it with fixed shapes"
            )
        if not np.isfinite(original).all():
            raise Unsupported(
                f"finite values in output {spec.name!r} of {path.name}",
                "NaN or Inf on random inputs from 0 to 1",
                "Look in the model for a division by zero, a logarithm or an overflow, and export it again",
            )
        distance = float(np.linalg.norm(ours - original))
        if distance > SAME * float(np.linalg.norm(original)) + 1e-6:
            raise Unsupported(
                f"output {spec.name!r} of {path.name} after conversion",
                f"it is {distance:.3g} away from the original",
                f"Export the model with operator set {LOWEST_OPSET} or newer",
            )


def _run_bytes(path: Path, data: bytes, feed: Mapping[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="edgedeploy-model-") as folder:
        copy = Path(folder) / "model.onnx"
        copy.write_bytes(data)
        return _run(path, copy, feed)


def _run(path: Path, place: Path, feed: Mapping[str, Any]) -> dict[str, Any]:
    """Outputs of the model at ``place``; errors speak of ``path``. Raises ``Unsupported`` with ONNX Runtime's reason."""
    try:
        return open_model(place, {}, 1).run(feed)
    except RuntimeFault as fault:
        raise Unsupported(f"{path.name} in ONNX Runtime", fault.message[:400], "Export it again") from fault
    except Exception as exc:  # onnxruntime's exceptions derive from Exception alone
        raise Unsupported(f"{path.name} in ONNX Runtime", _short(exc), "Replace what it names") from exc


def _short(exc: BaseException) -> str:
    return next((line.strip() for line in str(exc).splitlines() if line.strip()), type(exc).__name__)[:300]
