"""Where a series of nights changed its level: marks for pages of trends, and never a reason for an alarm.

E-divisive (Matteson & James 2014, J. Am. Stat. Assoc. 109, 334) with energy distance of exponent 1: the series is cut where
the two sides differ most, the cut is kept when random orders of the same nights hardly ever differ as much, and both
sides are looked at in turn. It wants no normal noise, and sees a whole history at once, so that it finds a change's first
night better than a rule that judges night by night; yet a night's alarm would come late, and go again with later nights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from edgedeploy.errors import MeasurementError

Floats = npt.NDArray[np.float64]

LEAST_SEGMENT: Final = 5
"""Nights on either side of a change."""

LEVEL: Final = 0.01
PERMUTATIONS: Final = 199
MOST_NIGHTS: Final = 4000
"""Memory grows with the square of the nights: 128 MB for these."""


@dataclass(frozen=True)
class ChangePoint:
    """``index`` is the first night of the new level; ``before`` and ``after`` are the medians on its two sides, up to the
    next change. ``p_value`` is that of the permutation test."""

    index: int
    before: float
    after: float
    p_value: float


def change_points(
    values: Sequence[float], *, seed: int = 0, level: float = LEVEL, permutations: int = PERMUTATIONS
) -> tuple[ChangePoint, ...]:
    """In the order of the nights. ``values`` are one for each night, oldest first; nights without a number are left out.

    Raises :class:`MeasurementError` for values that are not finite, ``ValueError`` for more than :data:`MOST_NIGHTS`.
    """
    wrong = [value for value in values if not math.isfinite(value)]
    if wrong:
        found = f"{len(wrong)} of {len(values)} values are not finite, the first is {wrong[0]}"
        raise MeasurementError("Look for changes of a series", found, "Leave nights without a number out")
    if len(values) > MOST_NIGHTS:
        raise ValueError(f"at most {MOST_NIGHTS} nights are looked at, but got {len(values)}")
    series = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    cuts = dict(_cuts(series, 0, rng, level, permutations))
    places = [0, *sorted(cuts), series.size]
    return tuple(
        ChangePoint(
            at, float(np.median(series[places[i] : at])), float(np.median(series[at : places[i + 2]])), cuts[at]
        )
        for i, at in enumerate(places[1:-1])
    )


def _cuts(
    segment: Floats, offset: int, rng: np.random.Generator, level: float, permutations: int
) -> Iterator[tuple[int, float]]:
    if segment.size < 2 * LEAST_SEGMENT:
        return
    at, distance = _best(segment)
    p_value = _p_value(segment, distance, rng, level, permutations)
    if p_value > level:
        return
    yield offset + at, p_value
    yield from _cuts(segment[:at], offset, rng, level, permutations)
    yield from _cuts(segment[at:], offset + at, rng, level, permutations)


def _best(segment: Floats) -> tuple[int, float]:
    """The cut whose two sides have the largest scaled energy distance, and that distance."""
    sums = np.abs(segment[:, None] - segment).cumsum(axis=0).cumsum(axis=1)
    left = np.arange(LEAST_SEGMENT, segment.size - LEAST_SEGMENT + 1)
    right = segment.size - left
    within = sums[left - 1, left - 1]
    across = sums[left - 1, -1] - within
    beyond = sums[-1, -1] - within - 2 * across
    apart = 2 * across / (left * right) - within / (left * (left - 1)) - beyond / (right * (right - 1))
    scaled = apart * left * right / segment.size
    best = int(np.argmax(scaled))
    return int(left[best]), float(scaled[best])


def _p_value(segment: Floats, distance: float, rng: np.random.Generator, level: float, permutations: int) -> float:
    """The share of random orders, this one among them, with a cut at least as good; it stops as soon as that is too large,
    so that a calm series costs a few."""
    reached = 1
    for _ in range(permutations):
        reached += _best(rng.permutation(segment))[1] >= distance
        if reached > level * (permutations + 1):
            break
    return reached / (permutations + 1)
