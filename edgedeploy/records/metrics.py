"""What a board can be asked for: every metric with its unit and direction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Direction = Literal["minimize", "maximize"]

Clock = Literal["wall", "virtual", "none"]
"""What a board's times are: real; a count of instructions, 1 ns each; or an emulator's pace, of which no number is made."""

QUERIES_FOR_PERCENTILE: Final[Mapping[float, int]] = {50: 1, 90: 64, 99: 662, 99.9: 6636}
"""Fewest queries before a percentile may be stated at 99 % confidence (MLPerf LoadGen's early-stopping bound, which
``runtime/scenarios/earlystopping.py`` computes). The median is stated from the first query on."""


@dataclass(frozen=True)
class MetricInfo:
    """What a metric is: its better direction, its unit (``ns``, ``bytes``, ``px``, ``1``) and one line for people."""

    direction: Direction
    unit: str
    text: str


RUN_METRICS: Final[Mapping[str, MetricInfo]] = {
    "latency_p50_ns": MetricInfo("minimize", "ns", "median steady latency of one inference"),
    "latency_p90_ns": MetricInfo("minimize", "ns", "90th percentile of the steady latency (64 queries or more)"),
    "latency_p99_ns": MetricInfo("minimize", "ns", "99th percentile of the steady latency (662 queries or more)"),
    "latency_ratio": MetricInfo("minimize", "1", "median latency over the baseline's, interleaved in one session"),
    "cpu_time_ns": MetricInfo("minimize", "ns", "CPU time of all threads per inference"),
    "cpu_time_ratio": MetricInfo("minimize", "1", "CPU time over the baseline's, interleaved in one session"),
    "cold_start_ns": MetricInfo("minimize", "ns", "process start to first output, median of the repeats"),
    "peak_memory_bytes": MetricInfo("minimize", "bytes", "peak resident memory of the process that runs it"),
    "virtual_ns": MetricInfo("minimize", "ns", "instructions of one inference, 1 ns each (emulated; no board's time)"),
    "size_bytes": MetricInfo("minimize", "bytes", "size of the artifact's files"),
    "energy_j": MetricInfo("minimize", "J", "energy of one inference (null without a sensor)"),
}
"""Metrics that every board measurement produces; a task adds its own accuracy metrics."""

PROTOCOL_METRICS: Final[Mapping[str, Mapping[str, MetricInfo]]] = {
    "single_stream": {
        "latency_p999_ns": MetricInfo(
            "minimize", "ns", "99.9th percentile of the steady latency (6636 queries or more)"
        ),
        "latency_max_ns": MetricInfo("minimize", "ns", "slowest steady query that was seen"),
        "latency_p90_bound_ns": MetricInfo("minimize", "ns", "90 % of queries are no slower, at 99 % confidence"),
        "latency_p99_bound_ns": MetricInfo("minimize", "ns", "99 % of queries are no slower, at 99 % confidence"),
        "latency_p999_bound_ns": MetricInfo("minimize", "ns", "99.9 % of queries are no slower, at 99 % confidence"),
    },
    "sustained": {
        "sustained_latency_p50_ns": MetricInfo("minimize", "ns", "median of the windows' median latencies"),
        "sustained_slope_percent_per_min": MetricInfo("minimize", "%/min", "growth of the windows' median latency"),
        "sustained_slowdown_ratio": MetricInfo("minimize", "1", "median latency of the last fifth over the first"),
        "sustained_temperature_rise_c": MetricInfo(
            "minimize", "C", "largest rise of a thermal zone from first to last"
        ),
    },
    "realtime": {
        "realtime_deadline_miss_percent": MetricInfo("minimize", "percent", "frames without a result in time"),
        "realtime_drop_percent": MetricInfo("minimize", "percent", "frames that were dropped for newer ones"),
        "realtime_result_age_p50_ns": MetricInfo("minimize", "ns", "median age of a frame when its result is ready"),
        "realtime_result_age_p99_ns": MetricInfo("minimize", "ns", "99th percentile of the age (662 results or more)"),
        "realtime_result_age_max_ns": MetricInfo("minimize", "ns", "oldest frame when its result was ready"),
        "realtime_shown_age_mean_ns": MetricInfo("minimize", "ns", "age of the newest result, mean over time"),
        "realtime_jitter_ns": MetricInfo("minimize", "ns", "mean change of the age from one result to the next"),
        "realtime_decode_ns": MetricInfo("minimize", "ns", "median time to decode a frame"),
        "realtime_resize_ns": MetricInfo("minimize", "ns", "median time to resize a frame"),
        "realtime_inference_ns": MetricInfo("minimize", "ns", "median time of the inference between arrivals"),
        "realtime_overlay_ns": MetricInfo("minimize", "ns", "median time to draw the result on the frame"),
    },
    "multi_stream": {
        "multi_stream_streams": MetricInfo("maximize", "streams", "most streams that hold the deadline together"),
    },
    "offline": {
        "offline_throughput_per_s": MetricInfo(
            "maximize", "/s", "inferences a second when all samples are there at once"
        ),
    },
    "resources": {
        "resources_memory_area_byte_s": MetricInfo(
            "minimize", "B*s", "area under the curve of resident memory of a run"
        ),
        "resources_cpu_area_core_s": MetricInfo("minimize", "s", "area under the curve of cores in use: CPU seconds"),
        "resources_duration_ns": MetricInfo("minimize", "ns", "whole run: process start, load and all inferences"),
    },
}
"""What each measuring protocol adds when a study names it in ``[measure] protocols``."""

ACROSS_BOARDS: Final = frozenset({"latency_ratio", "cpu_time_ratio", "size_bytes"})
"""Board metrics that compare across boards of one kind: the baseline ran interleaved on the same board, or nothing ran."""

BOARD_METRICS: Final[Mapping[str, MetricInfo]] = {
    **RUN_METRICS,
    **{name: info for table in PROTOCOL_METRICS.values() for name, info in table.items()},
}
"""Every metric that a board can produce, asked for or not: what is not here belongs to the task."""

TIMES: Final = (
    *("latency_p50_ns", "latency_p90_ns", "latency_p99_ns", "latency_ratio"),
    *("cpu_time_ns", "cpu_time_ratio", "cold_start_ns"),
)


def not_told_by(clock: Clock) -> dict[str, str]:
    """The metrics that a board with this clock cannot give, each with the reason."""
    if clock == "wall":
        return {"virtual_ns": 'instructions are counted by an emulated board alone (machine = "arm64-system")'}
    if clock == "virtual":
        return dict.fromkeys(TIMES, "an emulated processor counts instructions (virtual_ns); that is no board's time")
    reason = "the pace and the memory of an instruction emulator are no board's"
    return dict.fromkeys((*TIMES, "peak_memory_bytes", "virtual_ns"), reason)
