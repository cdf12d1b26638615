"""The metrics of boards: one row each, with all that anybody knows of it.

A row says what the metric is for people, what it is read from, what may be concluded from it and why it may be missing.
``evidence/metrics.py`` reads rows; study files, fronts and reports look them up here. ``docs/extend/metric.md`` says how to
add one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from edgedeploy.records.metrics import Clock, Metric, Source
from edgedeploy.records.scenario_metrics import SCENARIO_ROWS

_NO_PACE: Final = "the pace and the memory of an instruction emulator are no board's"
_BOARD_TIME: Final[Mapping[Clock, str]] = {
    "virtual": "an emulated processor counts instructions (virtual_ns); that is no board's time",
    "none": _NO_PACE,
}
_NOT_COUNTED: Final[Mapping[Clock, str]] = {
    "wall": 'instructions are counted by an emulated board alone (machine = "arm64-system")',
    "none": _NO_PACE,
}
_NO_ENERGY: Final = "an emulated board has no energy of its own"
_NO_QUERIES: Final = "no timed queries were asked for"
_NO_CPU_TIME: Final = "the board gives no CPU time"

OF_IMAGES: Final = "images"
"""What a study measures that searches ``image_codec``, beside the scenarios that it names."""

OF_PACKED: Final = "packed"
"""What a study measures of variants whose weights are packed (`storage`). No goal: what is not packed has none of it."""

METRICS: Final[Sequence[Metric]] = (
    Metric(
        name="latency_p50_ns",
        heading="Latency p50",
        unit="ns",
        text="median steady latency of one inference",
        source=Source("latencies", "percentile", 50),
        missing=_NO_QUERIES,
        not_by_clock=_BOARD_TIME,
        strict=True,
        key=True,
    ),
    Metric(
        name="latency_p90_ns",
        heading="Latency p90",
        unit="ns",
        text="90th percentile of the steady latency (64 queries or more)",
        source=Source("latencies", "percentile", 90),
        missing=_NO_QUERIES,
        not_by_clock=_BOARD_TIME,
        strict=True,
    ),
    Metric(
        name="latency_p99_ns",
        heading="Latency p99",
        unit="ns",
        text="99th percentile of the steady latency (662 queries or more)",
        source=Source("latencies", "percentile", 99),
        missing=_NO_QUERIES,
        not_by_clock=_BOARD_TIME,
        strict=True,
    ),
    Metric(
        name="latency_ratio",
        heading="Latency vs baseline",
        unit="1",
        text="median latency over the baseline's, interleaved in one session",
        source=Source("latency ratios", "median"),
        missing=_NO_QUERIES,
        not_by_clock=_BOARD_TIME,
        shown="times",
        strict=True,
        relative=True,
        across_boards=True,
        key=True,
    ),
    Metric(
        name="cpu_time_ns",
        heading="CPU time",
        unit="ns",
        text="CPU time of all threads per inference",
        source=Source("CPU times", "median"),
        missing=_NO_CPU_TIME,
        not_by_clock=_BOARD_TIME,
        strict=True,
    ),
    Metric(
        name="cpu_time_ratio",
        heading="CPU time vs baseline",
        unit="1",
        text="CPU time over the baseline's, interleaved in one session",
        source=Source("CPU time ratios", "median"),
        missing=_NO_CPU_TIME,
        not_by_clock=_BOARD_TIME,
        shown="times",
        strict=True,
        relative=True,
        across_boards=True,
    ),
    Metric(
        name="cold_start_ns",
        heading="Cold start",
        unit="ns",
        text="process start to first output, median of the repeats",
        source=Source("cold starts", "median"),
        missing="no cold starts were asked for",
        not_by_clock=_BOARD_TIME,
    ),
    Metric(
        name="peak_memory_bytes",
        heading="Peak memory",
        unit="bytes",
        text="peak resident memory of the process that runs it",
        source=Source("peak memory"),
        not_by_clock={"none": _NO_PACE},
        exact=True,
    ),
    Metric(
        name="virtual_ns",
        heading="Virtual time (1 ns an instruction, no board's time)",
        unit="ns",
        text="instructions of one inference, 1 ns each (emulated; no board's time)",
        source=Source("CPU times", "minimum"),
        missing=_NO_CPU_TIME,
        not_by_clock=_NOT_COUNTED,
    ),
    Metric(
        name="size_bytes",
        heading="Size",
        unit="bytes",
        text="size of the artifact's files",
        source=Source("size"),
        exact=True,
        across_boards=True,
        key=True,
    ),
    Metric(
        name="shipped_bytes",
        heading="Shipped",
        unit="bytes",
        text="size of the packed weights (`storage`), or of the artifact's files where weights are shipped as they are",
        source=Source("shipped"),
        exact=True,
        across_boards=True,
    ),
    Metric(
        name="storage_decode_ns",
        heading="Decoding, CPU of the study's host",
        unit="ns",
        text="CPU time of decoding the packed weights, on the host that ran the study: no board's time",
        source=Source("decoding", "median"),
        missing="nothing is packed, or its decoding was not timed",
        scenario=OF_PACKED,
    ),
    Metric(
        name="image_bytes",
        heading="Bytes of an image",
        unit="bytes",
        text="mean size of the coded images, or of their pixels where nothing is coded",
        source=Source("image bytes"),
        scenario=OF_IMAGES,
        exact=True,
        across_boards=True,
    ),
    Metric(
        name="energy_j",
        heading="Energy",
        unit="J",
        text="energy of one inference (null without a sensor)",
        source=Source("energy"),
        missing="no sensor",
        not_by_clock={"virtual": _NO_ENERGY, "none": _NO_ENERGY},
        not_emulated=_NO_ENERGY,
    ),
    Metric(
        name="latency_p999_ns",
        heading="Latency p99.9",
        unit="ns",
        text="99.9th percentile of the steady latency (6636 queries or more)",
        source=Source("latencies", "percentile", 99.9),
        missing=_NO_QUERIES,
        scenario="single_stream",
    ),
    Metric(
        name="latency_max_ns",
        heading="Latency max",
        unit="ns",
        text="slowest steady query that was seen",
        source=Source("latencies", "maximum"),
        missing=_NO_QUERIES,
        scenario="single_stream",
    ),
    Metric(
        name="latency_p90_bound_ns",
        heading="Latency p90, bound at 99 %",
        unit="ns",
        text="90 % of queries are no slower, at 99 % confidence",
        source=Source("latencies", "bound", 90),
        missing=_NO_QUERIES,
        scenario="single_stream",
    ),
    Metric(
        name="latency_p99_bound_ns",
        heading="Latency p99, bound at 99 %",
        unit="ns",
        text="99 % of queries are no slower, at 99 % confidence",
        source=Source("latencies", "bound", 99),
        missing=_NO_QUERIES,
        scenario="single_stream",
    ),
    Metric(
        name="latency_p999_bound_ns",
        heading="Latency p99.9, bound at 99 %",
        unit="ns",
        text="99.9 % of queries are no slower, at 99 % confidence",
        source=Source("latencies", "bound", 99.9),
        missing=_NO_QUERIES,
        scenario="single_stream",
    ),
    Metric(
        name="sustained_latency_p50_ns",
        unit="ns",
        text="median of the windows' median latencies",
        source=Source("sustained medians", "median"),
        scenario="sustained",
    ),
    Metric(
        name="sustained_slope_percent_per_min",
        heading="Sustained slope",
        unit="%/min",
        text="growth of the windows' median latency",
        source=Source("sustained course", "slope"),
        scenario="sustained",
        signed=True,
    ),
    Metric(
        name="sustained_slowdown_ratio",
        heading="Sustained slowdown",
        unit="1",
        text="median latency of the last fifth over the first",
        source=Source("sustained slowdown"),
        scenario="sustained",
        shown="times",
    ),
    Metric(
        name="sustained_temperature_rise_c",
        heading="Sustained temperature rise",
        unit="C",
        text="largest rise of a thermal zone from first to last",
        source=Source("sustained heating"),
        missing="no temperature sensor",
        scenario="sustained",
        signed=True,
    ),
    *SCENARIO_ROWS,
)
"""Every metric that a board can produce, in the order of the report's tables; a task adds its own accuracy metrics."""

SCENARIO_TITLES: Final[Mapping[str, str]] = {
    "single_stream": "Single stream: rare slow queries, and bounds that hold at 99 % confidence",
    "sustained": "Under load for minutes",
    "realtime": "In real time: frames arrive whether the model is ready or not",
    "multi_stream": "Several streams at once",
    "offline": "All samples at once",
    "resources": "Resources of a whole run, from process start to its end",
    "flare": "Every case in a process of its own, by the rules of the FLARE challenge",
    OF_PACKED: "Packed weights, on the host that ran the study",
    OF_IMAGES: "Images on their way to the model, as their codec leaves them",
    "server": "Many users at one server: requests come when they like, wait in one queue and are answered in batches",
}
"""What the report writes above a scenario's metrics."""


def scenario_title(name: str) -> str:
    """The scenario's own title, or its name for people."""
    return SCENARIO_TITLES.get(name) or name.replace("_", " ").capitalize()


def by_name(rows: Sequence[Metric]) -> dict[str, Metric]:
    """Raises ``ValueError`` for a name that stands twice."""
    found = {row.name: row for row in rows}
    if len(found) < len(rows):
        double = sorted({row.name for row in rows if [other.name for other in rows].count(row.name) > 1})
        raise ValueError(f"metrics must differ, but {', '.join(double)} stands twice")
    return found


BOARD_METRICS: Final[Mapping[str, Metric]] = by_name(METRICS)
"""The table by name. What is not in it belongs to the task."""

RUN_METRICS: Final[Mapping[str, Metric]] = {row.name: row for row in METRICS if row.scenario is None}
"""What every board measurement produces."""

SCENARIO_METRICS: Final[Mapping[str, Mapping[str, Metric]]] = {
    scenario: {row.name: row for row in METRICS if row.scenario == scenario}
    for scenario in dict.fromkeys([*SCENARIO_TITLES, *(row.scenario for row in METRICS if row.scenario)])
}
"""What each scenario adds when a study names it in ``[measure] scenarios``."""

_OF_KEYS: Final = {"image_codec": OF_IMAGES, "storage": OF_PACKED}


def of_space(keys: Iterable[str]) -> dict[str, Metric]:
    """What a study measures because its space has these keys."""
    found = [SCENARIO_METRICS[_OF_KEYS[key]] for key in keys if key in _OF_KEYS]
    return {name: row for table in found for name, row in table.items()}


ACROSS_BOARDS: Final = frozenset(row.name for row in METRICS if row.across_boards)
KEY_METRICS: Final = tuple(row.name for row in METRICS if row.key)


def is_relative(name: str) -> bool:
    """Whether the metric is over the baseline's already."""
    return name in BOARD_METRICS and BOARD_METRICS[name].relative


def not_told_by(clock: Clock) -> dict[str, str]:
    """The metrics that a board with this clock cannot give, each with the reason."""
    return {row.name: row.not_by_clock[clock] for row in METRICS if clock in row.not_by_clock}
