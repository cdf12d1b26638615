"""Hypervolume, and by how much a candidate may be expected to raise it. Every objective is to be made small."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MOST_OBJECTIVES: Final = 3
"""The closed form below is for one to three objectives."""

_LEAST_DEVIATION: Final = 1e-9


def front_of(points: Floats) -> Floats:
    """The non-dominated points, each once, ordered by the first objective. ``points``: shape (n, objectives)."""
    left = points[np.lexsort(points.T[::-1])]  # what dominates a point comes before it
    found: list[Floats] = []
    while len(left):
        found.append(left[0])
        left = left[np.any(left < left[0], axis=1)]
    return np.array(found).reshape(len(found), points.shape[1])


def hypervolume(points: Floats, reference: Floats) -> float:
    """The volume that ``points``, shape (n, objectives), dominate below ``reference``."""
    inside = points[np.all(points < reference, axis=1)]
    if not len(inside):
        return 0.0
    if len(reference) == 1:
        return float(reference[0] - inside.min())
    front = front_of(inside)
    if len(reference) == 2:
        heights = np.append(reference[1], front[:-1, 1]) - front[:, 1]
        return float(np.sum((reference[0] - front[:, 0]) * heights))
    by_last = front[np.argsort(front[:, -1], kind="stable")]
    depths = np.append(by_last[1:, -1], reference[-1]) - by_last[:, -1]
    slices = (hypervolume(by_last[: at + 1, :-1], reference[:-1]) for at in range(len(by_last)))
    return float(sum(depth * area for depth, area in zip(depths, slices, strict=True) if depth > 0))


Below = Callable[[float], Floats]
"""E[max(0, edge - value)] of every candidate, shape (candidates,), as a function of the edge."""


def expected_improvement(mean: Floats, deviation: Floats, front: Floats, reference: Floats) -> Floats:
    """:func:`improvement` of candidates with independent normal predictions. ``mean`` and ``deviation``: shape (candidates,
    objectives), a deviation of 0 for a value that is known."""
    below = [below_normal(mean[:, index], deviation[:, index]) for index in range(len(reference))]
    return improvement(below, front, reference)


def improvement(below: Sequence[Below], front: Floats, reference: Floats) -> Floats:
    """Expected hypervolume improvement of candidates whose objectives are predicted independently, in closed form: shape
    (candidates,). ``front``: shape (points, objectives). One to three objectives.

    The region that ``front`` does not dominate is cut into boxes; the expected part of a box that a candidate dominates is a
    product of differences of E[max(0, edge - value)], one for each objective (Yang et al. 2019).
    """
    front = front_of(front[np.all(front < reference, axis=1)])
    if len(reference) == 1:
        return below[0](float(front[0, 0]) if len(front) else float(reference[0]))
    if len(reference) == 2:
        return _Plane(below[0], below[1], reference).after(front)
    return _in_space(below, front, reference)


def _in_space(below: Sequence[Callable[[float], Floats]], front: Floats, reference: Floats) -> Floats:
    """Slabs between the points' third values; in each, the plane of the points below it."""
    plane = _Plane(below[0], below[1], reference)
    front = front[np.argsort(front[:, 2], kind="stable")]
    edges = [*front[:, 2], reference[2]]
    total = below[2](float(edges[0])) * plane.left
    for point, low, high in zip(front, edges[:-1], edges[1:], strict=True):
        plane.add(float(point[0]), float(point[1]))
        if high > low:
            total += (below[2](float(high)) - below[2](float(low))) * plane.left
    return total


class _Plane:
    """What two objectives' values may be expected to dominate of the region that the points added so far do not."""

    def __init__(self, x: Callable[[float], Floats], y: Callable[[float], Floats], reference: Floats) -> None:
        self._x, self._y = x, y
        self._end, self._top = float(reference[0]), float(reference[1])
        self._stairs: list[tuple[float, float]] = []
        self.left = x(self._end) * y(self._top)

    def after(self, points: Floats) -> Floats:
        for point in points:
            self.add(float(point[0]), float(point[1]))
        return self.left

    def add(self, x: float, y: float) -> None:
        """Take away the rectangles that (x, y) dominates and no point before it did."""
        before = [step for step in self._stairs if step[0] <= x]
        behind = [step for step in self._stairs if step[0] > x]
        height = before[-1][1] if before else self._top
        if height <= y:
            return
        at = x
        while behind and behind[0][1] >= y:
            self._cut(at, behind[0][0], y, height)
            at, height = behind.pop(0)
        self._cut(at, behind[0][0] if behind else self._end, y, height)
        self._stairs = [*(step for step in before if step[1] < y or step[0] < x), (x, y), *behind]

    def _cut(self, left: float, right: float, low: float, high: float) -> None:
        if right > left and high > low:
            self.left = self.left - (self._x(right) - self._x(left)) * (self._y(high) - self._y(low))


def cut(below: Below, bound: float) -> Below:
    """Of values that cannot be smaller than ``bound``, whatever was predicted."""
    return lambda edge: np.asarray(np.maximum(below(edge) - below(bound), 0.0))


def below_normal(mean: Floats, deviation: Floats) -> Below:
    from scipy.special import ndtr

    spread = np.maximum(deviation, _LEAST_DEVIATION)

    @cache
    def at(edge: float) -> Floats:
        z = (edge - mean) / spread
        return np.asarray(spread * (z * ndtr(z) + np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)))

    return at


def below_exponential(mean: Floats, deviation: Floats, knee: float, unit: float) -> Below:
    """Of values that are normal up to ``knee`` and grow exponentially beyond it: z is normal, and the value is z up to the
    knee, knee + unit * (exp((z - knee) / unit) - 1) beyond it."""
    from scipy.special import log_ndtr, ndtr

    spread = np.maximum(deviation, _LEAST_DEVIATION)
    normal = below_normal(mean, deviation)
    start, step = (knee - mean) / spread, spread / unit
    grown = (mean - knee) / unit + 0.5 * np.square(step)
    before = np.exp(grown + log_ndtr(start - step))

    @cache
    def at(edge: float) -> Floats:
        if edge <= knee:
            return normal(edge)
        end = (knee + unit * math.log1p((edge - knee) / unit) - mean) / spread
        linear = normal(knee) + (edge - knee) * ndtr(start)
        beyond = (edge - knee + unit) * (ndtr(end) - ndtr(start)) - unit * (
            np.exp(grown + log_ndtr(end - step)) - before
        )
        return np.asarray(linear + np.maximum(beyond, 0))

    return at


def below_lognormal(mean: Floats, deviation: Floats) -> Below:
    """Of values whose logarithm is normal."""
    from scipy.special import log_ndtr, ndtr

    spread = np.maximum(deviation, _LEAST_DEVIATION)

    @cache
    def at(edge: float) -> Floats:
        if edge <= 0:
            return np.zeros_like(mean)
        z = (math.log(edge) - mean) / spread
        return np.asarray(edge * ndtr(z) - np.exp(mean + 0.5 * np.square(spread) + log_ndtr(z - spread)))

    return at
