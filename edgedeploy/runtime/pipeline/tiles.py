"""A volume in tiles: cut out with the context that each needs, run one after the other, put together.

The plan is data: where tiles begin along each axis, and which part of each tile's answer is kept. It is made on the host
from the network's graph, travels with the artifact, and is held to cover every voxel of the answer once before anything
runs. Uses numpy only.
"""

from __future__ import annotations

import itertools
import json
import math
import typing
from dataclasses import dataclass
from typing import Any, Callable, Iterator

from edgedeploy.runtime.pipeline.numpy_later import np

Feeds = typing.Mapping[str, Any]  # before Python 3.9 that of collections.abc takes no types

SETTING = "edgedeploy.tiles"
"""Name under which an artifact's settings name the file that has the plan."""

MOST_TEXT_BYTES = 8 << 20
MOST_TILES = 100_000
MOST_VOXELS = 1 << 34
FIRST_AXIS = 2
"""Inputs are (batch, channels, spatial axes)."""


class TileError(ValueError):
    """A plan that is none, or a volume that it was not made for."""


class Piece(typing.NamedTuple):
    """What is kept of one tile's answer along one axis: positions ``start`` to ``stop`` (not included) of the whole answer;
    the tile's answer begins at position ``at`` of it."""

    start: int
    stop: int
    at: int


@dataclass(frozen=True)
class TiledOutput:
    """An output: ``shape`` of the whole answer, and of each of its spatial ``axes`` the piece of each tile."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    pieces: tuple[tuple[Piece, ...], ...]


@dataclass(frozen=True)
class Tiling:
    """A plan: sides of the ``volume`` and of a ``tile`` in voxels, where tiles begin along each axis (``origins``), and the
    ``outputs`` by name."""

    volume: tuple[int, ...]
    tile: tuple[int, ...]
    origins: tuple[tuple[int, ...], ...]
    outputs: typing.Mapping[str, TiledOutput]

    def __post_init__(self) -> None:
        _check(self)

    @property
    def count(self) -> int:
        """Tiles in all."""
        return math.prod(len(starts) for starts in self.origins)

    @property
    def work(self) -> float:
        """Voxels that are computed, over those of the volume."""
        return self.count * math.prod(self.tile) / math.prod(self.volume)

    def places(self) -> Iterator[tuple[int, ...]]:
        """The number of each tile along each axis, the last axis first."""
        return itertools.product(*(range(len(starts)) for starts in self.origins))

    def as_text(self) -> str:
        outputs = {
            name: {
                "shape": list(each.shape),
                "axes": list(each.axes),
                "pieces": [[list(p) for p in a] for a in each.pieces],
            }
            for name, each in self.outputs.items()
        }
        plain = {"volume": self.volume, "tile": self.tile, "origins": self.origins, "outputs": outputs}
        return json.dumps(plain, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Tiling:
        """Raises :class:`TileError` for a plan that cannot be one."""
        try:
            data = json.loads(text)
            outputs = {
                str(name): TiledOutput(
                    _whole_numbers(each["shape"]),
                    _whole_numbers(each["axes"]),
                    tuple(tuple(Piece(*_whole_numbers(piece)) for piece in axis) for axis in each["pieces"]),
                )
                for name, each in data["outputs"].items()
            }
            origins = tuple(_whole_numbers(starts) for starts in data["origins"])
            return cls(_whole_numbers(data["volume"]), _whole_numbers(data["tile"]), origins, outputs)
        except TileError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise TileError(f"a plan of tiles is damaged ({type(exc).__name__})") from None


def _whole_numbers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or any(type(value) is not int for value in values):
        raise TileError(f"a plan of tiles has whole numbers, but got {values!r}"[:160])
    return tuple(values)


def _check(plan: Tiling) -> None:
    """Raises :class:`TileError` unless tiles lie in the volume, and their pieces in them cover each output once."""
    axes = len(plan.volume)
    if not 1 <= axes <= 3 or len(plan.tile) != axes or len(plan.origins) != axes or not plan.outputs:
        raise TileError(f"a plan of tiles has 1 to 3 axes and an output, but got {plan.volume}, {plan.tile}")
    if not 0 < math.prod(plan.volume) <= MOST_VOXELS or not 0 < plan.count <= MOST_TILES or min(plan.volume) < 1:
        raise TileError(f"at most {MOST_VOXELS} voxels in {MOST_TILES} tiles, but got {plan.volume} in {plan.count}")
    for side, tile, starts in zip(plan.volume, plan.tile, plan.origins):
        if tile < 1 or any(not 0 <= start <= side - tile for start in starts):
            raise TileError(f"tiles of {tile} voxels begin at {starts[:4]} of {side}")
    for name, output in plan.outputs.items():
        _check_output(name, output, plan)


def _check_output(name: str, output: TiledOutput, plan: Tiling) -> None:
    whole = len(output.axes) == len(output.pieces) == len(plan.volume)
    if not whole or any(not 0 <= axis < len(output.shape) for axis in output.axes) or min(output.shape) < 1:
        raise TileError(f"output {name!r} of shape {output.shape} has axes {output.axes}")
    if math.prod(output.shape) > MOST_VOXELS:
        raise TileError(f"output {name!r} of shape {output.shape} is too large")
    for axis, pieces, starts in zip(output.axes, output.pieces, plan.origins):
        ends = [0, *(piece.stop for piece in pieces)]
        if len(pieces) != len(starts) or ends[-1] != output.shape[axis]:
            raise TileError(f"output {name!r}: {len(pieces)} pieces to {ends[-1]} of {output.shape[axis]}")
        for before, piece in zip(ends, pieces):
            if piece.start != before or piece.stop <= piece.start or not 0 <= piece.at <= piece.start:
                raise TileError(f"output {name!r}: a piece from {piece.start} to {piece.stop} after {before}")


def run_tiles(
    run: Callable[[Feeds], Feeds],
    feeds: Feeds,
    plan: Tiling,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """The answer to a whole volume, by name. ``run`` answers one tile; ``progress`` hears of each tile that is done, and how
    many there are. In memory are ``feeds``, the whole answer, and what one tile takes.

    Raises :class:`TileError` for feeds of other sides, and for answers that do not fit the plan.
    """
    check_feeds(feeds, plan)
    answer: dict[str, Any] = {}
    for done, place in enumerate(plan.places(), 1):
        outputs = run(tile_of(feeds, plan, place))
        for name, output in plan.outputs.items():
            if name not in outputs:
                raise TileError(f"expected an output {name!r}, but got {', '.join(outputs)}")
            _put(answer, name, output, np.asarray(outputs[name]), place)
        del outputs  # not beside the next tile's tensors
        progress(done, plan.count)
    return answer


def check_feeds(feeds: Feeds, plan: Tiling) -> None:
    """Raises :class:`TileError` for feeds that are not of the plan's volume."""
    for name, value in feeds.items():
        if tuple(value.shape[FIRST_AXIS:]) != plan.volume:
            raise TileError(f"input {name!r} is {tuple(value.shape)}, and the plan is for volumes of {plan.volume}")


def tile_of(feeds: Feeds, plan: Tiling, place: tuple[int, ...]) -> dict[str, Any]:
    """The inputs of one tile, in memory of their own."""
    cut = [slice(starts[at], starts[at] + side) for starts, at, side in zip(plan.origins, place, plan.tile)]
    return {name: np.array(value[(slice(None),) * FIRST_AXIS + tuple(cut)], order="C") for name, value in feeds.items()}


def _put(answer: dict[str, Any], name: str, output: TiledOutput, values: Any, place: tuple[int, ...]) -> None:
    whole, inside = [slice(None)] * len(output.shape), [slice(None)] * len(output.shape)
    for axis, pieces, at in zip(output.axes, output.pieces, place):
        piece = pieces[at]
        whole[axis] = slice(piece.start, piece.stop)
        inside[axis] = slice(piece.start - piece.at, piece.stop - piece.at)
    if name not in answer:
        answer[name] = np.empty(output.shape, values.dtype)
    kept = values[tuple(inside)] if values.ndim == len(output.shape) else values
    if kept.shape != answer[name][tuple(whole)].shape:
        raise TileError(f"output {name!r} of a tile has shape {values.shape}, which does not fit {output.shape}")
    answer[name][tuple(whole)] = kept
