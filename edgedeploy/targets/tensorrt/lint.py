"""Checks an ONNX file against the rules of one TensorRT release, without TensorRT."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.reference.layers import WEIGHTED_OPERATORS
from edgedeploy.reference.safety import check_onnx
from edgedeploy.targets.tensorrt.graphview import QDQ, GraphView, attribute, label
from edgedeploy.targets.tensorrt.rules import OPSET_LIMITS, RULES, Rule, Severity
from edgedeploy.targets.tensorrt.version import TrtVersion

SHOWN: Final = 5
"""A finding names at most this many places and counts the others."""


@dataclass(frozen=True)
class Finding:
    """One broken rule, with the places."""

    rule: str
    severity: Severity
    where: tuple[str, ...]
    text: str
    remedy: str
    source: str

    def as_json(self) -> dict[str, Any]:
        return {
            "rule": self.rule,
            "severity": self.severity,
            "where": list(self.where[:SHOWN]),
            "places": len(self.where),
            "text": self.text,
            "remedy": self.remedy,
            "source": self.source,
        }

    def __str__(self) -> str:
        more = f" and {len(self.where) - SHOWN} more" if len(self.where) > SHOWN else ""
        return f"{self.rule}: {', '.join(self.where[:SHOWN])}{more}: {self.text} ({self.source})"


@dataclass(frozen=True)
class Platform:
    """The platform that the rules depend on. ``compute_capability`` is a number such as ``8.7``, None for an unknown
    board."""

    version: TrtVersion
    precision: str
    dla: bool = False
    compute_capability: str | None = None


@dataclass(frozen=True)
class LintResult:
    platform: Platform
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def as_json(self) -> dict[str, Any]:
        return {
            "tensorrt": str(self.platform.version),
            "dla": self.platform.dla,
            "accepted": not self.errors,
            "findings": [finding.as_json() for finding in self.findings],
        }


def lint_file(path: Path, platform: Platform) -> LintResult:
    """Raises ``DataError`` for a file that is no ONNX model or may not be loaded."""
    check_onnx(path)
    return lint(GraphView.open(path), platform)


def lint(view: GraphView, platform: Platform, rules: Sequence[Rule] = RULES) -> LintResult:
    findings = []
    for rule in rules:
        if rule.holds_for(platform.version, platform.dla):
            where = tuple(FINDERS[rule.finder](view, platform, rule.arguments))
            if where:
                findings.append(Finding(rule.id, rule.severity, where, rule.text, rule.remedy, rule.source))
    return LintResult(platform, tuple(findings))


def newest_opset(version: TrtVersion) -> int:
    return max(opset for since, opset, _ in OPSET_LIMITS if since <= version)


Arguments = Mapping[str, Any]
Finder = Callable[[GraphView, Platform, Arguments], Iterator[str]]


def _zero_point_type(view: GraphView, platform: Platform, given: Arguments) -> Iterator[str]:
    for node in view.quantizers:
        tensor = view.constants.get(node.input[2]) if len(node.input) > 2 else None
        kind = "UINT8" if tensor is None and node.op_type == "QuantizeLinear" and not _typed(node) else None
        kind = _type_name(tensor.data_type) if tensor is not None else kind
        if kind in given["types"]:
            yield label(node)


def _typed(node: Any) -> bool:
    """Whether a quantizer has a zero point or states its type; without either, ONNX uses uint8."""
    return bool(attribute(node, "output_dtype"))


def _zero_point_value(view: GraphView, platform: Platform, given: Arguments) -> Iterator[str]:
    for node in view.quantizers:
        value = view.array(node.input[2]) if len(node.input) > 2 else None
        if value is not None and np.any(value != 0):
            yield label(node)


def _scale_value(view: GraphView, platform: Platform, given: Arguments) -> Iterator[str]:
    for node in view.quantizers:
        value = view.array(node.input[1])
        if value is None or not np.isfinite(value).all() or (value.astype(np.float64) <= 0).any():
            yield label(node)


def _dequantized_type(view: GraphView, platform: Platform, given: Arguments) -> Iterator[str]:
    for node in view.quantizers:
        tensor = view.constants.get(node.input[0])
        if node.op_type == "DequantizeLinear" and tensor is not None and _type_name(tensor.data_type) in given["types"]:
            yield label(node)


def _folded_weights(view: GraphView, platform: Platform, given: Arguments) -> Iterator[str]:
    for node in view.nodes:
        place = 1 if node.op_type in QDQ else len(node.input)  # scales and zero points are constants by right
        for name in node.input[:place]:
            tensor = view.constants.get(name)
            if tensor is not None and _type_name(tensor.data_type) == "INT8":
                yield label(node)


def _int8_hardware(view: GraphView, platform: Platform, given: Arguments) -> Iterator[str]:
    if view.quantizers and platform.compute_capability in given["lacking"]:
        yield f"compute capability {platform.compute_capability}"


def _type_hardware(view: GraphView, platform: Platform, given: Arguments) -> Iterator[str]:
    if platform.compute_capability in given["lacking"] and any(_constant_type(view, platform, given)):
        yield f"compute capability {platform.compute_capability}"


def _mixed_weights(view: GraphView, platform: Platform, given: Arguments) -> Iterator[str]:
    """Float weights whose type differs from the one that the precision flag gives to all weights."""
    own = "FLOAT16" if platform.precision == "float16" else "FLOAT"
    for node in view.nodes:
        tensor = view.constants.get(node.input[1]) if node.op_type in WEIGHTED_OPERATORS else None
        if tensor is not None and _type_name(tensor.data_type) in {"FLOAT", "FLOAT16", "BFLOAT16"} - {own}:
            yield f"{label(node)} ({_type_name(tensor.data_type)})"


def _any_quantizer(view: GraphView, platform: Platform, given: Arguments) -> Iterator[str]:
    return (label(node) for node in view.quantizers)


def _open_dimension(view: GraphView, platform: Platform, given: Arguments) -> Iterator[str]:
    for value in (*view.model.graph.input, *view.model.graph.output):
        if any(not dimension.HasField("dim_value") for dimension in value.type.tensor_type.shape.dim):
            yield value.name


def _opset_above_limit(view: GraphView, platform: Platform, given: Arguments) -> Iterator[str]:
    limit = newest_opset(platform.version)
    if view.opset > limit:
        yield f"opset {view.opset} (TensorRT {platform.version} reads up to {limit})"


def _opset_below(view: GraphView, platform: Platform, given: Arguments) -> Iterator[str]:
    if view.opset < given["oldest"]:
        yield f"opset {view.opset}"


def _operators(view: GraphView, platform: Platform, given: Arguments) -> Iterator[str]:
    return (label(node) for node in view.nodes if _standard(node) and node.op_type in given["names"])


def _operators_outside(view: GraphView, platform: Platform, given: Arguments) -> Iterator[str]:
    known = (*given["names"], "Constant", "Identity", *QDQ)
    return (label(node) for node in view.nodes if node.op_type not in known)


def _foreign_domain(view: GraphView, platform: Platform, given: Arguments) -> Iterator[str]:
    return (f"{label(node)} of {node.domain}" for node in view.nodes if not _standard(node))


def _standard(node: Any) -> bool:
    return node.domain in ("", "ai.onnx")


def _resize_mode(view: GraphView, platform: Platform, given: Arguments) -> Iterator[str]:
    for node in view.nodes:
        if node.op_type == "Resize":
            mode = attribute(node, "mode") or "nearest"
            if mode not in given["modes"] or attribute(node, "antialias"):
                yield f"{label(node)} ({mode})"


def _bilinear_not_half_pixel(view: GraphView, platform: Platform, given: Arguments) -> Iterator[str]:
    for node in view.nodes:
        if node.op_type == "Resize" and attribute(node, "mode") == "linear":
            coordinates = attribute(node, "coordinate_transformation_mode") or "half_pixel"
            if coordinates != "half_pixel":
                yield f"{label(node)} ({coordinates})"


def _second_output(view: GraphView, platform: Platform, given: Arguments) -> Iterator[str]:
    for node in view.nodes:
        if node.op_type in given["names"] and len(node.output) > 1 and node.output[1]:
            yield label(node)


def _dilated(view: GraphView, platform: Platform, given: Arguments) -> Iterator[str]:
    for node in view.nodes:
        if node.op_type in given["names"] and any(step != 1 for step in attribute(node, "dilations") or ()):
            yield label(node)


def _constant_type(view: GraphView, platform: Platform, given: Arguments) -> Iterator[str]:
    return (name for name, tensor in view.constants.items() if _type_name(tensor.data_type) in given["types"])


def _always(view: GraphView, platform: Platform, given: Arguments) -> Iterator[str]:
    yield f"TensorRT {platform.version}"


def _precision_outside(view: GraphView, platform: Platform, given: Arguments) -> Iterator[str]:
    if platform.precision not in given["precisions"]:
        yield platform.precision


def _dimension_above(view: GraphView, platform: Platform, given: Arguments) -> Iterator[str]:
    for value in view.values:
        dims = [int(dimension.dim_value) for dimension in value.type.tensor_type.shape.dim]
        if any(size > given["largest"] for size in dims[1:]):
            yield f"{value.name} {tuple(dims)}"


def _batch_above(view: GraphView, platform: Platform, given: Arguments) -> Iterator[str]:
    for value in view.values:
        dims = [int(dimension.dim_value) for dimension in value.type.tensor_type.shape.dim]
        if math.prod(dims[:-3] or dims[:1]) > given["largest"]:
            yield f"{value.name} {tuple(dims)}"


def _type_name(code: int) -> str:
    import onnx

    return str(onnx.TensorProto.DataType.Name(code))


FINDERS: Final[Mapping[str, Finder]] = {
    "always": _always,
    "any_quantizer": _any_quantizer,
    "batch_above": _batch_above,
    "bilinear_not_half_pixel": _bilinear_not_half_pixel,
    "constant_type": _constant_type,
    "dequantized_type": _dequantized_type,
    "dilated": _dilated,
    "dimension_above": _dimension_above,
    "folded_weights": _folded_weights,
    "foreign_domain": _foreign_domain,
    "int8_hardware": _int8_hardware,
    "mixed_weights": _mixed_weights,
    "open_dimension": _open_dimension,
    "operators": _operators,
    "operators_outside": _operators_outside,
    "opset_above_limit": _opset_above_limit,
    "opset_below": _opset_below,
    "precision_outside": _precision_outside,
    "resize_mode": _resize_mode,
    "scale_value": _scale_value,
    "second_output": _second_output,
    "type_hardware": _type_hardware,
    "zero_point_type": _zero_point_type,
    "zero_point_value": _zero_point_value,
}
"""The checks that a rule may name. A new limit of a known kind is one more line of data in :mod:`.rules`."""
