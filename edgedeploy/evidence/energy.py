"""Energy of one inference from the power series of a run, with the idle share taken out.

    E = ( integral of P over the side's stretches  -  P_idle * duration of the stretches ) / queries
    P_idle = integral of P over the waits / duration of the waits

The integral of sampled power is the trapezoid rule over monotonic time (mean of two neighbours times their distance, the
ends of a window interpolated linearly); that of a counter is the difference of its interpolated values, which is exact up
to the counter's step. The waits are of the same loaded processes, just before and after, so that what is subtracted is
what the board draws anyway.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgedeploy.errors import MeasurementError

Floats = npt.NDArray[np.float64]

LEAST_SAMPLES: Final = 10
"""Fewer samples than this in a window are no integral."""

MOST_IDLE_DRIFT: Final = 0.2
"""How far the waits before and after may be apart, as a share of their mean: more, and there is no idle to subtract."""


@dataclass(frozen=True)
class Energy:
    """``energy_j`` is one inference above idle, ``gross_j`` with the idle share. ``source`` names sensor and scope."""

    source: str
    scope: str
    energy_j: float
    gross_j: float
    idle_w: float
    queries: int


def energy_of(raw: Mapping[str, Any] | None, side: str) -> Energy | str:
    """The energy of one side of a run, or the reason why there is none.

    ``raw`` is what the agent recorded (``runtime/sensors/energy.py``). Raises ``MeasurementError`` for a series that no
    sensor can give: NaN, Inf, negative power, a counter or a clock that runs backwards.
    """
    if raw is None:
        return "no sensor"
    if "missing" in raw:
        return str(raw["missing"])
    times_s, values = _series(raw)
    waits = [(start / 1e9, end / 1e9) for start, end in raw["waits"]]
    stretches = [item for item in raw["stretches"] if item["side"] == side]
    windows = waits + [(item["start_ns"] / 1e9, item["end_ns"] / 1e9) for item in stretches]
    queries = sum(int(item["queries"]) for item in stretches)
    problem = _uncovered(times_s, windows) if waits and queries else "no stretch of this side was recorded"
    if problem is None:
        joules = [_integral(times_s, values, *window, raw["kind"] == "energy") for window in windows]
        seconds = [end - start for start, end in windows]
        idle_each = [joule / second for joule, second in zip(joules, seconds, strict=True)][: len(waits)]
        idle_w = math.fsum(joules[: len(waits)]) / math.fsum(seconds[: len(waits)])
        gross_j = math.fsum(joules[len(waits) :]) / queries
        net_j = gross_j - idle_w * math.fsum(seconds[len(waits) :]) / queries
        if max(idle_each) - min(idle_each) > MOST_IDLE_DRIFT * idle_w:
            apart = " W, then ".join(f"{watts:.2f}" for watts in idle_each)
            problem = f"idle power was not steady ({apart} W): there is none to subtract"
        elif net_j <= 0:
            problem = f"the work does not stand out from the idle power of {idle_w:.2f} W"
    if problem is not None:
        return f"{raw['source']}: {problem}"
    return Energy(str(raw["source"]), str(raw["scope"]), net_j, gross_j, idle_w, queries)


def _uncovered(times_s: Floats, windows: Sequence[tuple[float, float]]) -> str | None:
    for start_s, end_s in windows:
        if not times_s.size or times_s[0] > start_s or times_s[-1] < end_s:
            return "the samples do not cover the run"
        inside = int(((times_s >= start_s) & (times_s <= end_s)).sum())
        if inside < LEAST_SAMPLES:
            return f"{inside} samples in a window, {LEAST_SAMPLES} needed"
    return None


def energy_text(raw: Mapping[str, Any] | None) -> str:
    """Where the candidate's energy comes from, or why there is none, for people."""
    found = energy_of(raw, "candidate")
    if isinstance(found, str):
        return f"not available: {found}"
    share = f"{found.gross_j:.3g} J with the idle power of {found.idle_w:.3g} W, {found.energy_j:.3g} J above it"
    return f"{share}, over {found.queries} queries; {found.source} ({found.scope})"


def _series(raw: Mapping[str, Any]) -> tuple[Floats, Floats]:
    samples = np.asarray(raw["samples"], dtype=np.float64).reshape(-1, 2)
    times_s, values = samples[:, 0] / 1e9, samples[:, 1]
    steps = np.diff(values) if raw["kind"] == "energy" else values
    if not np.isfinite(samples).all() or (steps < 0).any() or (np.diff(times_s) <= 0).any():
        raise MeasurementError(
            f"energy from {raw['source']}",
            "its series has values that no sensor can give",
            "Look at the board's power files; the run is void",
        )
    return times_s, values


def _integral(times_s: Floats, values: Floats, start_s: float, end_s: float, counts: bool) -> float:
    """Joules between two times, both inside the series."""
    first, last = np.interp([start_s, end_s], times_s, values)
    if counts:
        return float(last - first)
    inside = (times_s > start_s) & (times_s < end_s)
    return trapezoid([start_s, *times_s[inside].tolist(), end_s], [float(first), *values[inside].tolist(), float(last)])


def trapezoid(times_s: Sequence[float], power_w: Sequence[float]) -> float:
    """Joules of power samples: neighbours' mean times their distance, summed."""
    pairs = zip(times_s[1:], times_s[:-1], power_w[1:], power_w[:-1], strict=True)
    return math.fsum((later - earlier) * (high + low) / 2 for later, earlier, high, low in pairs)
