"""Every metric that a board was asked for, as a number or as the reason why there is none: rows of the table, read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from edgedeploy.evidence.samples import Sample, sample_from
from edgedeploy.evidence.scenarios import SCENARIO_SERIES
from edgedeploy.evidence.series import RUN_SERIES, Reader, Run
from edgedeploy.records.artifact import Artifact
from edgedeploy.records.job import RawSide
from edgedeploy.records.metric_table import METRICS, OF_IMAGES, OF_PACKED, RUN_METRICS, SCENARIO_METRICS
from edgedeploy.records.metrics import Clock, Metric

SERIES: Final[Mapping[str, Reader]] = {**RUN_SERIES, **SCENARIO_SERIES}
"""What a row may name as its series."""

if unknown := sorted({row.source.series for row in METRICS} - set(SERIES)):
    raise ValueError(f"metrics name series that nobody reads: {', '.join(unknown)}; there are {', '.join(SERIES)}")


def read(row: Metric, run: Run) -> Sample | str:
    """What the metric was taken from, or the reason why there is none.

    Raises ``MeasurementError`` for values that no clock and no sensor can give, and for frames that are not accounted for.
    """
    series = SERIES[row.source.series](run)
    if series is None:
        return row.missing
    return series if isinstance(series, str) else sample_from(series, row.source)


def board_metrics(
    candidate: RawSide,
    baseline: RawSide | None,
    artifact: Artifact,
    power: Mapping[str, Any] | None = None,
    clock: Clock = "wall",
    images: Mapping[str, int] = MappingProxyType({}),
) -> tuple[dict[str, float], dict[str, str]]:
    """Every name of ``RUN_METRICS`` either as a number or as the reason why there is none.

    ``power`` is what the agent recorded of the board's power, ``images`` the bytes of coded images.
    What a board with this ``clock`` cannot tell is not read. On a virtual clock the process's CPU time is its
    instruction count: time that the server or the kernel took between is not in it, which a reading of the clock itself
    would have. Of the blocks the smallest counts there: interrupts within a block add to its count, nothing takes from
    it, and how many fall into a block differs from boot to boot.
    """
    also = [*[OF_IMAGES] * bool(images), *[OF_PACKED] * bool(artifact.decode_ns)]
    rows = [*RUN_METRICS.values(), *(row for name in also for row in SCENARIO_METRICS[name].values())]
    return _numbers(rows, Run(candidate, baseline, artifact, power, images=images), clock)


def scenario_metrics(
    asked: Sequence[str], candidate: RawSide, raw: Mapping[str, Any]
) -> tuple[dict[str, float], dict[str, str]]:
    """As :func:`board_metrics`, of the scenarios that were asked for; ``raw`` maps each to its series, the single
    stream is the candidate's interleaved blocks."""
    rows = [row for name in asked for row in SCENARIO_METRICS.get(name, {}).values()]
    return _numbers(rows, Run(candidate, scenarios=raw))


def _numbers(rows: Iterable[Metric], run: Run, clock: Clock = "wall") -> tuple[dict[str, float], dict[str, str]]:
    metrics: dict[str, float] = {}
    missing: dict[str, str] = {}
    for row in rows:
        found = row.not_by_clock[clock] if clock in row.not_by_clock else read(row, run)
        if isinstance(found, str):
            missing[row.name] = found
        else:
            metrics[row.name] = found.value
    return metrics, missing
