"""Intervals of what an audit measures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

LEVEL: Final = 0.95
RESAMPLES: Final = 1000
_Z: Final = 1.959963984540054
"""Of a two-sided normal interval of 95 %."""


@dataclass(frozen=True)
class Interval:
    """Two-sided, 95 %. ``how`` names what it takes into account."""

    low: float
    high: float
    how: str

    def as_json(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high, "level": LEVEL, "how": self.how}

    def __str__(self) -> str:
        return f"{self.low:.3g} to {self.high:.3g}"


def wilson(share: float, count: int) -> Interval:
    """Of a share of ``count`` independent cases (Wilson 1927); exactly 0 or 1 at the end where
    the formula has that."""
    if not count:
        return Interval(0.0, 1.0, "no cases")
    centre = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z / (1 + _Z**2 / count) * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    low, high = max(0.0, centre - half) if share else 0.0, min(1.0, centre + half) if share < 1 else 1.0
    return Interval(low, high, f"Wilson, {count} cases")


def bootstrap(
    count: int, value: Callable[[npt.NDArray[np.int64]], float], seed: int, how: str, resamples: int = RESAMPLES
) -> Interval:
    """Percentile bootstrap (Efron & Tibshirani 1993, ch. 13) of ``value``, which takes the places of the drawn
    units."""
    rng = np.random.default_rng(seed)
    found: Sequence[float] = [value(rng.integers(0, count, count)) for _ in range(resamples)]
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high), how)
