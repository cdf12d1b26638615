"""What is done to a user's ONNX file to make a clean copy. Only for the process with limits (:mod:`.take_in_child`).

In the copy every node has a name, weights are not inputs, functions are written out, what is decided by constants is
folded, the exporter's metadata is gone, and the operator set can express int8 with a scale per channel. Original and copy
are run to show that they compute the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.errors import DataError, Unsupported
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import TensorSpec, random_feed
from edgedeploy.reference.flow import GIVE_LISTS, UNSHAPED, fold, has_flow, unshaped
from edgedeploy.reference.foreign import load, name_all, nodes_of
from edgedeploy.reference.given import computes_doubles, quantized_by
from edgedeploy.reference.graph import RANDOM_OPERATORS, strip_metadata
from edgedeploy.reference.safety_child import outline
from edgedeploy.reference.signature import check_array, fix_shapes, fix_values, spec_of
from edgedeploy.reference.take_in import TakenIn

LOWEST_OPSET: Final = 13
"""The first operator set whose QuantizeLinear has a scale per channel; older files are converted to it."""

PLAIN_IR_VERSION: Final = 10
"""The IR version that the copy is written in where the file's own is newer: boards' runtimes read it."""

KEPT_BYTES: Final = 64 << 20
"""An original up to this size stays in memory beside its copy; a larger one is read again to be compared with it."""

SAME: Final = 1e-4
"""Largest relative L2 distance between the original and the copy, per output."""

DOMAINS: Final = ("", "ai.onnx", "com.microsoft")


def clean(
    path: Path,
    shapes: Mapping[str, Sequence[int]],
    constants: Mapping[str, Any],
    *,
    file_bytes: int,
    tensor_bytes: int,
) -> TakenIn:
    """See :func:`edgedeploy.reference.take_in.take_in`."""
    import onnx

    model, notes, sha256 = _loaded(path, file_bytes, tensor_bytes)
    original = model.SerializeToString() if model.ByteSize() <= KEPT_BYTES else None
    del model.training_info[:]
    model = _written_out(path, model)
    _check_operators(path, model)
    notes += _as_caller_sees_it(path, model)
    fixed = fix_values(path, model, constants)
    notes += [f"input {name} is the constant {value.tolist()}" for name, value in fixed.items()]
    notes += fix_shapes(path, model, shapes)
    given = quantized_by(model)
    if not given:  # a lifted or folded copy would not be the file as it is
        notes += _convert(path, model)
    if has_flow(model) and not given:
        model = fold(model)
    try:
        model = _close(path, _tidy(model))
        if has_flow(model) and not given:  # shapes that two runs told decide some of it
            model = _close(path, _tidy(fold(model)))
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        raise DataError(f"model {path.name}", f"it is not valid ONNX ({_short(exc)})", "Export it again") from exc
    inputs = tuple(spec_of(path, value) for value in model.graph.input)
    outputs = tuple(spec_of(path, value) for value in model.graph.output)
    data: bytes = model.SerializeToString()
    as_given = given or computes_doubles(model)
    del model  # two sessions follow, each of which has the weights twice
    if original is None:
        again, _, found = _loaded(path, file_bytes, tensor_bytes)
        if found != sha256:
            raise DataError(f"model {path.name}", "it changed while it was read", "Try it again when it is whole")
        original = again.SerializeToString()
        del again
    _prove(path, original, data, fixed, (inputs, outputs))
    return TakenIn(data, sha256, inputs, outputs, tuple(notes), as_given)


def _loaded(path: Path, file_bytes: int, tensor_bytes: int) -> tuple[Any, list[str], str]:
    """The model as a runtime reads it, what was changed for that, and the file's SHA-256."""
    model, sha256 = load(path, file_bytes, tensor_bytes)
    notes = _readable(path, model)
    name_all(model.graph)  # a runtime refuses two nodes of one name
    return model, notes, sha256


def _readable(path: Path, model: Any) -> list[str]:
    """Lower the IR version to one that runtimes read: operators are told by their operator set, not by it."""
    import onnx

    found = model.ir_version
    if found > onnx.IR_VERSION:
        raise Unsupported(
            f"{path.name} of IR version {found}",
            f"onnx {onnx.__version__} reads up to {onnx.IR_VERSION}",
            "pip install -U onnx onnxruntime, or export it for an older version",
        )
    model.ir_version = min(max(found, 7), PLAIN_IR_VERSION)
    return [f"IR version {found} is written as {PLAIN_IR_VERSION}"] if found > PLAIN_IR_VERSION else []


def _written_out(path: Path, model: Any) -> Any:
    """The model with its functions in the place of their calls."""
    import onnx.inliner

    if not model.functions:
        return model
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as exc:  # bare RuntimeError, such as for a function that calls itself
        raise DataError(
            f"model {path.name}", f"its functions cannot be read ({_short(exc)})", "Export it again"
        ) from exc


def _check_operators(path: Path, model: Any) -> None:
    true = {item.name for item in model.graph.initializer if item.data_type == item.BOOL and _any(item)}
    for node in nodes_of(model.graph):
        where = f"of node {node.name or next(iter(node.output), '')!r} in {path.name}"
        if node.domain not in DOMAINS:
            raise Unsupported(
                f"operator {node.domain}.{node.op_type} {where}",
                "it is a custom operator",
                "Export the model with standard ONNX operators",
            )
        if node.op_type in RANDOM_OPERATORS:
            raise Unsupported(f"operator {node.op_type} {where}", "it draws random numbers", "Export it without them")
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            held = node.attribute[0].t
            true |= set(node.output) if held.data_type == held.BOOL and _any(held) else set()
        if _trains(node, true):
            raise Unsupported(
                f"operator {node.op_type} {where}", "the file was exported in training mode", "Export model.eval()"
            )


def _any(tensor: Any) -> bool:
    import onnx

    return bool(np.any(onnx.numpy_helper.to_array(tensor)))


def _trains(node: Any, true: set[str]) -> bool:
    if node.op_type == "BatchNormalization":
        mode = any(item.name == "training_mode" and item.i for item in node.attribute)
        return mode or sum(map(bool, node.output)) > 1
    return node.op_type == "Dropout" and len(node.input) > 2 and node.input[2] in true


def _as_caller_sees_it(path: Path, model: Any) -> list[str]:
    """Remove weights from the inputs, where older files also list them: runtimes do not fold what a caller could
    replace. An output that is an input or a weight itself gets a node of its own."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    found = len(model.graph.input) - len(inputs)
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for side, values in (("inputs", model.graph.input), ("outputs", model.graph.output)):
        names = [value.name for value in values]
        if not names or "" in names or len(set(names)) < len(names):
            asked = f"{side} of {path.name}, each with a name of its own"
            raise Unsupported(asked, ", ".join(map(repr, names)) or "it has none", "Export it with named tensors")
    for value in (*model.graph.input, *model.graph.output):
        check_array(path, value)
    used = {name for node in nodes_of(model.graph) for name in node.input}
    used |= {value.name for value in model.graph.output}
    used |= {name for node in nodes_of(model.graph) for name in _captured(node)}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
        model.graph.initializer.remove(tensor)
    return [f"{found} weights were listed as inputs and are constants now"] if found else []


def _captured(node: Any) -> list[str]:
    """Outputs of graphs inside a node: they may name a tensor of the graph around it."""
    return [value.name for item in node.attribute if item.HasField("g") for value in item.g.output]


def _convert(path: Path, model: Any) -> list[str]:
    import onnx

    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
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


def _tidy(model: Any) -> Any:
    """Name every node, because plans and findings name layers, and remove the exporter's metadata."""
    name_all(model.graph)
    strip_metadata(model)
    model.graph.name = model.graph.name or "graph"
    return model


def _close(path: Path, model: Any) -> Any:
    """The model with the shape of every tensor recorded. Shapes that inference cannot tell are taken from two runs.

    Raises ``Unsupported`` naming an operator whose output shape depends on values.
    """
    import onnx

    told = {"check_type": True, "strict_mode": True, "data_prop": True}
    if has_flow(model):
        model = onnx.shape_inference.infer_shapes(model, **told)
    else:
        inferred = onnx.shape_inference.infer_shapes(outline(model), **told)
        for field in ("value_info", "output"):
            model.graph.ClearField(field)
            getattr(model.graph, field).extend(getattr(inferred.graph, field))
    known = {tensor.name for tensor in model.graph.initializer}
    known |= {
        value.name for value in (*model.graph.input, *model.graph.value_info, *model.graph.output) if _fixed(value)
    }
    open_now = {name: node for node in model.graph.node for name in node.output if name and name not in known}
    if not open_now:
        return model
    by_value = unshaped(model.graph)
    for name, node in open_now.items():
        if node.op_type in GIVE_LISTS:
            raise _listed(path, name, node)
        if node.op_type in UNSHAPED or name in by_value:
            raise _unshaped(path, name, node)
    outputs = {value.name for value in model.graph.output}
    probe = onnx.ModelProto.FromString(model.SerializeToString())
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in open_now if name not in outputs)
    specs = tuple(spec_of(path, value) for value in model.graph.input)
    data = probe.SerializeToString()
    first, second = (_run(path, data, random_feed(specs, seed), plain=True) for seed in (1, 2))
    stale = [value for value in model.graph.value_info if value.name not in open_now]
    del model.graph.value_info[:]
    model.graph.value_info.extend(stale)
    for name, node in open_now.items():
        if not isinstance(first[name], np.ndarray):
            raise _listed(path, name, node)
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
    remedy = "Export the model without this operator (often post-processing such as non-maximum suppression)"
    if node.op_type == "If":
        remedy = (
            "If an input chooses the network, such as a sample rate, fix it in the study: constants = { sr = 16000 } in "
            "[task.options]; otherwise export the model without this operator"
        )
    return Unsupported(
        f"tensor {name!r} of {path.name} with one shape",
        f"the shape that operator {node.op_type} ({node.name}) gives depends on values",
        remedy,
    )


def _listed(path: Path, name: str, node: Any) -> Unsupported:
    found = f"operator {node.op_type} ({node.name}) gives a list of arrays"
    return Unsupported(f"tensor {name!r} of {path.name} as an array", found, "Export it without sequences")


def _prove(
    path: Path,
    original: bytes,
    copy: bytes,
    fixed: Mapping[str, Array],
    specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]],
) -> None:
    """Run the original and the copy on one seeded input. Raises ``Unsupported`` for what ONNX Runtime cannot run."""
    inputs, outputs = specs
    feed = random_feed(inputs, 0)
    found = [_run(path, original, {**feed, **fixed}), _run(path, copy, feed)]
    for spec in outputs:
        first, ours = (np.asarray(values[spec.name], np.float64) for values in found)
        if tuple(ours.shape) != spec.shape:
            raise Unsupported(
                f"output {spec.name!r} of {path.name} as {spec.shape}", f"{ours.shape}", "Export it with fixed shapes"
            )
        finite = np.isfinite(first)  # made-up inputs may be none of the model's: the user's cases decide about NaN
        distance = float(np.linalg.norm(ours[finite] - first[finite]))
        if not distance <= SAME * float(np.linalg.norm(first[finite])) + 1e-6:
            raise Unsupported(
                f"output {spec.name!r} of {path.name} after conversion",
                f"it is {distance:.3g} away from the original",
                f"Export the model with operator set {LOWEST_OPSET} or newer",
            )


def _run(path: Path, data: bytes, feed: Mapping[str, Any], *, plain: bool = False) -> dict[str, Any]:
    """Outputs of a model; ``plain`` without optimisations. Raises ``Unsupported`` with ONNX Runtime's reason."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_prepacking", "1")  # a third copy of the weights, for one run
    if plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        names = [item.name for item in session.get_outputs()]
        taken = {item.name for item in session.get_inputs()}
        values = session.run(names, {name: value for name, value in feed.items() if name in taken})
    except Exception as exc:  # onnxruntime's exceptions derive from Exception alone
        raise Unsupported(f"{path.name} in ONNX Runtime", _short(exc), "Replace what it names") from exc
    return dict(zip(names, values, strict=True))


def _short(exc: BaseException) -> str:
    return next((line.strip() for line in str(exc).splitlines() if line.strip()), type(exc).__name__)[:300]
