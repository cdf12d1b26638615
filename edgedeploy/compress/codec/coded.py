"""One array as it is shipped: what decoding needs of it, and the array that comes out.

Values are one product of two float32 (a whole number and a step), or additions and products of float64 rounded once to
float32: IEEE 754 says every bit of these, so they are the same on every machine.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]
Codes = NDArray[np.int64]

SMALL: Final = 512
"""Arrays of fewer numbers are no weights of multiplications (biases, norms) or cost next to nothing."""

QUARTERS: Final = (1.0, 1.1892071, 1.4142135, 1.6817929)
"""2^0, 2^(1/4), 2^(1/2), 2^(3/4)."""

ADDED: Final = 1
"""Hyper-Compression's trajectory winds by 1 / (pi + 1) in the first direction, by 1 / (pi + 2) in the second."""


@dataclass(frozen=True)
class Constant:
    """An array whose numbers all have one value."""

    shape: tuple[int, ...]
    dtype: str
    value: float

    def decoded(self) -> Numbers:
        return np.full(self.shape, self.value, self.dtype)


@dataclass(frozen=True)
class Kept:
    """An array as it is, or floats that are shipped in float16 (``stored``)."""

    shape: tuple[int, ...]
    dtype: str
    stored: Numbers

    def decoded(self) -> Numbers:
        return self.stored.astype(self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class Stepped:
    """Whole multiples (``codes``, flat) of a step: one of the array, or one for each row of its first axis.

    ``quarters`` makes steps finer and coarser along the first and the second axis: a step is that of the array times
    2^(k/4) for the k of its row and of its column.
    """

    shape: tuple[int, ...]
    steps: NDArray[np.float32]
    codes: Codes
    quarters: tuple[NDArray[np.int8], NDArray[np.int8]] | None = None

    dtype = "float32"

    def decoded(self) -> Numbers:
        if self.quarters is None:
            rows = self.codes.astype(np.float32).reshape(len(self.steps), -1)
            return np.asarray((rows * self.steps[:, None]).reshape(self.shape), np.float32)
        return np.asarray(self.codes.astype(np.float32).reshape(self.shape) * self.grid, np.float32)

    @property
    def grid(self) -> Numbers:
        """The step of every number, with ``quarters``: (rows, columns, 1, …)."""
        assert self.quarters is not None
        rows, columns = map(powers, self.quarters)
        found = (self.steps[0] * rows)[:, None] * columns[None, :]
        return np.asarray(found.reshape(*found.shape, *(1 for _ in self.shape[2:])))


@dataclass(frozen=True)
class Wound:
    """Pairs of weights as points of a winding trajectory (Fan et al., "Hyper-Compression", 2024).

    A code is ``nodes`` times the class of a point, plus its place on the trajectory. ``side`` is the square's side in
    weights; points outside of it are drawn towards ``centre`` by the factor of their class.
    """

    shape: tuple[int, ...]
    side: float
    centre: tuple[float, float]
    factors: tuple[float, ...]
    nodes: int
    codes: Codes

    dtype = "float32"

    def decoded(self) -> Numbers:
        classes, places = np.divmod(self.codes, self.nodes)
        reach = np.asarray(self.factors, np.float64)[classes]
        points = (trajectory(self.nodes)[places] - 0.5) * self.side * reach[:, None] + np.asarray(self.centre)
        return np.asarray(points.reshape(-1)[: math.prod(self.shape)].reshape(self.shape), np.float32)


Coded = Constant | Kept | Stepped | Wound


def trajectory(nodes: int) -> NDArray[np.float64]:
    """(nodes, 2): the fractional parts of i / (pi + 1) and i / (pi + 2)."""
    places = np.arange(nodes, dtype=np.float64)[:, None]
    return np.asarray(np.modf(places * np.array([1 / (math.pi + ADDED), 1 / (math.pi + ADDED + 1)]))[0], np.float64)


def powers(quarters: NDArray[np.int8]) -> NDArray[np.float32]:
    """2^(k/4) as float32, from four constants, because a machine's own powers may be rounded otherwise."""
    octaves, parts = np.divmod(quarters.astype(np.int32), 4)
    return np.asarray(np.ldexp(np.array(QUARTERS, np.float32)[parts], octaves), np.float32)


def digest_of_weights(arrays: Mapping[str, Numbers]) -> str:
    """SHA-256 of names, types, shapes and little-endian bytes, in the order of names."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        sha.update(f"{name}\0{array.dtype.name}\0{array.shape}\0".encode())
        sha.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return sha.hexdigest()


def is_weight(array: Numbers) -> bool:
    """Whether an array is worth a code of its own: floats, and many."""
    return array.dtype == np.float32 and array.size >= SMALL and array.ndim > 1


def aside(array: Numbers, *, bits: int = 16) -> Coded:
    """What is no weight: a constant, floats as float16 or in ``bits`` = 8, everything else as it is."""
    array = np.asarray(array)
    if array.size and (array == array.flat[0]).all():
        return Constant(array.shape, array.dtype.name, array.flat[0].item())
    if array.dtype != np.float32 or bits == 32:
        return Kept(array.shape, array.dtype.name, array.reshape(-1))
    if bits == 8:
        step = np.float32(np.abs(array).max() / 127)
        return stepped(array, step)
    with np.errstate(over="ignore"):  # what is no float16 stays as it is
        half = array.astype(np.float16)
    return Kept(array.shape, "float32", (half if np.isfinite(half).all() else array).reshape(-1))


def stepped(array: Numbers, step: float | np.float32) -> Stepped:
    """The nearest whole multiples of one step."""
    size = np.float32(step)
    return Stepped(array.shape, np.array([size]), np.rint(array.astype(np.float64) / size).astype(np.int64).reshape(-1))


def int8(array: Numbers) -> Stepped:
    """Symmetric int8, a step for each row of the first axis."""
    rows = array.reshape(len(array), -1)
    steps = np.maximum(np.abs(rows).max(1) / 127, np.finfo(np.float32).tiny).astype(np.float32)
    codes = np.clip(np.rint(rows / steps[:, None].astype(np.float64)), -127, 127)
    return Stepped(array.shape, steps, codes.astype(np.int64).reshape(-1))


def wound(array: Numbers, sigmas: float = 4.0, nodes: int = 225, classes: int = 3) -> Wound:
    """Pairs of neighbours at the nearest node. The square's side is ``sigmas`` standard deviations of the array: the
    method's own side of 0.1 is as large as whole layers of a small network."""
    from scipy.spatial import cKDTree

    flat = array.reshape(-1).astype(np.float64)
    points = np.append(flat, flat[len(flat) - len(flat) % 2 :]).reshape(-1, 2)
    centre = points.mean(0)
    side = max(float(sigmas * flat.std()), 1e-12)
    away = np.abs(points - centre).max(1) / (side / 2)
    most = max(1.0, float(away.max()))
    factors = tuple(np.geomspace(1.0, most, classes).tolist()) if most > 1.0 else (1.0,)
    which = np.searchsorted(np.asarray(factors) * (1 + 1e-12), away)
    inside = (points - centre) / side / np.asarray(factors)[which][:, None] + 0.5
    _, places = cKDTree(trajectory(nodes)).query(inside)
    first, second = centre.tolist()
    codes = which * nodes + places.astype(np.int64)
    return Wound(array.shape, side, (first, second), factors, nodes, codes.astype(np.int64))
