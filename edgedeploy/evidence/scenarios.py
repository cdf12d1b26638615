"""From the raw series of measuring protocols to numbers, each with what it was taken from.

A protocol's reading gives :class:`Reading`: its metrics, the reasons for those it lacks, and for each metric a sample that
the bootstrap may draw anew (none for a maximum, or for a search with one outcome).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from edgedeploy.errors import MeasurementError
from edgedeploy.evidence.statistics import Blocks, Floats, nearest_rank, require_positive
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metrics import PROTOCOL_METRICS
from edgedeploy.runtime.scenarios.earlystopping import percentile_bound, queries_needed, slow_allowed
from edgedeploy.runtime.scenarios.schedule import Replay

FEWEST_PER_BLOCK: Final = 8
MOST_BLOCKS: Final = 100
"""Frames follow one another and are not independent: they are drawn in blocks of neighbours, at most this many."""


@dataclass(frozen=True)
class Percentile:
    """A percentile of all observations; blocks of them are drawn."""

    blocks: Blocks
    percent: float


@dataclass(frozen=True)
class Ratio:
    """``scale`` times the sum of numerators over the sum of denominators; pairs are drawn, shape (pairs, 2)."""

    pairs: Floats
    scale: float = 1.0

    @property
    def value(self) -> float:
        return float(self.scale * self.pairs[:, 0].sum() / self.pairs[:, 1].sum())


@dataclass(frozen=True)
class Share(Ratio):
    """A ratio of events to frames: where none or all of the frames were hit, drawing them anew would always give the same,
    so the share itself is drawn, from the Jeffreys posterior of a binomial."""

    @property
    def one_sided(self) -> bool:
        events, frames = self.pairs.sum(axis=0)
        return bool(events in (0, frames))


@dataclass(frozen=True)
class Median:
    """The median of independent repeats, which are drawn."""

    values: Floats


@dataclass(frozen=True)
class Slope:
    """A fitted slope with its standard error; drawn from Student's t with ``freedom`` degrees."""

    value: float
    error: float
    freedom: float


Sample = Percentile | Ratio | Median | Slope


@dataclass
class Reading:
    """``values`` and ``missing`` together are all metrics of the protocol; ``samples`` has those that have a spread."""

    values: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    samples: dict[str, Sample] = field(default_factory=dict)


def protocol_metrics(
    asked: Sequence[str], blocks_ns: Blocks, raw: Mapping[str, Any]
) -> tuple[dict[str, float], dict[str, str]]:
    """Every metric of the protocols that were asked for, as a number or as the reason why there is none.

    ``blocks_ns`` are the candidate's interleaved blocks, ``raw`` the series of the other protocols. Raises
    ``MeasurementError`` for values that no clock can give, and for frames that are not accounted for.
    """
    metrics: dict[str, float] = {}
    missing: dict[str, str] = {}
    for name in asked:
        reading = read_protocol(name, blocks_ns, raw)
        metrics.update(reading.values)
        missing.update(reading.missing)
        for metric in PROTOCOL_METRICS[name]:
            if metric not in metrics and metric not in missing:
                missing[metric] = "this run's settings do not give it"
    return metrics, missing


def sample_of(measurement: Measurement, metric: str) -> Sample | None:
    """What a protocol's metric was taken from; None where nothing can be drawn anew."""
    name = next(name for name, table in PROTOCOL_METRICS.items() if metric in table)
    return read_protocol(name, measurement.candidate.blocks_ns, measurement.protocols).samples.get(metric)


def read_protocol(name: str, blocks_ns: Blocks, raw: Mapping[str, Any]) -> Reading:
    if name == "single_stream":
        return single_stream(blocks_ns)
    if name not in raw:
        raise MeasurementError(f"measure {name}", "the board sent nothing for it", "Run it again; keep the agent's log")
    return _READERS[name](raw[name])


def single_stream(blocks_ns: Blocks) -> Reading:
    """Far percentiles of the interleaved queries, and LoadGen's early-stopping estimates, which bound them from above."""
    found = Reading()
    filled = [block for block in blocks_ns if block]
    ordered = np.sort(require_positive([n for block in filled for n in block], "latency"))
    if ordered.size:
        found.values["latency_max_ns"] = float(ordered[-1])
    for percent, digits in ((90.0, "90"), (99.0, "99"), (99.9, "999")):
        needed = queries_needed(percent)
        bound = percentile_bound(ordered.tolist(), percent)
        names = [f"latency_p{digits}_bound_ns"] + ([f"latency_p{digits}_ns"] if percent == 99.9 else [])
        if bound is None:
            found.missing |= dict.fromkeys(names, f"{ordered.size} queries, {needed} needed for it at 99 % confidence")
            continue
        rank = ordered.size - slow_allowed(ordered.size, percent) + 1
        found.values[names[0]] = bound
        found.samples[names[0]] = Percentile(filled, 100 * (rank - 0.5) / ordered.size)
        for name in names[1:]:
            found.values[name] = nearest_rank(ordered, percent)
            found.samples[name] = Percentile(filled, percent)
    return found


def sustained(raw: Mapping[str, Any]) -> Reading:
    """Of the windows' medians: their median, their trend, and the last fifth against the first."""
    found = Reading()
    windows = raw["windows"]
    medians = require_positive([window["p50_ns"] for window in windows], "sustained latency")
    found.values["sustained_latency_p50_ns"] = float(np.median(medians))
    found.samples["sustained_latency_p50_ns"] = Median(medians)
    fifth = medians.size // 5
    if fifth:
        ratio = float(np.median(medians[-fifth:]) / np.median(medians[:fifth]))
        found.values["sustained_slowdown_ratio"] = ratio
        minutes = np.array([window["start_ns"] for window in windows], dtype=np.float64) / 60e9
        slope = trend(minutes, 100 * medians / medians.mean())
        found.values["sustained_slope_percent_per_min"] = slope.value
        found.samples["sustained_slope_percent_per_min"] = slope
    else:
        why = f"{medians.size} windows, 5 needed"
        found.missing |= {"sustained_slowdown_ratio": why, "sustained_slope_percent_per_min": why}
    zones = [conditions.get("temperatures_c") or {} for conditions in raw["conditions"]]
    rises = [zones[-1][zone] - zones[0][zone] for zone in zones[0] if zone in zones[-1]] if zones else []
    if rises:
        found.values["sustained_temperature_rise_c"] = float(max(rises))
    else:
        found.missing["sustained_temperature_rise_c"] = "no temperature sensor"
    return found


def trend(at: Floats, values: Floats) -> Slope:
    """Least-squares slope. Neighbouring windows resemble each other, so the count behind its standard error is reduced by
    the residuals' lag-1 correlation r to n (1 - r) / (1 + r) (Santer et al. 2000, J. Geophys. Res. 105, 7337)."""
    centred = at - at.mean()
    spread = float((centred**2).sum())
    slope = float((centred * values).sum() / spread)
    residuals = values - values.mean() - slope * centred
    power = float((residuals**2).sum())
    correlation = float((residuals[1:] * residuals[:-1]).sum() / power) if power else 0.0
    count = values.size * (1 - max(0.0, correlation)) / (1 + max(0.0, correlation))
    freedom = max(1.0, count - 2)
    return Slope(slope, float(np.sqrt(power / freedom / spread)), freedom)


def realtime(raw: Mapping[str, Any]) -> Reading:
    try:
        replay = Replay.from_json(raw)
    except ValueError as exc:
        raise MeasurementError("measure realtime", str(exc), "The run is void") from exc
    found = Reading()
    count = len(replay.arrivals_ns)
    dropped = {frame for frame, _ in replay.dropped}
    _add(found, "realtime_deadline_miss_percent", Share(_sums(replay.missed()), 100.0))
    _add(found, "realtime_drop_percent", Share(_sums([frame in dropped for frame in range(count)]), 100.0))
    ages = require_positive(replay.ages_ns(), "age of a result")
    if not ages.size:
        timed = [name for name in PROTOCOL_METRICS["realtime"] if name.endswith("_ns")]
        found.missing |= dict.fromkeys(timed, f"none of {count} frames was processed")
        return found
    found.values["realtime_result_age_max_ns"] = float(ages.max())
    for percent, needed in ((50, 1), (99, queries_needed(99))):
        name = f"realtime_result_age_p{percent}_ns"
        if ages.size < needed:
            found.missing[name] = f"{ages.size} results, {needed} needed for this percentile at 99 % confidence"
        else:
            found.values[name] = nearest_rank(np.sort(ages), percent)
            found.samples[name] = Percentile(_blocks(ages), percent)
    if ages.size > 1:
        _add(found, "realtime_jitter_ns", Ratio(_sums(np.abs(np.diff(ages)).tolist())))
    shown = replay.shown_age_ns()
    if shown is not None:
        found.values["realtime_shown_age_mean_ns"] = shown
    for stage, times_ns in raw["stages_ns"].items():
        times = require_positive(times_ns, f"time of stage {stage}")
        name = f"realtime_{stage}_ns"
        found.values[name] = nearest_rank(np.sort(times), 50)
        found.samples[name] = Percentile(_blocks(times), 50)
    return found


def multi_stream(raw: Mapping[str, Any]) -> Reading:
    found = Reading()
    if raw["streams"] == raw["most"]:
        found.missing["multi_stream_streams"] = f"all of {raw['most']} streams hold: raise `most`"
    else:
        found.values["multi_stream_streams"] = float(raw["streams"])
    return found


def offline(raw: Mapping[str, Any]) -> Reading:
    elapsed = require_positive(raw["elapsed_ns"], "offline time")
    rate = Ratio(np.stack([np.asarray(raw["samples"], dtype=np.float64), elapsed], axis=1), scale=1e9)
    return Reading({"offline_throughput_per_s": rate.value}, samples={"offline_throughput_per_s": rate})


def resources(raw: Mapping[str, Any]) -> Reading:
    """Medians over the repeats of each run's areas: every look counts for the time since the one before it."""
    found = Reading()
    memory, cpu, duration = [], [], []
    for run in raw["runs"]:
        at = require_positive(run["at_ns"], "time of a look at the resources")
        memory.append(float((np.diff(at, prepend=0.0) * run["resident_bytes"]).sum()) / 1e9)
        cpu.append(run["cpu_ns"][-1] / 1e9)
        duration.append(float(at[-1]))
    for name, values in (
        ("resources_memory_area_byte_s", memory),
        ("resources_cpu_area_core_s", cpu),
        ("resources_duration_ns", duration),
    ):
        series = require_positive(values, name)
        found.values[name] = float(np.median(series))
        found.samples[name] = Median(series)
    return found


_READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Reading]]] = {
    "sustained": sustained,
    "realtime": realtime,
    "multi_stream": multi_stream,
    "offline": offline,
    "resources": resources,
}


def _add(found: Reading, name: str, sample: Ratio) -> None:
    found.values[name] = sample.value
    found.samples[name] = sample


def _sums(values: Sequence[float]) -> Floats:
    """Sum and count of each block; shape (blocks, 2)."""
    blocks = _blocks(np.asarray(values, dtype=np.float64))
    return np.array([[sum(block), len(block)] for block in blocks], dtype=np.float64)


def _blocks(values: Floats) -> list[list[float]]:
    """Neighbours together: blocks of the same size or one less."""
    count = max(1, min(MOST_BLOCKS, values.size // FEWEST_PER_BLOCK))
    return [part.tolist() for part in np.array_split(values, count)]
