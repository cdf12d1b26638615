"""Volumes in tiles, from an ONNX graph: the plan that is exact by the graph's receptive field, the graph at the size of a
tile, and the memory that each takes.

A tile has the context that its kept answers read (:mod:`edgedeploy.reference.receptive`), and begins at a multiple of the
graph's total stride; where it touches the volume's border the network pads it as it pads the volume.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np

from edgedeploy.errors import Unsupported
from edgedeploy.reference.reach import Fields, Reach, Spread
from edgedeploy.reference.receptive import fields_of
from edgedeploy.runtime.pipeline.tiles import Piece, TiledOutput, Tiling

KEPT_BY_RUNTIMES: Final = 2.0
"""What a session takes of memory for a tile, over :func:`live_bytes`: blocks that allocators keep, scratch of convolutions.
The largest that were measured, rounded up (tiles of 110x146x146 and 120x152x152, Zen 4, 2026-11-29): MeshNet by OpenVINO
2026.4 1.96, a U-Net by ONNX Runtime 1.32 1.47."""

MOST_CUTS: Final = 16
"""Tiles along one axis that are considered where the tile's size is chosen."""

_IN_PLACE: Final = (
    "Relu",
    "LeakyRelu",
    "Clip",
    "Sigmoid",
    "Tanh",
    "Identity",
    "Dropout",
    "Reshape",
    "BatchNormalization",
)
"""What runtimes fuse into the operator before it, or compute where its input lies."""


@dataclass(frozen=True)
class TiledModel:
    """``model`` is the ONNX model of one tile, ``plan`` puts tiles together; ``halo`` are the voxels before and behind that
    an answer reads along each axis, ``mixing`` the operators for which the result is an approximation (empty: exact).
    ``peak_bytes`` is what a run takes beyond the runtime itself, predicted: the whole volume and answer, the weights, and
    the tensors of one tile that live at once."""

    model: Any
    plan: Tiling
    halo: tuple[tuple[int, int], ...]
    mixing: tuple[str, ...]
    peak_bytes: int


def tiled(model: Any, tile: Sequence[int], overlap: int | None = None) -> TiledModel:
    """``model`` (ONNX, static shapes, a volume in, a value for each voxel out) in tiles of ``tile`` voxels per axis.

    With ``overlap`` neighbours share that many voxels to each side in place of the exact context: faster, and an
    approximation. Raises ``Unsupported``: for an operator that looks at all positions, unless ``overlap`` is given; for
    sides that the network's strides do not divide, and for tiles that are smaller than their context.
    """
    return _tiled(model, fields_of(model, approximate=overlap is not None), tuple(tile), overlap)


def tiled_within(model: Any, limit_bytes: int, overlap: int | None = None) -> TiledModel:
    """:func:`tiled` with the tile that computes the fewest voxels of those whose predicted peak is at most ``limit_bytes``.
    Raises ``Unsupported`` where none is."""
    fields = fields_of(model, approximate=overlap is not None)
    volume = _sides(model)
    reaches = [_context(fields, axis, overlap) for axis in range(len(volume))]
    options = [
        list(_cuts(side, step, reach)) for side, step, reach in zip(volume, fields.alignment(), reaches, strict=True)
    ]
    live, fixed, whole = live_bytes(model), _fixed_bytes(model) + _io_bytes(model), math.prod(volume)
    found = []
    for choice in itertools.product(*options):
        voxels = math.prod(side for side, _ in choice)
        peak = fixed + round(KEPT_BY_RUNTIMES * live * voxels / whole)
        found.append((voxels * math.prod(count for _, count in choice), peak, tuple(side for side, _ in choice)))
    fitting = [each for each in found if each[1] <= limit_bytes]
    if not fitting:
        asked = f"tiles within {limit_bytes / 2**20:.0f} MiB"
        least = min(peak for _, peak, _ in found) / 2**20
        raise Unsupported(
            asked, f"the smallest tile takes {least:.0f} MiB", "Raise the limit, or state a smaller overlap"
        )
    return _tiled(model, fields, min(fitting)[2], overlap)


def _tiled(model: Any, fields: Fields, tile: tuple[int, ...], overlap: int | None) -> TiledModel:
    volume = _sides(model)
    if len(tile) != len(volume):
        found = f"the volume has {len(volume)} axes, the tile {len(tile)}"
        raise Unsupported("tiles", found, "Give one side, or one for each axis")
    sides = tuple(min(side, whole) for side, whole in zip(tile, volume, strict=True))
    origins = tuple(
        _origins(whole, side, step, _context(fields, axis, overlap))
        for axis, (whole, side, step) in enumerate(zip(volume, sides, fields.alignment(), strict=True))
    )
    outputs = {}
    shapes = {value.name: _shape(value) for value in model.graph.output}
    for name, spread in fields.outputs.items():
        reaches = [_context(fields, axis, overlap)[name] for axis in range(len(volume))]
        lengths = [shapes[name][axis] for axis in spread.axes]
        cut = zip(volume, sides, origins, reaches, lengths, strict=True)
        outputs[name] = TiledOutput(shapes[name], spread.axes, tuple(_pieces(*each) for each in cut))
    plan = Tiling(volume, sides, origins, outputs)
    small = at_size(model, fields, sides)
    peak = _fixed_bytes(model) + _io_bytes(model) + round(KEPT_BY_RUNTIMES * live_bytes(small))
    return TiledModel(small, plan, fields.halo(), fields.mixing, peak)


def _context(fields: Fields, axis: int, overlap: int | None) -> dict[str, Reach]:
    """What each output reads along ``axis``, or what ``overlap`` says in its place."""
    exact = {name: spread.reaches[axis] for name, spread in fields.outputs.items()}
    if overlap is None:
        return exact
    return {
        name: Reach(reach.stride, Fraction(-overlap), overlap + max(Fraction(0), reach.stride - 1))
        for name, reach in exact.items()
    }


def _first(reach: Reach, origin: int) -> int:
    """The first position of the answer for which a tile from ``origin`` has all context."""
    return 0 if origin == 0 else max(0, math.ceil((origin - reach.low) / reach.stride))


def _end(reach: Reach, origin: int, side: int, whole: int, length: int) -> int:
    """The position behind the last one for which the tile has all context."""
    if origin + side == whole:
        return length
    return math.floor((origin + side - 1 - reach.high) / reach.stride) + 1


def _origins(whole: int, side: int, step: int, reaches: Mapping[str, Reach]) -> tuple[int, ...]:
    """Where tiles begin along an axis: as far apart as their context lets them. Raises ``Unsupported``."""
    if side >= whole:
        return (0,)
    asked = f"tiles of {side} voxels along an axis of {whole}"
    if whole % step or side % step:
        raise Unsupported(asked, f"the network's strides come to {step}", f"Both have to be multiples of {step}")
    found = [0]
    while found[-1] + side < whole:
        reached = {name: _end(reach, found[-1], side, whole, whole) for name, reach in reaches.items()}
        nexts = range(whole - side, found[-1], -step)
        origin = next((at for at in nexts if all(_first(reaches[n], at) <= reached[n] for n in reaches)), None)
        if origin is None:
            least = math.ceil(max(reach.high - reach.low for reach in reaches.values())) + step
            least = -(-least // step) * step
            raise Unsupported(
                asked, f"an answer reads {least - step} voxels or more", f"Tiles of {least} or more have room"
            )
        found.append(origin)
    return tuple(found)


def _pieces(whole: int, side: int, origins: Sequence[int], reach: Reach, length: int) -> tuple[Piece, ...]:
    """What is kept of each tile: from where the one before ends to where its own context ends."""
    found, before = [], 0
    for origin in origins:
        stop = _end(reach, origin, side, whole, length)
        at = Fraction(origin) / reach.stride
        found.append(Piece(before, stop, int(at)))
        before = stop
    return tuple(found)


def _cuts(whole: int, step: int, reaches: Mapping[str, Reach]) -> Iterator[tuple[int, int]]:
    """The smallest tile for each number of tiles along an axis, with that number."""
    yield whole, 1
    if whole % step:
        return
    seen: dict[int, int] = {}
    for side in range(whole - step, 0, -step):
        try:
            count = len(_origins(whole, side, step, reaches))
        except Unsupported:
            break
        if count > MOST_CUTS:
            break
        seen[count] = side
    yield from ((side, count) for count, side in seen.items())


# -- the graph at another size


def at_size(model: Any, fields: Fields, sides: Sequence[int]) -> Any:
    """A copy of ``model`` whose inputs have ``sides`` along their spatial axes. Raises ``Unsupported`` for a graph that has
    its size written into it where that cannot be told from a constant."""
    import onnx

    volume = _sides(model)
    less = [whole - side for side, whole in zip(sides, volume, strict=True)]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    shapes = _all_shapes(model)
    for node in graph.node:
        if node.op_type in ("Reshape", "Resize") and node.output[0] in fields.tensors:
            _resize_constant(graph, node, fields, shapes, less)
    del graph.value_info[:]
    for value in graph.input:
        if value.name in fields.tensors:
            _set_sides(value, fields.tensors[value.name], less)
    for value in graph.output:
        _set_sides(value, fields.outputs[value.name], less)
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    asked, remedy = f"the network at {tuple(sides)} voxels", "Export it without fixed shapes inside"
    try:
        onnx.checker.check_model(copy, full_check=True)
    except Exception as exc:  # of several kinds, with the node that does not fit
        found = f"the graph has its size written into it: {str(exc).strip().splitlines()[-1]}"[:300]
        raise Unsupported(asked, found, remedy) from None
    _check_same_fields(copy, fields, asked, remedy)
    return copy


def _check_same_fields(model: Any, fields: Fields, asked: str, remedy: str) -> None:
    """A size inside that fits the tile by chance makes another network of it: one that interpolates by another factor."""
    found = fields_of(model, approximate=True).tensors
    others = [name for name, spread in fields.tensors.items() if found[name].reaches != spread.reaches]
    if others:
        raise Unsupported(asked, f"tensor {others[0]!r} is then made of other positions", remedy)


def _resize_constant(
    graph: Any, node: Any, fields: Fields, shapes: Mapping[str, tuple[int, ...]], less: Sequence[int]
) -> None:
    """A Reshape's or Resize's target in the size of the tile, as a constant of the node's own."""
    from onnx import numpy_helper

    place = 1 if node.op_type == "Reshape" else 3
    if len(node.input) <= place or not node.input[place]:
        return
    spread, wanted = fields.tensors[node.output[0]], [*shapes[node.output[0]]]
    if spread.flat:
        wanted[-1] = -1
    else:
        for axis, fewer in _fewer(spread, less):
            wanted[axis] -= fewer
    name = f"{node.output[0]}_tile_shape"
    graph.initializer.append(numpy_helper.from_array(np.array(wanted, np.int64), name))
    node.input[place] = name


def _fewer(spread: Spread, less: Sequence[int]) -> Iterator[tuple[int, int]]:
    """By axis of a tensor, how many positions fewer it has where the volume is ``less`` voxels shorter. Its borders are as
    wide as before, so this is no ratio."""
    for axis, reach, voxels in zip(spread.axes, spread.reaches, less, strict=True):
        yield axis, int(voxels / reach.stride)


def _set_sides(value: Any, spread: Spread, less: Sequence[int]) -> None:
    dims = value.type.tensor_type.shape.dim
    for axis, fewer in _fewer(spread, less):
        dims[axis].dim_value -= fewer


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(int(size.dim_value) for size in value.type.tensor_type.shape.dim)


def _all_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    import onnx

    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {value.name: _shape(value) for value in (*graph.input, *graph.value_info, *graph.output)}


def _sides(model: Any) -> tuple[int, ...]:
    """The spatial sides of the model's inputs. Raises ``Unsupported`` for inputs of different sides."""
    constants = {tensor.name for tensor in model.graph.initializer}
    found = {_shape(value)[2:] for value in model.graph.input if value.name not in constants}
    if len(found) != 1:
        raise Unsupported("tiles", f"inputs have the sides {sorted(found)}", "All inputs need one size")
    return found.pop()


# -- memory


def live_bytes(model: Any) -> int:
    """The most bytes of tensors that live at once when nodes run in the graph's order, each tensor until its last use;
    activations lie where their input did. The caller holds the inputs all the time, and gets outputs that are copies.
    Weights are not counted."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    sizes = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        item = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).itemsize
        sizes[value.name] = math.prod(_shape(value)) * item
    for tensor in graph.initializer:
        sizes.pop(tensor.name, None)
    last = {name: place for place, node in enumerate(graph.node) for name in node.input}
    last.update({value.name: len(graph.node) for value in graph.output})
    held = sum(sizes[value.name] for value in graph.input if value.name in sizes)
    alive: dict[str, int] = {}
    most = 2 * sum(sizes[value.name] for value in graph.output)
    for place, node in enumerate(graph.node):
        ending = [name for name in node.input if name in alive and last[name] == place]
        if node.op_type in _IN_PLACE and ending:
            del alive[ending[0]]
        alive.update({name: sizes[name] for name in node.output if name in sizes})
        most = max(most, sum(alive.values()))
        for name in ending:
            alive.pop(name, None)
    return int(held + most)


def _fixed_bytes(model: Any) -> int:
    return sum(tensor.ByteSize() for tensor in model.graph.initializer)


def _io_bytes(model: Any) -> int:
    """The whole volume and the whole answer."""
    import onnx

    constants = {tensor.name for tensor in model.graph.initializer}
    values = [value for value in (*model.graph.input, *model.graph.output) if value.name not in constants]
    kinds = [onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).itemsize for value in values]
    return sum(math.prod(_shape(value)) * size for value, size in zip(values, kinds, strict=True))
