"""Which positions of its input each output of an ONNX graph is made of, along the spatial axes.

A graph is walked once, from the input to the outputs. Of every tensor is kept, for each spatial axis, the interval of input
positions that position ``p`` reads: ``stride * p + low`` to ``stride * p + high`` (:class:`Reach`), padding included. For a
window the interval is that of Araujo et al., "Computing Receptive Fields of Convolutional Neural Networks" (Distill, 2019),
with dilation; transposed convolutions and interpolation are its inverse, rounded outwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Final

from edgedeploy.errors import Unsupported
from edgedeploy.reference.reach import Fields, Reach, Spread

EXACT: Final = "tiles whose result equals the whole volume's"

_ROUNDING: Final = 1e-6
"""Of a scale that a file has in float32."""

_REMEDY: Final = "State the overlap in voxels, which approximates, or train the network with batch norm in its place"


@dataclass
class _Walk:
    """The state of one walk: shapes and constants of the graph, and what was found so far."""

    shapes: Mapping[str, tuple[int, ...]]
    constants: Mapping[str, Any]
    volume: tuple[int, ...]
    approximate: bool
    spreads: dict[str, Spread] = field(default_factory=dict)
    mixing: dict[str, str] = field(default_factory=dict)

    def spread_inputs(self, node: Any) -> list[tuple[str, Spread]]:
        return [(name, self.spreads[name]) for name in node.input if name in self.spreads]

    def constant(self, node: Any, place: int, what: str) -> list[Any]:
        name = node.input[place] if len(node.input) > place else ""
        if not name:
            return []
        if name not in self.constants:
            raise Unsupported(EXACT, f"{named(node)} computes its {what} at run time", "Export with fixed shapes")
        return list(self.constants[name].ravel().tolist())


def fields_of(model: Any, *, approximate: bool = False) -> Fields:
    """The fields of an ONNX model with static shapes, whose inputs all have (batch, channels, *spatial axes) of one size.

    With ``approximate`` an operator that looks at all positions at once (instance norm, global pooling) is passed by and
    named in ``mixing``; else it raises. Raises ``Unsupported`` with the operator's and the layer's name for what has no
    field: its place in the graph decides nothing then.
    """
    from onnx import numpy_helper, shape_inference

    graph = shape_inference.infer_shapes(model, strict_mode=True).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    shapes = {name: value.shape for name, value in constants.items()}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = tuple(int(size.dim_value) for size in value.type.tensor_type.shape.dim)
    given = [value.name for value in graph.input if value.name not in constants]
    walk = _Walk(shapes, constants, shapes[given[0]][2:] if given else (), approximate)
    walk.spreads.update({name: _whole(name, shapes) for name in given})
    for node in graph.node:
        _step(walk, node)
    outputs = {value.name: walk.spreads.get(value.name) for value in graph.output}
    lost = [name for name, spread in outputs.items() if spread is None or spread.flat]
    if lost:
        raise Unsupported(
            EXACT, f"output {lost[0]} has no spatial axes", "Tiles are for networks that answer each voxel"
        )
    told = {name: spread for name, spread in outputs.items() if spread is not None}
    return Fields(told, dict(walk.spreads), tuple(walk.mixing.values()))


def named(node: Any) -> str:
    """The operator and its layer, for people."""
    return f"{node.op_type} {node.name or node.output[0]}"


def _whole(name: str, shapes: Mapping[str, tuple[int, ...]]) -> Spread:
    rank = len(shapes[name])
    if rank < 3 or 0 in shapes[name]:
        found = f"input {name} has shape {shapes[name]}"
        raise Unsupported(EXACT, found, "Tiles need inputs of (batch, channels, spatial axes) with fixed sizes")
    return Spread(tuple(range(2, rank)), (Reach(),) * (rank - 2))


def _step(walk: _Walk, node: Any) -> None:
    """Enter what a node's outputs read."""
    given = walk.spread_inputs(node)
    if not given:
        if node.op_type == "Constant":
            _keep_constant(walk, node)
        return
    rule = _RULES.get(node.op_type, _through if node.op_type in _EACH_ALONE else None)
    flat = any(spread.flat for _, spread in given)
    if flat and node.op_type != "Reshape":
        rule = _in_between
    spread = _mixing(walk, node) if rule is None else rule(walk, node)
    if spread is not None:
        if not spread.flat:
            counts = (walk.shapes[node.output[0]][axis] for axis in spread.axes)
            places = zip(spread.reaches, walk.volume, counts, strict=True)
            spread = replace(spread, reaches=tuple(reach.there(whole, count) for reach, whole, count in places))
        walk.spreads.update({name: spread for name in node.output if name})


def _keep_constant(walk: _Walk, node: Any) -> None:
    from onnx import helper, numpy_helper

    for attribute in node.attribute:
        if attribute.name == "value":
            constants = dict(walk.constants)
            constants[node.output[0]] = numpy_helper.to_array(helper.get_attribute_value(attribute))
            walk.constants = constants


def _mixing(walk: _Walk, node: Any) -> Spread | None:
    """An operator that looks at all positions: the reason why no halo is enough."""
    found = f"{named(node)} looks at all positions of its input at once"
    if node.op_type not in _KNOWN_TO_MIX or not walk.approximate:
        if node.op_type not in _KNOWN_TO_MIX:
            found = f"{named(node)} is not known to answer each position from its neighbours"
        raise Unsupported(EXACT, found, _REMEDY)
    walk.mixing.setdefault(node.op_type, named(node))
    (name, spread), *_ = walk.spread_inputs(node)
    same = walk.shapes.get(node.output[0]) == walk.shapes[name]
    return spread if same else None  # one number a channel: a constant to what follows


def _in_between(walk: _Walk, node: Any) -> Spread:
    """Between two reshapes: the axes are merged, so what looks along them looks at all positions."""
    if not walk.approximate:
        raise Unsupported(EXACT, f"{named(node)} looks at all positions of its input at once", _REMEDY)
    if node.op_type in _KNOWN_TO_MIX:
        walk.mixing.setdefault(node.op_type, named(node))
    return walk.spread_inputs(node)[0][1]


def _reshape(walk: _Walk, node: Any) -> Spread:
    """The same shape, or axes that are merged and taken apart again (how group norm is exported)."""
    (name, spread), *_ = walk.spread_inputs(node)
    before, after = walk.shapes[name], walk.shapes[node.output[0]]
    if before == after:
        return spread
    if not spread.flat:
        return replace(spread, flat=tuple(before[axis] for axis in spread.axes))
    if len(after) == max(spread.axes) + 1 and tuple(after[axis] for axis in spread.axes) == spread.flat:
        return replace(spread, flat=())
    raise Unsupported(EXACT, f"{named(node)} moves positions", _REMEDY)


def _through(walk: _Walk, node: Any) -> Spread:
    """Each position alone, or together with the same one of other tensors."""
    (first, result), *others = walk.spread_inputs(node)
    for name, spread in others:
        if spread.axes != result.axes or any(
            mine.stride != theirs.stride for mine, theirs in zip(spread.reaches, result.reaches, strict=True)
        ):
            raise Unsupported(EXACT, f"{named(node)} joins {first} and {name} of different grids", _REMEDY)
        reaches = zip(result.reaches, spread.reaches, strict=True)
        result = replace(result, reaches=tuple(mine.joined(theirs) for mine, theirs in reaches))
    rank = len(walk.shapes[first])
    for name in node.input:
        shape = walk.shapes.get(name, ())
        if name in walk.spreads or not name or node.op_type not in _BROADCASTING:
            continue
        wide = [axis for axis in result.axes if axis - rank + len(shape) >= 0 and shape[axis - rank + len(shape)] != 1]
        if wide:
            raise Unsupported(EXACT, f"{named(node)} has a value of its own for each position", _REMEDY)
    return result


def _along_axis(walk: _Walk, node: Any) -> Spread | None:
    """Softmax, Concat, a reduction: along an axis that is not spatial."""
    result = _through(walk, node)
    rank = len(walk.shapes[walk.spread_inputs(node)[0][0]])
    axes = _axes_of(walk, node, rank)
    if any(axis in result.axes for axis in axes):
        return _mixing(walk, node)
    if len(walk.shapes[node.output[0]]) != rank:
        gone = [axis for axis in axes if axis < min(result.axes)]
        result = replace(result, axes=tuple(axis - len(gone) for axis in result.axes))
    return result


def _axes_of(walk: _Walk, node: Any, rank: int) -> list[int]:
    values: list[int] = []
    if "axis" in (found := attributes(node)):
        values = [found["axis"]]
    elif "axes" in found:
        values = list(found["axes"])
    elif node.op_type.startswith("Reduce"):
        values = [int(value) for value in walk.constant(node, 1, "axes")] or list(range(rank))
    else:
        values = [_DEFAULT_AXIS.get(node.op_type, 1)]
    if node.op_type == "LayerNormalization":
        values = list(range(values[0] % rank, rank))
    return [value % rank for value in values]


def _transpose(walk: _Walk, node: Any) -> Spread:
    (name, spread), *_ = walk.spread_inputs(node)
    order = attributes(node).get("perm") or list(range(len(walk.shapes[name])))[::-1]
    return replace(spread, axes=tuple(list(order).index(axis) for axis in spread.axes))


def _window(walk: _Walk, node: Any) -> Spread:
    """Convolution and pooling, forwards or transposed."""
    (_, spread), *rest = walk.spread_inputs(node)
    if rest or spread.axes != tuple(range(2, 2 + len(spread.axes))):
        raise Unsupported(EXACT, f"{named(node)} has weights that depend on the input", _REMEDY)
    found, count = attributes(node), len(spread.axes)
    kernel = found.get("kernel_shape") or walk.shapes[node.input[1]][2:]
    strides = found.get("strides") or [1] * count
    dilations = found.get("dilations") or [1] * count
    pads = _pads_before(node, found, kernel, strides, dilations, count)
    if node.op_type == "ConvTranspose" and "output_shape" in found:
        raise Unsupported(EXACT, f"{named(node)} states its output's shape", "Export it with pads in its place")
    rule = Reach.of_transposed if node.op_type == "ConvTranspose" else Reach.of_window
    settings = zip(spread.reaches, kernel, strides, dilations, pads, strict=True)
    return replace(spread, reaches=tuple(rule(*each) for each in settings))


def _pads_before(
    node: Any,
    found: Mapping[str, Any],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    count: int,
) -> list[int]:
    auto = found.get("auto_pad", b"NOTSET")
    if auto == b"NOTSET":
        return list(found.get("pads") or [0] * 2 * count)[:count]
    if auto == b"VALID":
        return [0] * count
    if any(stride != 1 for stride in strides) or node.op_type == "ConvTranspose":
        raise Unsupported(EXACT, f"{named(node)} pads by its input's size", "Export it with explicit pads")
    reach = [step * (size - 1) for size, step in zip(kernel, dilations, strict=True)]
    return [(value + (auto == b"SAME_LOWER")) // 2 for value in reach]


def _pad(walk: _Walk, node: Any) -> Spread:
    (name, spread), *_ = walk.spread_inputs(node)
    rank = len(walk.shapes[name])
    if attributes(node).get("mode") == b"wrap":
        raise Unsupported(EXACT, f"{named(node)} takes values from the other end", _REMEDY)
    listed = attributes(node).get("pads") or walk.constant(node, 1, "pads")
    axes = [int(axis) % rank for axis in walk.constant(node, 3, "axes")] or list(range(rank))
    before = dict(zip(axes, (int(value) for value in listed[: len(axes)]), strict=True))
    moved = zip(spread.axes, spread.reaches, strict=True)
    return replace(spread, reaches=tuple(reach.moved(-before.get(axis, 0)) for axis, reach in moved))


def _slice(walk: _Walk, node: Any) -> Spread:
    (name, spread), *_ = walk.spread_inputs(node)
    shape = walk.shapes[name]
    starts = [int(value) for value in walk.constant(node, 1, "starts")]
    axes = [int(value) % len(shape) for value in walk.constant(node, 3, "axes")] or list(range(len(starts)))
    steps = [int(value) for value in walk.constant(node, 4, "steps")] or [1] * len(starts)
    by_axis = {axis: (start, step) for axis, start, step in zip(axes, starts, steps, strict=True)}
    reaches = []
    for axis, reach in zip(spread.axes, spread.reaches, strict=True):
        start, step = by_axis.get(axis, (0, 1))
        whole = walk.shapes[node.output[0]][axis] == shape[axis]
        if step < 1 or (start < 0 and not whole):
            raise Unsupported(EXACT, f"{named(node)} counts from the end of a spatial axis", _REMEDY)
        moved = reach if whole else reach.moved(start)
        reaches.append(moved if whole else replace(moved, stride=moved.stride * step))
    return replace(spread, reaches=tuple(reaches))


def _product(walk: _Walk, node: Any) -> Spread | None:
    """A linear layer over channels that stand last, as in ConvNeXt; any other product looks at all positions."""
    (name, spread), *others = walk.spread_inputs(node)
    weights = walk.shapes.get(node.input[1], ())
    last = len(walk.shapes[name]) - 1
    if others or node.input[0] != name or len(weights) != 2 or last in spread.axes:
        return _mixing(walk, node)
    return spread


def _resize(walk: _Walk, node: Any) -> Spread:
    """By whole factors, finer only: nearest, linear or cubic."""
    (name, spread), *_ = walk.spread_inputs(node)
    found = attributes(node)
    how = found.get("mode", b"nearest")
    where = found.get("coordinate_transformation_mode", b"half_pixel" if node.op_type == "Resize" else b"asymmetric")
    given = [float(value) for value in walk.constant(node, 2, "scales")]
    scales = dict(zip(found.get("axes") or range(len(given)), given, strict=True))
    reaches = []
    for axis, reach in zip(spread.axes, spread.reaches, strict=True):
        factor = Fraction(walk.shapes[node.output[0]][axis], walk.shapes[name][axis])
        by = scales.get(axis, float(factor))
        drifts = abs(by - factor) > _ROUNDING * factor  # 2.02 gives 48 of 24 voxels, from places that 2 does not give
        if factor == 1 and not drifts:
            reaches.append(reach)
            continue
        fixed = where in (b"half_pixel", b"pytorch_half_pixel", b"asymmetric") and not drifts
        if factor.denominator != 1 or not (fixed or walk.approximate):
            said = f"by {by:g} with {where.decode()!r} coordinates"
            raise Unsupported(EXACT, f"{named(node)} interpolates {said}, which depend on the volume's size", _REMEDY)
        if not fixed:
            walk.mixing.setdefault("Resize", named(node))
        around = {b"nearest": 1, b"linear": 1, b"cubic": 2}[how]
        reaches.append(reach.of_finer(factor.numerator, around, where != b"asymmetric"))
    return replace(spread, reaches=tuple(reaches))


def attributes(node: Any) -> dict[str, Any]:
    """A node's attributes by name, as Python values."""
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


_BROADCASTING: Final = (
    *("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Mean", "Sum", "PRelu", "Where", "Mod", "And", "Or", "Equal"),
    *("Greater", "Less", "GreaterOrEqual", "LessOrEqual"),
)
_EACH_ALONE: Final = (
    *_BROADCASTING,
    *("Identity", "Dropout", "Cast", "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "Mish", "Swish", "HardSwish"),
    *("HardSigmoid", "Sigmoid", "Tanh", "Softplus", "Softsign", "ThresholdedRelu", "Clip", "Exp", "Log", "Sqrt", "Abs"),
    *("Neg", "Erf", "Reciprocal", "Floor", "Ceil", "Round", "Sign", "Not", "Sin", "Cos", "IsNaN"),
    *("BatchNormalization", "QuantizeLinear", "DequantizeLinear"),
)
_KNOWN_TO_MIX: Final = (
    *("InstanceNormalization", "GroupNormalization", "MeanVarianceNormalization", "LayerNormalization"),
    *("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "LpNormalization", "DynamicQuantizeLinear", "Softmax"),
    *("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL2", "MatMul", "Gemm", "Attention", "Flatten"),
)
_DEFAULT_AXIS: Final = {
    "Split": 0,
    "Softmax": -1,
    "LogSoftmax": -1,
    "Hardmax": -1,
    "LayerNormalization": -1,
    "ArgMax": 0,
    "ArgMin": 0,
}

_ALONG: Final = ("Softmax", "LogSoftmax", "Hardmax", "Concat", "Split", "ArgMax", "ArgMin", "LayerNormalization")
_REDUCING: Final = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL2")

_RULES: Final[Mapping[str, Callable[[_Walk, Any], Spread | None]]] = {
    **dict.fromkeys((*_ALONG, *_REDUCING), _along_axis),
    **dict.fromkeys(("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"), _window),
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Pad": _pad,
    "Slice": _slice,
    "Resize": _resize,
    "MatMul": _product,
}
