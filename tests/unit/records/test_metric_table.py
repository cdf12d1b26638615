"""The table of metrics: what a row must have, and what stands in where it says nothing."""

from __future__ import annotations

from dataclasses import asdict
from typing import get_args

import numpy as np
import pytest

from edgedeploy.errors import SpecError
from edgedeploy.evidence.metrics import SERIES
from edgedeploy.evidence.quantities import heading
from edgedeploy.evidence.samples import sample_from
from edgedeploy.evidence.series import Course, Neighbours, Pairs, Repeats, Series
from edgedeploy.records.metric_table import (
    BOARD_METRICS,
    METRICS,
    OF_IMAGES,
    OF_PACKED,
    RUN_METRICS,
    SCENARIO_METRICS,
    by_name,
    not_told_by,
    scenario_title,
)
from edgedeploy.records.metrics import Metric, MetricInfo, Source, Statistic
from edgedeploy.spec.goals import objectives_of
from edgedeploy.spec.objectives import ObjectiveTable
from edgedeploy.spec.scenarios import ScenarioName
from edgedeploy.spec.study import StudySpec


def row(name: str = "new_metric_ns", source: Source | None = None, **more: str) -> Metric:
    return Metric(name=name, unit="ns", text="new", source=source or Source("latencies", "maximum"), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("info", "best"),
    [
        (MetricInfo("maximize", "1", "Dice", bound=1.0), 1.0),
        (MetricInfo("maximize", "1", "share of right answers", yes_or_no=True), 1.0),
        (MetricInfo("minimize", "1", "share of wrong answers", yes_or_no=True), 0.0),
        (MetricInfo("maximize", "percent", "share of right answers", bound=100.0, yes_or_no=True), 100.0),
        (MetricInfo("maximize", "1", "of each case", yes_or_no=False), None),
        (MetricInfo("maximize", "dB", "PSNR"), None),
        (BOARD_METRICS["latency_ratio"], 0.0),
        (BOARD_METRICS["realtime_drop_percent"], 0.0),
        (BOARD_METRICS["sustained_temperature_rise_c"], None),
        (BOARD_METRICS["offline_throughput_per_s"], None),
    ],
)
def test_the_best_value_that_there_can_be_is_known_of_shares_and_of_what_is_measured(
    info: MetricInfo, best: float | None
) -> None:
    assert info.best == best


def test_every_metric_belongs_to_every_run_or_to_what_a_study_file_asks_for() -> None:
    assert set(BOARD_METRICS) == set(RUN_METRICS) | {name for table in SCENARIO_METRICS.values() for name in table}
    assert set(SCENARIO_METRICS) == {*get_args(ScenarioName), OF_IMAGES, OF_PACKED}
    assert {item.source.series for item in METRICS} <= set(SERIES)


def test_a_metric_without_a_heading_gets_one_from_its_name() -> None:
    assert row().heading == "New metric"
    assert row(heading="Mine").heading == "Mine"
    assert heading("realtime_result_age_p50_ns") == "Realtime result age p50"
    assert all(heading(name) for name in BOARD_METRICS)


def test_a_scenario_without_a_title_gets_one_from_its_name() -> None:
    assert scenario_title("several_boards") == "Several boards"
    assert scenario_title("offline") == "All samples at once"


def test_a_row_that_cannot_be_read_is_refused_where_it_is_written() -> None:
    for source in (("latencies", "percentile"), ("latencies", "maximum", 50)):
        with pytest.raises(ValueError, match="`percent` goes with percentile and bound"):
            Source(*source)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs a name"):
        row("")
    with pytest.raises(ValueError, match="new_metric_ns stands twice"):
        by_name([row(), row()])


@pytest.mark.parametrize("percent", [75.0, 90.0, 95.0, 99.9])
def test_the_observations_of_a_percentile_follow_from_it(percent: float) -> None:
    """The fewest n of which one slow query or none has a chance below 1 %, where the percentile is just missed."""
    needed = Source("latencies", "percentile", percent).observations
    chance = (percent / 100) ** needed + needed * (1 - percent / 100) * (percent / 100) ** (needed - 1)
    before = (percent / 100) ** (needed - 1) + (needed - 1) * (1 - percent / 100) * (percent / 100) ** (needed - 2)
    assert chance < 0.01 <= before
    assert row(source=Source("latencies", "percentile", percent)).queries == needed
    assert row(source=Source("realtime ages", "percentile", percent)).queries == 0


FITTING: dict[type, set[str]] = {
    Neighbours: {"percentile", "bound", "maximum"},
    Repeats: {"median", "minimum"},
    Pairs: {"ratio", "share"},
    Course: {"slope"},
    float: {"value"},
}


@pytest.mark.parametrize("statistic", get_args(Statistic))
@pytest.mark.parametrize(
    "series",
    [
        Neighbours([[1.0, 2.0]] * 40),
        Repeats(np.arange(1.0, 9.0)),
        Pairs(np.ones((8, 2))),
        Course(np.arange(8.0), np.arange(8.0)),
        3.0,
    ],
    ids=lambda series: type(series).__name__,
)
def test_a_series_has_the_statistics_that_mean_something_for_it(series: Series, statistic: Statistic) -> None:
    source = Source("any", statistic, 90 if statistic in ("percentile", "bound") else None)
    if statistic in FITTING[type(series)]:
        found = sample_from(series, source)
        assert not isinstance(found, str)
        assert found.value > 0
    else:
        with pytest.raises(TypeError, match=f"there is no {statistic}"):
            sample_from(series, source)


def test_a_bound_that_no_query_count_supports_is_a_reason() -> None:
    assert "3 queries, 64 needed" in str(sample_from(Neighbours([[1.0] * 3], "queries"), Source("any", "bound", 90)))
    assert "bound no percentile" in str(sample_from(Neighbours([[1.0] * 3], "queries"), Source("any", "bound", 50)))


def test_each_clock_has_a_reason_for_what_it_cannot_tell() -> None:
    assert set(not_told_by("wall")) == {"virtual_ns"}
    assert "peak_memory_bytes" in not_told_by("none")
    assert "peak_memory_bytes" not in not_told_by("virtual")
    assert "size_bytes" not in {**not_told_by("none"), **not_told_by("virtual")}


def test_a_tasks_metric_is_read_from_any_folder() -> None:
    info = MetricInfo("maximize", "1", "Dice")
    assert MetricInfo.from_json(asdict(info)) == info
    assert MetricInfo.from_json({**asdict(info), "of_a_later_version": 1}) == info
    older = {name: value for name, value in asdict(info).items() if name not in ("bound", "yes_or_no")}
    assert MetricInfo.from_json(older) == info
    form = {"direction": "maximize", "unit": "1", "text": "Dice", "bound": None, "yes_or_no": None}
    assert asdict(info) == form


def test_a_stored_goal_that_this_version_does_not_have_is_said_in_one_line() -> None:
    spec = StudySpec.model_construct(objectives=(ObjectiveTable(metric="latency_p51_ns"),))
    with pytest.raises(SpecError, match=r"no metric of that name.*latency_p\d+_ns"):
        objectives_of(spec, BOARD_METRICS)
