"""Images and maps at another size, by weights that are written down here: nothing depends on a library's own convention.

Along an axis of ``n`` values that becomes one of ``m``, the centre of the new value ``i`` lies at ``c = (i + 0.5) * n / m``
in the old axis, where the old value ``j`` covers ``j`` to ``j + 1`` (half-pixel centres). Columns come first, then rows.

- ``nearest``: the old value that covers ``c``.
- ``bilinear``: the two old values whose centres surround ``c``, by distance; beyond the first and last centre that value
  alone. Nothing is averaged where the axis shrinks. As torch's ``interpolate(align_corners=False)``, ONNX's ``half_pixel``.
- ``box``: the mean of the old values whose centres lie in the new value's extent; where the axis grows as ``nearest``.
- ``bilinear-antialias``: as ``bilinear`` where the axis grows; where it shrinks, a triangle as wide as two new values.
- ``area``: the mean of all old values that the new value's extent touches. As torch's ``adaptive_avg_pool``.

``box`` and ``bilinear-antialias`` are Pillow's ``BOX`` and ``BILINEAR`` to the bit: of uint8 in whole numbers of 22 bits
with a rounding after each axis, of float32 in double precision, rounded to float32 after each axis. (Releases of Pillow that
do rows first for some shapes round otherwise there, by one level of 255.) The other averages are computed so too; of uint8
they give float32, except ``nearest``, which keeps the type.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Callable

from edgedeploy.runtime.pipeline.numpy_later import np

METHODS = ("nearest", "bilinear", "box", "bilinear-antialias", "area")

_PILLOW = ("box", "bilinear-antialias")
SHRINKS = 300
"""How many values become one at most where many new ones are computed at once."""

BLOCK = 1 << 16
"""Weights at once, and values that are added at once: a frame of one row may have millions."""

_FIXED_BITS = 22  # Pillow's for 8 bits: 32 less 8 of a value and 2 of sign and overshoot


def resized(values: Any, height: int, width: int, method: str, axes: tuple[int, int] = (0, 1)) -> Any:
    """``values`` with ``height`` and ``width`` along ``axes``: uint8 or float32 as the module says. An array that has the
    size is returned as it is."""
    rows, columns = axes
    if (values.shape[rows], values.shape[columns]) == (height, width):
        return values
    if method == "nearest":
        indices = [_nearest(values.shape[axis], size) for axis, size in ((columns, width), (rows, height))]
        return values.take(indices[0], columns).take(indices[1], rows)
    if method not in _PILLOW or values.dtype != np.uint8:
        values = values.astype(np.float32, copy=False)
    for axis, size in ((columns, width), (rows, height)):
        if values.shape[axis] > SHRINKS * size:
            values = _summed(values, axis, size, method)
        elif values.shape[axis] != size:
            count = max(1, BLOCK // (2 * (values.shape[axis] // size) + 2))  # so many weights has each at most
            made = [
                _along(values, axis, *_weights(values.shape[axis], size, method, at, min(at + count, size)))
                for at in range(0, size, count)
            ]
            values = made[0] if len(made) == 1 else np.concatenate(made, axis)
    return values


def _along(values: Any, axis: int, starts: Any, weights: Any) -> Any:
    """Weighted sums along an axis: ``weights`` (m, k) are of the k values from ``starts`` (m,) on."""
    fixed = values.dtype == np.uint8
    if fixed:
        weights = _whole(weights)
    shape = [1] * values.ndim
    shape[axis] = len(starts)
    last = values.shape[axis] - 1
    total: Any = np.int32(1 << (_FIXED_BITS - 1)) if fixed else 0.0
    for place in range(weights.shape[1]):
        taken = values.take(np.minimum(starts + place, last), axis)  # beyond the last value the weight is 0
        total = total + taken.astype(np.int32 if fixed else np.float64) * weights[:, place].reshape(shape)
    return _rounded(total, fixed)


def _summed(values: Any, axis: int, wanted: int, method: str) -> Any:
    """As :func:`_along`, to the bit, where a new value is made of thousands: one new value after the other, its sum in the
    same order, in pieces that fit into memory."""
    fixed = values.dtype == np.uint8
    ordered = np.moveaxis(values, axis, 0)
    piece = max(1, BLOCK // ordered[0].size)
    sums = []
    for index in range(wanted):
        starts, found = _ROWS[method](len(ordered), wanted, np.array([index]))
        start, weights = int(starts[0]), _whole(found[0]) if fixed else found[0]
        total: Any = np.full(
            ordered.shape[1:], 1 << (_FIXED_BITS - 1) if fixed else 0.0, np.int32 if fixed else np.float64
        )
        for at in range(0, len(weights), piece):
            taken = ordered[start + at : start + at + min(piece, len(weights) - at)].astype(total.dtype)
            some = weights[at : at + len(taken)].reshape(-1, *[1] * total.ndim)  # beyond the last value the weight is 0
            total = np.add.accumulate(np.concatenate([total[None], taken * some]), axis=0)[-1]
        sums.append(total)
    return np.moveaxis(_rounded(np.stack(sums), fixed), 0, axis)


def _whole(weights: Any) -> Any:
    return np.trunc(0.5 + weights * (1 << _FIXED_BITS)).astype(np.int32)


def _rounded(total: Any, fixed: bool) -> Any:
    return np.clip(total >> _FIXED_BITS, 0, 255).astype(np.uint8) if fixed else total.astype(np.float32)


@lru_cache(maxsize=64)
def _nearest(size: int, wanted: int) -> Any:
    return (2 * np.arange(wanted, dtype=np.int64) + 1) * size // (2 * wanted)


@lru_cache(maxsize=64)
def _weights(size: int, wanted: int, method: str, first: int, end: int) -> tuple[Any, Any]:
    """Of the new values from ``first`` to before ``end``, see :data:`_ROWS`."""
    return _ROWS[method](size, wanted, np.arange(first, end))


def _bilinear(size: int, wanted: int, index: Any) -> tuple[Any, Any]:
    centre = np.maximum((index + 0.5) * size / wanted - 0.5, 0.0)
    start = np.minimum(centre.astype(np.int64), size - 1)
    share = np.where(start + 1 < size, centre - start, 0.0)
    return start, np.stack([1.0 - share, share], axis=1)


def _area(size: int, wanted: int, index: Any) -> tuple[Any, Any]:
    start, end = index * size // wanted, -(-(index + 1) * size // wanted)
    count = (end - start)[:, None]
    return start, np.where(np.arange(count.max()) < count, 1.0 / count, 0.0)


def _filtered(kernel: Callable[[Any], Any], reach: float) -> Callable[[int, int, Any], tuple[Any, Any]]:
    """Pillow's weights (``precompute_coeffs`` in Resample.c), in its order of operations: its last bits are ours."""

    def rows(size: int, wanted: int, index: Any) -> tuple[Any, Any]:
        scale = size / wanted
        widened = max(scale, 1.0)
        centre = ((index + 0.5) * scale)[:, None]
        support = reach * widened
        start = np.maximum((centre - support + 0.5).astype(np.int64), 0)
        end = np.minimum((centre + support + 0.5).astype(np.int64), size)
        places = np.arange((end - start).max()) + start
        found = np.where(places < end, kernel((places - centre + 0.5) * (1.0 / widened)), 0.0)
        total = np.add.accumulate(found, axis=1)[:, -1:]  # one after the other, as Pillow adds them
        return start[:, 0], found / np.where(total == 0, 1.0, total)

    return rows


def _box(places: Any) -> Any:
    return ((places > -0.5) & (places <= 0.5)).astype(np.float64)


def _triangle(places: Any) -> Any:
    return np.maximum(1.0 - np.abs(places), 0.0)


_ROWS = {
    "bilinear": _bilinear,
    "area": _area,
    "box": _filtered(_box, 0.5),
    "bilinear-antialias": _filtered(_triangle, 1.0),
}
"""Of new values, by their indices (m,): where the values begin that each is made of, int64 (m,), and their weights, float64
(m, k), 0 beyond the last."""
