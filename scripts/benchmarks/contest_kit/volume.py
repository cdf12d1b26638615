"""The contest's one number: the volume that a side's artifacts dominate together, in three objectives at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

Point = tuple[float, float, float]

DICE_BELOW: Final = 0.10
"""Dice below the float model's at which an artifact is worth nothing."""

DICE_SPAN: Final = 0.12
"""From worth nothing to worth everything: 0.02 above the float model."""


def point_of(dice: float, float_dice: float, cpu_ratio: float, bytes_ratio: float) -> Point:
    """The three objectives, each from 0 (worth nothing) to 1. The ratios are over ONNX Runtime float32."""
    worth = (dice - (float_dice - DICE_BELOW)) / DICE_SPAN
    return (_cut(worth), _cut(1 - cpu_ratio), _cut(1 - bytes_ratio))


def _cut(value: float) -> float:
    return min(1.0, max(0.0, value))


def hypervolume(points: Iterable[Point]) -> float:
    """Volume of the union of the boxes between the origin and each point, exactly: a sweep along the last objective, with
    the area of the boxes that reach so far."""
    left = sorted((point for point in points if min(point) > 0), key=lambda point: -point[2])
    volume = 0.0
    for index, point in enumerate(left):
        below = left[index + 1][2] if index + 1 < len(left) else 0.0
        if point[2] > below:
            volume += (point[2] - below) * _area([(x, y) for x, y, _ in left[: index + 1]])
    return volume


def _area(corners: Sequence[tuple[float, float]]) -> float:
    """Area of the union of the rectangles between the origin and each corner."""
    area, reached = 0.0, 0.0
    for x, y in sorted(corners, reverse=True):
        if y > reached:
            area += x * (y - reached)
            reached = y
    return area
