"""What single series say, and whether a run's conditions allow numbers at all.

NaN, Inf, zero and negative values raise ``MeasurementError``: no clock and no sensor can give them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgedeploy.errors import MeasurementError
from edgedeploy.evidence.conditions import board_cause
from edgedeploy.records.job import RawSide
from edgedeploy.records.metrics import Direction

Floats = npt.NDArray[np.float64]
Blocks = Sequence[Sequence[float]]
Cases = Mapping[str, Mapping[str, float | None]]

MAD_TO_SIGMA: Final = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""

MIN_BLOCKS_FOR_DRIFT: Final = 4
"""Fewer blocks than this have no two halves to compare."""


def require_positive(values: Sequence[float], what: str) -> Floats:
    """``values`` as float64. Raises ``MeasurementError`` on NaN, Inf, zero or a negative number."""
    array = np.asarray(values, dtype=np.float64)
    bad = ~(np.isfinite(array) & (array > 0))
    if bad.any():
        where = int(np.argmax(bad))
        raise MeasurementError(
            f"measure {what}",
            f"value {where + 1} of {array.size} is {array[where]:g}",
            "A time or a size is a positive number: look at the board's clock and its agent",
        )
    return array


def nearest_rank(ordered: Floats, percent: float) -> float:
    """The smallest sample with at least ``percent`` % of all samples at or below it; ``ordered`` is ascending."""
    return float(ordered[max(0, math.ceil(percent / 100 * ordered.size) - 1)])


def block_medians(side: RawSide) -> Floats:
    """Median latency of each block in ns, in the order they ran; shape (blocks,)."""
    if len({len(block) for block in side.blocks_ns}) == 1 and side.blocks_ns[0]:
        table = np.asarray(side.blocks_ns, dtype=np.float64)
        if (np.isfinite(table) & (table > 0)).all():
            return np.asarray(np.median(table, axis=1))
    for block in side.blocks_ns:
        require_positive(block, "latency")
    return np.array([np.median(block) for block in side.blocks_ns if block], dtype=np.float64)


def cpu_per_query(side: RawSide) -> Floats:
    """CPU time of one query in ns, block by block; shape (blocks,). Empty when the board does not say."""
    if not side.cpu_ns:
        return np.empty(0)
    if len(side.cpu_ns) != len(side.blocks_ns):
        raise MeasurementError(
            "measure CPU time", f"{len(side.cpu_ns)} CPU times for {len(side.blocks_ns)} blocks", "The run is void"
        )
    pairs = [(cpu, len(block)) for cpu, block in zip(side.cpu_ns, side.blocks_ns, strict=True) if block]
    return require_positive([cpu / queries for cpu, queries in pairs], "CPU time")


def pair_ratios(ours: Floats, theirs: Floats) -> Floats:
    """Ratio of each of our blocks to the baseline's block next to it in the ABBA order; shape (pairs,)."""
    pairs = min(ours.size, theirs.size)
    return np.asarray(ours[:pairs] / theirs[:pairs], dtype=np.float64)


@dataclass(frozen=True)
class CaseSummary:
    """A task metric over the cases of a split: mean over the ``defined`` ones of ``total``, and the worst of them."""

    mean: float
    defined: int
    total: int
    worst_case: str
    worst: float


def defined_values(cases: Cases, metric: str) -> dict[str, float]:
    """Case to value where the metric is defined, by case id. Raises ``MeasurementError`` on NaN and Inf."""
    found = {}
    for case in sorted(cases):
        value = cases[case].get(metric)
        if value is None:
            continue
        if not math.isfinite(value):
            raise MeasurementError(
                f"evaluate {metric}", f"case {case} has {value}", "The task's metric must not do that"
            )
        found[case] = float(value)
    return found


def summarise_cases(cases: Cases, metric: str, direction: Direction = "maximize") -> CaseSummary | None:
    """None when the metric is defined for no case."""
    values = defined_values(cases, metric)
    if not values:
        return None
    worst = (min if direction == "maximize" else max)(values, key=lambda case: (values[case], case))
    mean = math.fsum(values.values()) / len(values)
    return CaseSummary(mean, len(values), len(cases), worst, values[worst])


@dataclass(frozen=True)
class StabilityLimits:
    """What a run may do and still give numbers: ``[measure]`` of the study file says it. ``max_drift`` and ``max_spread``
    are shares of the median latency, ``max_clock_drift`` of the clock at first."""

    max_drift: float
    max_background_cores: float
    max_spread: float
    max_heating_c: float
    max_clock_drift: float


_KEYS: Final = {
    "drift": "max_drift in [measure]: end other work there, or let the board settle",
    "spread": "max_spread in [measure]: end other work there",
    "background": "max_background_cores in [measure]: end that work, or allow more where it always runs",
}
"""Where a limit is set, and what to do about it."""


def stability(baseline: RawSide, environment: Mapping[str, Any], limits: StabilityLimits) -> str | None:
    """Why the run's conditions allow no numbers, or None when nothing was found.

    The baseline is the probe: it does the same work from the first block to the last, so what moves it is the board.
    Medians of medians, so that single interruptions on a shared host do not count. Conditions the board could not read
    are not judged.
    """
    medians = block_medians(baseline)
    if medians.size >= MIN_BLOCKS_FOR_DRIFT:
        first, second = np.median(medians[: medians.size // 2]), np.median(medians[medians.size // 2 :])
        drift = float(max(first, second) / min(first, second) - 1)
        if drift > limits.max_drift:
            word = "slower" if second > first else "faster"
            found, most = _percent_above(drift, limits.max_drift)
            return (
                f"the baseline became {found} % {word} during the run ({first / 1e6:.3g} ms, then {second / 1e6:.3g} ms); "
                f"at most {most} % is allowed ({_KEYS['drift']})"
            )
        middle = np.median(medians)
        spread = float(MAD_TO_SIGMA * np.median(np.abs(medians - middle)) / middle)
        if spread > limits.max_spread:
            found, most = _percent_above(spread, limits.max_spread)
            return (
                f"the baseline's blocks scatter by {found} % of their median; at most {most} % is allowed "
                f"({_KEYS['spread']})"
            )
    return _environment_cause(environment, limits)


def _percent_above(found: float, limit: float) -> tuple[str, str]:
    return _above(100 * found, 100 * limit, 0), f"{100 * limit:g}"


def _above(found: float, limit: float, digits: int) -> str:
    """``found`` with so many decimals, or with more where it would read as the limit that it is above."""
    texts = (f"{found:.{more}f}" for more in range(digits, digits + 4))
    return next((text for text in texts if float(text) > float(f"{limit:g}")), f"{found!r}")


def _environment_cause(environment: Mapping[str, Any], limits: StabilityLimits) -> str | None:
    share = max(_shares(environment), default=None)
    if share is not None and share > limits.max_background_cores:
        return (
            f"other processes used {_above(share, limits.max_background_cores, 2)} of a core during the run; at most "
            f"{limits.max_background_cores:g} is allowed ({_KEYS['background']})"
        )
    before, after = environment.get("before"), environment.get("after")
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        if before.get("governor") != after.get("governor"):
            return f"the clock governor changed from {before.get('governor')} to {after.get('governor')} during the run"
        counted = (throttle_events(before), throttle_events(after))
        if counted[1] > counted[0]:
            return f"the processor throttled {counted[1] - counted[0]} times during the run"
    return board_cause(environment, max_heating_c=limits.max_heating_c, max_clock_drift=limits.max_clock_drift)


def _shares(environment: Mapping[str, Any]) -> list[float]:
    """Cores that others used, during the interleaved blocks and during the scenarios, as far as the board can tell."""
    later = environment.get("scenarios", environment.get("protocols"))  # the second is what older agents called it
    parts = (environment, later or {})
    found = [part.get("background_cpu_share") for part in parts]
    return [float(share) for share in found if isinstance(share, (int, float))]


def throttle_events(snapshot: Mapping[str, Any]) -> int:
    """Sum of the whole numbers that a snapshot keeps under names that speak of throttling."""
    total = 0
    for name, value in snapshot.items():
        if "throttle" not in name:
            continue
        counts = value.values() if isinstance(value, Mapping) else [value]
        total += sum(n for n in counts if isinstance(n, int) and not isinstance(n, bool))
    return total
