"""Writes float32, 16-bit and symmetric int8 ONNX files for TensorRT; a plan may give single layers another precision.

int8 files are made by ONNX Runtime's quantizer: signed and symmetric, float weights per channel with their own Q and
DQ, float biases, one DQ per consumer. TensorRT's parser refuses ONNX Runtime's defaults (uint8 activations, int32
biases). Other precisions are written as types of the file, which decide from TensorRT 10.0 on; inputs and outputs stay
float32. A quantized reference is used unchanged.

The exporter writes operator set 20, which JetPack 5 (TensorRT 8.5) does not read, and old operator sets have no scales
per channel. The reference is therefore first converted down to 17 or up to 13. If that fails or changes an output, it
keeps its operator set, and the lint reports which boards refuse it.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import BuildError, Unsupported
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.interfaces.task import Array
from edgedeploy.records.precision import Assignment, assign
from edgedeploy.reference.export import open_onnx
from edgedeploy.reference.external import require_in_one_file
from edgedeploy.reference.graph import opset_of
from edgedeploy.reference.layers import WEIGHTED_OPERATORS, check_followed, fused_from, layers_of, name_nodes
from edgedeploy.reference.parity import compare, within
from edgedeploy.reference.translate import translated
from edgedeploy.targets.common import calibrates, check_outputs, first_feed, probe_feed
from edgedeploy.targets.onnxruntime.quantize import Scheme, eight_bits, narrow_nodes
from edgedeploy.targets.tensorrt.graphview import GraphView
from edgedeploy.targets.tensorrt.halves import HALVES, half_nodes, narrow_floats, nodes_in_halves, widened

_LOG: Final = logging.getLogger(__name__)

LOWER_OPSET: Final = 17
QDQ_OPSET: Final = 13
"""The first operator set with scales per channel."""

CONSTANT_WEIGHTS_IR: Final = 7
"""File format version. From version 4 on, weights need not be inputs; operator set 13 came with version 7."""

SAME_OUTPUT: Final = 1e-6
"""Largest relative L2 distance of a converted graph. It has the same operators in the same order, so nearly equal
values."""

SCHEME: Final = Scheme(
    signed=True,
    options={
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "AddQDQPairToWeight": True,
        "QuantizeBias": False,
        "DedicatedQDQPair": True,
    },
)


def write_model(request: BuildRequest, path: Path) -> None:
    """Write the model of the asked precision and plan, and run it once on the CPU. Raises ``Unsupported``, ``BuildError``,
    ``DataError``."""
    import onnx

    feed = first_feed(request) if calibrates(request) else probe_feed(request)
    lowered = path.with_name("source.onnx")
    _lower(request, lowered)
    source = onnx.load(str(lowered))
    name_nodes(source)
    if (
        request.quantized
    ):  # symmetric pairs already, checked when they were written: the rules say which releases take them
        model = source
    else:
        assignment = assign(request.plan, layers_of(source), request.precision)
        model = _narrow(replace(request, reference=lowered), source, assignment, path)
        _check_plan(request, source, assignment, model)
    onnx.save(model, str(path))
    lowered.unlink()
    _prove(model, path, request, feed)


def _lower(request: BuildRequest, path: Path) -> None:
    """The reference with its weights as constants, in an operator set from 13 to 17 if it can be converted.

    The converter raises exceptions of several kinds for operators that it does not support. Its result is used only
    when it gives the reference's outputs on a random input.
    """
    import onnx

    require_in_one_file(request.reference, "a file for TensorRT", "Leave out the target tensorrt")
    session = open_onnx(request.reference, threads=1)  # names the operator that cannot be loaded
    with translated(f"{request.reference.name} as an ONNX model", "Export it again"):
        model = onnx.load(str(request.reference))
    _constant_weights(model)
    onnx.save(model, str(path))
    wanted_opset = min(max(opset_of(model), QDQ_OPSET), LOWER_OPSET)
    if opset_of(model) == wanted_opset:
        return
    lowered = path.with_name("lowered.onnx")
    try:
        onnx.save(onnx.version_converter.convert_version(model, wanted_opset), str(lowered))
        onnx.checker.check_model(str(lowered), full_check=True)
        feed = probe_feed(request)
        names = [spec.name for spec in request.outputs]
        wanted = dict(zip(names, session.run(names, feed), strict=True))
        found = dict(zip(names, open_onnx(lowered, threads=1).run(names, feed), strict=True))
        if all(within(distance, SAME_OUTPUT) for distance in compare(wanted, found).values()):
            lowered.replace(path)
    except Exception:  # any failure means: keep the operator set that the file has
        _LOG.debug("%s stays in operator set %d", request.reference.name, opset_of(model), exc_info=True)
    lowered.unlink(missing_ok=True)


def _constant_weights(model: Any) -> None:
    """Make all weights constants and remove unused ones, in place. Old exporters also list weights as inputs, which a
    caller could set."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    used = {name for node in GraphView(model).nodes for name in node.input} | {value.name for value in graph.output}
    for field, kept in (
        (graph.input, [value for value in graph.input if value.name not in constants]),
        (graph.initializer, [tensor for tensor in graph.initializer if tensor.name in used]),
    ):
        copies = [type(item).FromString(item.SerializeToString()) for item in kept]
        del field[:]
        field.extend(copies)
    model.ir_version = max(model.ir_version, CONSTANT_WEIGHTS_IR)


def _narrow(request: BuildRequest, source: Any, assignment: Assignment, path: Path) -> Any:
    """``source`` with its int8 layers first, then its 16-bit ones."""
    import onnx

    wanted = set(assignment.precisions.values())
    halves = [name for name in HALVES if name in wanted]
    if len(halves) > 1:
        raise Unsupported("float16 and bfloat16 in one model", "the plan names both", "Choose one of them")
    model = onnx.ModelProto.FromString(source.SerializeToString())
    if "int8" in wanted:
        model = eight_bits(request, source, model, assignment, path.with_name("prepared.onnx"), SCHEME)
    for half in halves:
        name_nodes(model)
        given = _given(source, assignment, model, request.precision)
        with translated(f"{half} for TensorRT", "Search float32 for this architecture"):
            model = narrow_floats(model, half, {name for name, precision in given.items() if precision == half})
    return model


def _given(source: Any, assignment: Assignment, model: Any, base: str) -> dict[str, str]:
    """The precision assigned to each node of ``model``. Nodes are identified by their tensors or, at the model's
    outputs, where the quantizer renames the tensors, by their own names."""
    return {
        name: assignment.of(names or (name,), base) if names or name in assignment.precisions else base
        for name, names in fused_from(source, model).items()
    }


def _check_plan(request: BuildRequest, source: Any, assignment: Assignment, model: Any) -> None:
    """Raises ``Unsupported`` or ``BuildError`` when the file does not follow the plan."""
    narrow = {**narrow_nodes(model), **half_nodes(model)}
    sources = {
        name: names or ((name,) if name in assignment.precisions else ())
        for name, names in fused_from(source, model).items()
    }
    check_followed(request.plan, assignment, sources, narrow)
    weighted = {node.name: sources[node.name] for node in model.graph.node if node.op_type in WEIGHTED_OPERATORS}
    halved = nodes_in_halves(model)
    for rule in request.plan.rules:
        ruled = {name for name, by in assignment.rules.items() if by == rule}
        if rule.precision in HALVES and not any(ruled & set(sources[name]) for name in halved):
            asked = f"layer {rule.pattern!r} in {rule.precision}"
            raise Unsupported(asked, "it stays in float32 here", "Choose other layers or another precision")
        own = {name for name, by in assignment.rules.items() if by == rule and name in assignment.weighted}
        left = [name for name, names in weighted.items() if own & set(names) and narrow.get(name) != rule.precision]
        if rule.precision in HALVES and left:
            raise BuildError(
                f"layer {rule.pattern!r} in {rule.precision}", f"{left[0]!r} was left wide", "Remove the rule"
            )
    if request.precision == "int8" and "int8" not in narrow.values():
        raise Unsupported("int8 layers", "the model has no layer with constant weights", "Search float16 instead")


def _prove(model: Any, path: Path, request: BuildRequest, feed: dict[str, Array]) -> None:
    """Run the file once in ONNX Runtime. It is not TensorRT, but a file that fails here fails there too. A bfloat16
    file runs as float32 with its rounded weights, because ONNX Runtime has no bfloat16 kernels on CPUs."""
    import onnx

    proved = path
    if "bfloat16" in (request.precision, *request.plan.precisions):
        proved = path.with_name("widened.onnx")
        onnx.save(widened(model), str(proved))
    session = open_onnx(proved, threads=1, as_written=True)  # in float: int8 kernels of this host saturate on some CPUs
    names = [output.name for output in session.get_outputs()]
    with translated(f"one inference of the {request.precision} model", "Try a wider precision", Unsupported):
        values = session.run(names, feed)
    check_outputs(f"the {request.precision} model", dict(zip(names, values, strict=True)), request.outputs)
    if proved != path:
        proved.unlink()
