"""How single numbers and metric names are put to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edgedeploy.evidence.bootstrap import Comparison, Estimate

TIMES: Final = "\N{MULTIPLICATION SIGN}"
MAX_DIGITS: Final = 5
"""An interval gets more digits until its ends differ, but no more than this."""

_STEPS: Final[Mapping[str, tuple[tuple[float, str], ...]]] = {
    "ns": ((1e9, "s"), (1e6, "ms"), (1e3, "\N{MICRO SIGN}s"), (1.0, "ns")),
    "bytes": ((1e9, "GB"), (1e6, "MB"), (1e3, "KB"), (1.0, "B")),
    "B*s": ((1e9, "GB*s"), (1e6, "MB*s"), (1e3, "KB*s"), (1.0, "B*s")),
    "percent": ((1.0, "%"),),
}

_HEADINGS: Final[Mapping[str, str]] = {
    "latency_p50_ns": "Latency p50",
    "latency_p90_ns": "Latency p90",
    "latency_p99_ns": "Latency p99",
    "latency_ratio": "Latency vs baseline",
    "cpu_time_ns": "CPU time",
    "cpu_time_ratio": "CPU time vs baseline",
    "cold_start_ns": "Cold start",
    "virtual_ns": "Virtual time (1 ns an instruction, no board's time)",
    "peak_memory_bytes": "Peak memory",
    "size_bytes": "Size",
    "energy_j": "Energy",
    "latency_p999_ns": "Latency p99.9",
    "latency_max_ns": "Latency max",
    "latency_p90_bound_ns": "Latency p90, bound at 99 %",
    "latency_p99_bound_ns": "Latency p99, bound at 99 %",
    "latency_p999_bound_ns": "Latency p99.9, bound at 99 %",
    "sustained_slope_percent_per_min": "Sustained slope",
    "sustained_slowdown_ratio": "Sustained slowdown",
    "sustained_temperature_rise_c": "Sustained temperature rise",
    "realtime_deadline_miss_percent": "Real-time deadlines missed",
    "realtime_drop_percent": "Real-time frames dropped",
    "multi_stream_streams": "Streams",
    "offline_throughput_per_s": "Offline throughput",
    "resources_memory_area_byte_s": "Memory over a run",
    "resources_cpu_area_core_s": "CPU over a run",
    "resources_duration_ns": "Duration of a run",
}


def heading(metric: str) -> str:
    """Column title of a metric: ``dice_mean`` is Dice mean, ``hd95_nerve_px`` is HD95 nerve."""
    if metric in _HEADINGS:
        return _HEADINGS[metric]
    words = metric.split("_")
    if len(words) > 1 and words[-1] in ("px", "mm", "ns", "bytes"):
        words = words[:-1]
    first = words[0].upper() if words[0] in ("nsd", "hd95", "iou", "auc") else words[0].capitalize()
    return " ".join([first, *words[1:]])


def phrase(metric: str) -> str:
    """A metric's heading inside a sentence: ``latency vs baseline``, but ``CPU time`` and ``HD95``."""
    text = heading(metric)
    return text if text[:2].isupper() or metric.startswith("dice") else text[0].lower() + text[1:]


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
        low, high = (_number(end, metric, unit, scale, digits) for end in (estimate.low, estimate.high))
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
    scale, suffix = scale_for(gain, unit)
    for digits in range(3, MAX_DIGITS + 1):
        number = _number(abs(gain), metric, unit, scale, digits)
        if float(number):
            return f"{_with_unit(number, metric, suffix)} {'worse' if gain < 0 else 'better'}"
    return "equal"


def comparison_text(comparison: Comparison, unit: str) -> str:
    """A gain with its one-sided lower bound: ``0.004 worse (shown to be at most 0.006 worse)``."""
    gain = gain_text(comparison.gain, comparison.metric, unit)
    if comparison.lower is None:
        return f"{gain} (too few cases to bound it)"
    bound = gain_text(comparison.lower, comparison.metric, unit)
    if bound == "equal":
        return gain if gain == "equal" else f"{gain} (shown to be no worse)"
    return f"{gain} (shown to be {'at most' if comparison.lower < 0 else 'at least'} {bound})"


def _number(value: float, metric: str, unit: str, scale: float, digits: int) -> str:
    if unit == "1" and not metric.endswith("_ratio"):
        return f"{value:.{digits}f}"
    scaled = value / scale
    if unit == "bytes" and scale == 1:
        return f"{scaled:.0f}"
    if abs(scaled) >= 10**digits - 0.5:
        return f"{scaled:.0f}"
    return f"{scaled:#.{digits}g}".removesuffix(".") if scaled else "0"


def _with_unit(number: str, metric: str, suffix: str) -> str:
    if metric.endswith("_ratio"):
        return number + TIMES
    return f"{number} {suffix}" if suffix else number
