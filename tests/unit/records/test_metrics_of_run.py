"""From raw series to the numbers of a report: every metric is a number or a reason."""

from __future__ import annotations

import dataclasses

import made_up
import pytest

from edgedeploy.errors import MeasurementError
from edgedeploy.evidence.metrics import board_metrics
from edgedeploy.records.job import RawSide
from edgedeploy.records.metric_table import BOARD_METRICS, RUN_METRICS, not_told_by

ARTIFACT = made_up.artifact(made_up.variant())


def raw(blocks: list[list[int]], **changes: object) -> RawSide:
    side = made_up.side(1.0, blocks=1)
    values = {"blocks_ns": tuple(map(tuple, blocks)), "cpu_ns": tuple(sum(block) for block in blocks), **changes}
    return dataclasses.replace(side, **values)  # type: ignore[arg-type]


def test_every_metric_of_a_run_is_a_number_or_has_a_reason() -> None:
    metrics, missing = board_metrics(made_up.side(3.0), made_up.side(6.0, seed=2), ARTIFACT)
    assert set(metrics) | set(missing) == set(RUN_METRICS)
    assert not set(metrics) & set(missing)
    assert missing == {"energy_j": "no sensor", **not_told_by("wall")}


def test_percentiles_are_nearest_rank_of_all_queries() -> None:
    blocks = [[block * 8 + i + 1 for i in range(8)] for block in range(125)]
    metrics, _ = board_metrics(raw(blocks), None, ARTIFACT)
    found = (metrics["latency_p50_ns"], metrics["latency_p90_ns"], metrics["latency_p99_ns"])
    assert found == (500.0, 900.0, 990.0)


@pytest.mark.parametrize(
    ("queries", "known"), [(63, {"p50"}), (64, {"p50", "p90"}), (661, {"p50", "p90"}), (662, {"p50", "p90", "p99"})]
)
def test_a_percentile_needs_its_queries(queries: int, known: set[str]) -> None:
    metrics, missing = board_metrics(raw([[1000] * queries]), None, ARTIFACT)
    names = ("latency_p50_ns", "latency_p90_ns", "latency_p99_ns")
    assert {name.split("_")[1] for name in metrics if name in names} == known
    for name in names:
        if name in missing:
            assert f"{queries} queries" in missing[name]


def test_ratio_pairs_adjacent_blocks_so_a_slowdown_of_both_cancels() -> None:
    ours = [[100] * 8] * 10 + [[300] * 8] * 10
    theirs = [[200] * 8] * 10 + [[600] * 8] * 10
    metrics, _ = board_metrics(raw(ours), raw(theirs), ARTIFACT)
    assert metrics["latency_ratio"] == 0.5
    assert metrics["cpu_time_ratio"] == 0.5
    assert metrics["cpu_time_ns"] == 200.0


def test_without_a_baseline_ratios_are_missing_and_say_so() -> None:
    metrics, missing = board_metrics(made_up.side(3.0), None, ARTIFACT)
    assert "latency_ratio" not in metrics
    assert missing["latency_ratio"] == missing["cpu_time_ratio"] == "no baseline ran beside it"


def test_a_run_without_timing_has_sizes_only() -> None:
    side = raw([], cold_starts_ns=())
    metrics, missing = board_metrics(side, side, ARTIFACT)
    assert {"peak_memory_bytes", "size_bytes"} <= set(metrics)
    assert not [name for name in metrics if BOARD_METRICS[name].unit == "ns" or name.endswith("_ratio")]
    assert missing["latency_p50_ns"] == "no timed queries were asked for"
    assert missing["cold_start_ns"] == "no cold starts were asked for"


@pytest.mark.fault(17)
@pytest.mark.parametrize(
    "changes",
    [
        {"blocks_ns": ((100, 0, 100),)},
        {"blocks_ns": ((100, -5, 100),)},
        {"blocks_ns": ((100, float("nan"), 100),)},
        {"cpu_ns": (0,)},
        {"cpu_ns": (100, 100)},
        {"cold_starts_ns": (5, float("inf"))},
        {"peak_memory_bytes": 0},
    ],
)
def test_numbers_that_no_clock_can_give_are_refused(changes: dict[str, object]) -> None:
    side = raw([[100, 100, 100]])
    with pytest.raises(MeasurementError):
        board_metrics(dataclasses.replace(side, **changes), None, ARTIFACT)  # type: ignore[arg-type]


def test_an_impossible_baseline_is_refused_too() -> None:
    with pytest.raises(MeasurementError, match="latency"):
        board_metrics(raw([[100] * 8]), raw([[0] * 8]), ARTIFACT)
