"""How single numbers and metric names are put to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edgedeploy.evidence.bootstrap import Comparison, Estimate
from edgedeploy.records.metric_table import BOARD_METRICS
from edgedeploy.records.metrics import derived_heading
from edgedeploy.records.units import decimal

TIMES_SIGN: Final = "\N{MULTIPLICATION SIGN}"
MAX_DIGITS: Final = 5
"""An interval gets more digits until its ends differ, but no more than this."""

LEAST_GAIN: Final = 1e-12
"""Less is rounding: of means over cases, in double precision."""

_STEPS: Final[Mapping[str, tuple[tuple[float, str], ...]]] = {
    "ns": ((1e9, "s"), (1e6, "ms"), (1e3, "\N{MICRO SIGN}s"), (1.0, "ns")),
    "bytes": ((1e9, "GB"), (1e6, "MB"), (1e3, "KB"), (1.0, "B")),
    "B*s": ((1e9, "GB*s"), (1e6, "MB*s"), (1e3, "KB*s"), (1.0, "B*s")),
    "J": ((1.0, "J"), (1e-3, "mJ"), (1e-6, "\N{MICRO SIGN}J")),
    "percent": ((1.0, "%"),),
}


def heading(metric: str) -> str:
    """Column title of a metric, a board's or a task's."""
    row = BOARD_METRICS.get(metric)
    return row.heading if row else derived_heading(metric)


def phrase(metric: str) -> str:
    """A metric's heading inside a sentence: ``latency vs baseline``, but ``CPU time`` and ``HD95``."""
    text = heading(metric)
    return text if text[:2].isupper() or metric.startswith("dice") else text[:1].lower() + text[1:]


def scale_for(value: float, unit: str) -> tuple[float, str]:
    """What to divide a value in a base unit by, and the unit that makes it: (1e6, ``ms``) for some milliseconds."""
    steps = _STEPS.get(unit, ((1.0, "" if unit == "1" else unit),))
    return next((step for step in steps if abs(value) >= step[0]), steps[-1])


def quantity(value: float, metric: str, unit: str) -> str:
    """A value with its unit, three significant digits (three decimals without a unit): ``1.50 ms``, ``0.846``."""
    return _with_unit(_number(value, metric, unit, scale_for(value, unit)[0], 3), metric, scale_for(value, unit)[1])


def span(estimate: Estimate, metric: str, unit: str) -> str:
    """``1.49 to 1.51 ms``, in the unit of the value itself; nothing when the value has no interval."""
    if estimate.low is None or estimate.high is None:
        return ""
    scale, suffix = scale_for(estimate.value, unit)
    for digits in range(3, MAX_DIGITS + 1):
        low, high = (_number(end, metric, unit, scale, digits, fixed=True) for end in (estimate.low, estimate.high))
        if low != high:
            return f"{low} to {_with_unit(high, metric, suffix)}"
    low, high = (_number(end, metric, unit, scale, 3) for end in (estimate.low, estimate.high))
    return f"{low} to {_with_unit(high, metric, suffix)}"


def with_span(estimate: Estimate, metric: str, unit: str) -> str:
    """``2.31 ms (2.28 to 2.35 ms)``."""
    text, interval = quantity(estimate.value, metric, unit), span(estimate, metric, unit)
    return f"{text} ({interval})" if interval else text


def gain_text(gain: float, metric: str, unit: str) -> str:
    """``0.004 better``, ``0.004 worse`` or ``equal``: reads the same whichever way the metric points."""
    if abs(gain) < LEAST_GAIN:
        return "equal"
    scale, suffix = scale_for(gain, unit)
    for digits in range(3, MAX_DIGITS + 1):
        number = _number(abs(gain), metric, unit, scale, digits, fixed=digits < MAX_DIGITS)
        if float(number):
            break
    return f"{_with_unit(number, metric, suffix)} {'worse' if gain < 0 else 'better'}"


def comparison_text(comparison: Comparison, unit: str) -> str:
    """A gain with its one-sided lower bound: ``0.004 worse (shown to be at most 0.006 worse)``."""
    gain = gain_text(comparison.gain, comparison.metric, unit)
    if comparison.lower is None:
        return f"{gain} (too few cases to bound it)"
    bound = gain_text(comparison.lower, comparison.metric, unit)
    if bound == "equal":
        return gain if gain == "equal" else f"{gain} (shown to be no worse)"
    return f"{gain} (shown to be {'at most' if comparison.lower < 0 else 'at least'} {bound})"


def _number(value: float, metric: str, unit: str, scale: float, digits: int, *, fixed: bool = False) -> str:
    """``fixed``: so many decimals without a unit, whatever they leave of a small number."""
    if unit == "1" and not _in_times(metric):
        return f"{value:.{digits}f}" if fixed else decimal(value, digits)
    scaled = value / scale
    if unit == "bytes" and scale == 1:
        return f"{scaled:.0f}"
    if abs(scaled) >= 10**digits - 0.5:
        return f"{scaled:.0f}"
    return f"{scaled:#.{digits}g}".removesuffix(".") if scaled else "0"


def _with_unit(number: str, metric: str, suffix: str) -> str:
    if _in_times(metric):
        return number + TIMES_SIGN
    return f"{number} {suffix}" if suffix else number


def _in_times(metric: str) -> bool:
    row = BOARD_METRICS.get(metric)
    return row is not None and row.shown == "times"
