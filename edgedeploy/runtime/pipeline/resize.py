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

import math
from functools import lru_cache
from typing import Any, Callable

from edgedeploy.runtime.pipeline.numpy_later import np

METHODS = ("nearest", "bilinear", "box", "bilinear-antialias", "area")

_PILLOW = ("box", "bilinear-antialias")
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
        if values.shape[axis] != size:
            values = _along(values, axis, *_weights(values.shape[axis], size, method))
    return values


def _along(values: Any, axis: int, starts: Any, weights: Any) -> Any:
    """Weighted sums along an axis: ``weights`` (m, k) are of the k values from ``starts`` (m,) on."""
    fixed = values.dtype == np.uint8
    if fixed:
        weights = np.trunc(0.5 + weights * (1 << _FIXED_BITS)).astype(np.int32)
    shape = [1] * values.ndim
    shape[axis] = len(starts)
    last = values.shape[axis] - 1
    total: Any = np.int32(1 << (_FIXED_BITS - 1)) if fixed else 0.0
    for place in range(weights.shape[1]):
        taken = values.take(np.minimum(starts + place, last), axis)  # beyond the last value the weight is 0
        total = total + taken.astype(np.int32 if fixed else np.float64) * weights[:, place].reshape(shape)
    return np.clip(total >> _FIXED_BITS, 0, 255).astype(np.uint8) if fixed else total.astype(np.float32)


@lru_cache(maxsize=64)
def _nearest(size: int, wanted: int) -> Any:
    return (2 * np.arange(wanted, dtype=np.int64) + 1) * size // (2 * wanted)


@lru_cache(maxsize=64)
def _weights(size: int, wanted: int, method: str) -> tuple[Any, Any]:
    """Where the values begin that a new one is made of, int64 (m,), and their weights, float64 (m, k), 0 beyond the last."""
    rows = [_ROWS[method](size, wanted, index) for index in range(wanted)]
    weights = np.zeros((wanted, max(len(row) for _, row in rows)))
    for index, (_, row) in enumerate(rows):
        weights[index, : len(row)] = row
    return np.array([start for start, _ in rows], np.int64), weights


def _bilinear(size: int, wanted: int, index: int) -> tuple[int, list[float]]:
    centre = max((index + 0.5) * size / wanted - 0.5, 0.0)
    start = min(int(centre), size - 1)
    share = centre - start
    return start, [1.0 - share, share] if start + 1 < size else [1.0]


def _area(size: int, wanted: int, index: int) -> tuple[int, list[float]]:
    start, end = index * size // wanted, -(-(index + 1) * size // wanted)
    return start, [1.0 / (end - start)] * (end - start)


def _filtered(kernel: Callable[[float], float], reach: float) -> Callable[[int, int, int], tuple[int, list[float]]]:
    """Pillow's weights (``precompute_coeffs`` in Resample.c), in its order of operations: its last bits are ours."""

    def row(size: int, wanted: int, index: int) -> tuple[int, list[float]]:
        scale = size / wanted
        widened = max(scale, 1.0)
        centre = (index + 0.5) * scale
        support = reach * widened
        start = max(int(centre - support + 0.5), 0)
        end = min(int(centre + support + 0.5), size)
        found = [kernel((place + start - centre + 0.5) * (1.0 / widened)) for place in range(end - start)]
        total = 0.0
        for value in found:
            total += value
        return start, [value / total for value in found] if total else found

    return row


def _box(place: float) -> float:
    return 1.0 if -0.5 < place <= 0.5 else 0.0


def _triangle(place: float) -> float:
    return max(1.0 - math.fabs(place), 0.0)


_ROWS = {
    "bilinear": _bilinear,
    "area": _area,
    "box": _filtered(_box, 0.5),
    "bilinear-antialias": _filtered(_triangle, 1.0),
}
