"""Float32, float16 and symmetric int8 ONNX that TensorRT takes, and single layers in one of these by a plan.

int8 by ONNX Runtime's quantizer: signed and symmetric, see :data:`edgedeploy.targets.onnxquant.SYMMETRIC`. Its defaults
(uint8 activations, int32 biases) are refused by TensorRT's parser. float16 is written into the file, inputs and outputs
stay float32: from 10.0 on the file's types decide, before that the flags that :mod:`.command` derives from them.

The exporter writes operator set 20, which JetPack 5 (TensorRT 8.5) does not read. So the reference is first converted
down to 17, where that can be done and changes no output; else its own operator set stays, and the lint says which boards
that costs. An older set than 13 has no scales per channel: for int8 it is converted up.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import BuildError, Unsupported
from edgedeploy.precision import CALIBRATED, Assignment, PrecisionPlan, assign
from edgedeploy.protocols import Array, BuildRequest
from edgedeploy.targets.common import check_outputs, first_feed, translated
from edgedeploy.targets.graph import opset_of
from edgedeploy.targets.layers import fused_from, layers_of, name_nodes
from edgedeploy.targets.onnxquant import write_narrow
from edgedeploy.targets.parity import compare, within
from edgedeploy.targets.reference import open_onnx, random_inputs
from edgedeploy.targets.tensorrt.graphview import QDQ, GraphView
from edgedeploy.targets.tensorrt.halving import halve

PRECISIONS: Final = ("float32", "float16", "int8")
LOWER_OPSET: Final = 17
PER_CHANNEL_OPSET: Final = 13
SAME_OUTPUT: Final = 1e-6
"""Largest relative L2 distance of a converted graph: the same operators in the same order, so the same numbers."""


def write_model(request: BuildRequest, path: Path) -> None:
    """Write the model of the asked precisions and run it once on the CPU. Raises ``Unsupported``, ``BuildError``,
    ``DataError``."""
    import onnx

    asked_for = (request.precision, *request.plan.precisions)
    for precision in asked_for:
        if precision not in PRECISIONS:
            raise Unsupported(f"precision {precision!r} for TensorRT", f"it has {', '.join(PRECISIONS)}", "Choose one")
    calibrated = any(name in CALIBRATED for name in asked_for)
    feed = first_feed(request) if calibrated else random_inputs(request.inputs)
    fitted = path.with_name("source.onnx")
    _fit_opset(request, PER_CHANNEL_OPSET if calibrated else 0, fitted)
    asked = replace(request, reference=fitted)
    source = onnx.load(str(fitted))
    assignment = assign(request.plan, layers_of(source), request.precision)
    wanted = set(assignment.precisions.values())
    if "int8" in wanted:
        write_narrow(asked, path, symmetric=True)
    else:
        shutil.copyfile(fitted, path)
    if "float16" in wanted:
        _halve(asked, source, assignment, path)
    fitted.unlink()
    _prove(path, request, feed)


def _fit_opset(request: BuildRequest, oldest: int, path: Path) -> None:
    """The reference with every node named, in an operator set from ``oldest`` to 17 when the converter can.

    The converter has no rule for some operators, and says so in exceptions of several kinds. What it makes is taken only
    when it answers a random input as the reference does.
    """
    import onnx

    session = open_onnx(request.reference, threads=1)  # names the operator that cannot be loaded
    with translated(f"{request.reference.name} as an ONNX model", "Export it again"):
        model = onnx.load(str(request.reference))
    name_nodes(model)  # before anything is converted: tensors may be renamed, and plans speak of these names
    fitting = min(max(opset_of(model), oldest), LOWER_OPSET)
    if opset_of(model) == fitting:
        onnx.save(model, str(path))
        return
    try:
        fitted = onnx.version_converter.convert_version(model, fitting)
        onnx.checker.check_model(fitted, full_check=True)
        onnx.save(fitted, str(path))
        feed = random_inputs(request.inputs)
        names = [spec.name for spec in request.outputs]
        wanted = dict(zip(names, session.run(names, feed), strict=True))
        found = dict(zip(names, open_onnx(path, threads=1).run(names, feed), strict=True))
        same = all(within(distance, SAME_OUTPUT) for distance in compare(wanted, found).values())
    except Exception:  # any failure means: keep the operator set that the file has
        same = False
    if not same:
        onnx.save(model, str(path))


def _halve(request: BuildRequest, source: Any, assignment: Assignment, path: Path) -> None:
    """Give the layers that are asked for in float16 that type, in the file at ``path``. ``source`` is the float32 model."""
    import onnx

    model = onnx.load(str(path))
    name_nodes(model)
    sources = fused_from(source, model)
    chosen = {
        node.name
        for node in model.graph.node
        if node.op_type not in QDQ and assignment.of(sources[node.name], request.precision) == "float16"
    }
    with translated("float16 for TensorRT", "Search float32 for this architecture"):
        view = GraphView(onnx.shape_inference.infer_shapes(model))
        halve(model, view.types, chosen, view.opset)
        onnx.save(model, str(path))
    _check_types(request.plan, assignment, sources, GraphView.open(path))


def _check_types(
    plan: PrecisionPlan, assignment: Assignment, sources: Mapping[str, tuple[str, ...]], view: GraphView
) -> None:
    """Hold the file's types against the plan. Raises ``Unsupported`` where a float16 rule changed nothing (some
    operators have no float16 form), ``BuildError`` where a wide layer became float16."""
    for rule in plan.rules:
        own = {name for name, by in assignment.rules.items() if by == rule}
        halved = [
            node.name
            for node in view.nodes
            if own & set(sources.get(node.name, ())) and view.types.get(node.output[0]) == "FLOAT16"
        ]
        asked = f"layer {rule.pattern!r} in {rule.precision}"
        if rule.precision == "float16" and not halved:
            raise Unsupported(asked, "it has no float16 form", "Choose other layers or another precision")
        if rule.precision != "float16" and halved:
            raise BuildError(asked, f"{halved[0]!r} was built in float16", "Report this: it is our mistake")


def _prove(path: Path, request: BuildRequest, feed: dict[str, Array]) -> None:
    """Run the file once in ONNX Runtime: not TensorRT, but a file that gives no numbers here gives none there."""
    session = open_onnx(path, threads=1)
    names = [output.name for output in session.get_outputs()]
    with translated(f"one inference of the {request.precision} model", "Try a wider precision", Unsupported):
        values = session.run(names, feed)
    check_outputs(f"the {request.precision} model", dict(zip(names, values, strict=True)), request.outputs)
