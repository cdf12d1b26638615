"""The bars of the gate, on nights of any noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.nightly_kit.simulation import GROWN, Floats, judge
from edgedeploy.evidence.nights import Limits, widened

LAB: Final = 100
NIGHTS: Final = 100
MOST_ALARMS: Final = 1.0
"""In so many nights, of the whole lab, the nights before there is a reference among them."""

LARGE, SMALL = math.log(1.10), math.log(1.05)
FOUND_AT_ONCE: Final = 0.95
WITHIN_NIGHTS, SHARE = 5, 0.9

Nights = Callable[[int, int, int], Floats]
"""A/A losses of so many (nights, series) with a seed; shape (nights, series, 4)."""


@dataclass(frozen=True)
class Alarms:
    """Of ``labs`` of ``series`` series in :data:`NIGHTS` A/A nights: alarms of series a lab, with the standard error, and
    the share of nights of a series that cost two more sessions."""

    labs: int
    series: int
    mean: float
    error: float
    reruns: float

    @property
    def holds(self) -> bool:
        return self.mean <= MOST_ALARMS

    def __str__(self) -> str:
        return f"{self.mean:.2f} +- {self.error:.2f} alarms a lab ({self.labs} labs; {self.reruns:.1%} of nights rerun)"


def false_alarms(nights: Nights, series: int, labs: int, seed: int, limits: Limits | None = None) -> Alarms:
    found = judge(nights(NIGHTS, series * labs, seed), limits or widened(series))
    by_lab = found.alarms.sum(axis=0).reshape(labs, series).sum(axis=1)
    error = math.sqrt(max(1.0, float(by_lab.sum()))) / labs
    return Alarms(labs, series, float(by_lab.mean()), error, float(found.suspects.mean()))


def found_after(nights: Nights, planted: float, series: int, seed: int, limits: Limits) -> Floats:
    """How many nights until the first alarm after a slowdown that begins when the reference is frozen; infinite where it is
    not found within 30."""
    losses = nights(2 * GROWN, series, seed)
    losses[GROWN:] += planted
    alarms = judge(losses, limits).alarms[GROWN:]
    return np.where(alarms.any(axis=0), alarms.argmax(axis=0) + 1.0, np.inf)


@dataclass(frozen=True)
class Power:
    """``at_once`` is the share of 10 % slowdowns that are found in their first night; ``median`` and ``p90`` are nights
    until a slowdown of 5 % is found."""

    at_once: float
    median: float
    p90: float

    @property
    def holds(self) -> bool:
        return self.at_once >= FOUND_AT_ONCE and self.p90 <= WITHIN_NIGHTS

    def __str__(self) -> str:
        return f"10 % on night 1 in {self.at_once:.1%}; 5 % in {self.median:.0f} nights (median), {self.p90:.0f} (p90)"


def power(nights: Nights, series: int, seed: int, limits: Limits) -> Power:
    large = found_after(nights, LARGE, series, seed, limits)
    small = found_after(nights, SMALL, series, seed + 1, limits)
    return Power(float((large <= 1).mean()), float(np.median(small)), nearest(small, SHARE))


def nearest(values: Floats, share: float) -> float:
    """The smallest value with at least this share at or below it."""
    return float(np.sort(values)[math.ceil(share * values.size) - 1])
