"""What a front says of a baseline that was not as fast as itself."""

from __future__ import annotations

from dataclasses import replace

import made_up
import pytest

from edgedeploy.evidence.bootstrap import Estimate
from edgedeploy.evidence.front import Front, build_front
from edgedeploy.records.goals import Objective
from edgedeploy.report.words import baseline_ratio_lines

BASE = made_up.variant()
INT8 = made_up.variant(precision="int8")
GOALS = (Objective("dice_mean", "maximize"), Objective("latency_ratio", "minimize"))


def front(low: float, high: float) -> Front:
    """A front whose baseline took between ``low`` and ``high`` of its own time."""
    items = [made_up.measurement(BASE, latency_ms=6.0), made_up.measurement(INT8, latency_ms=2.0)]
    made = build_front(items, GOALS, baseline_digests=[BASE.digest], margin=None, metrics=made_up.TASK_METRICS)
    found = {"latency_ratio": Estimate((low + high) / 2, low, high)}
    rows = [replace(row, estimates={**row.estimates, **found}) for row in made.rows if row.digest == BASE.digest]
    return replace(made, rows=(*rows, *(row for row in made.rows if row.digest != BASE.digest)))


@pytest.mark.parametrize(("low", "high"), [(0.98, 1.02), (1.0, 1.1), (0.9, 1.0)])
def test_nothing_where_the_interval_holds_1(low: float, high: float) -> None:
    assert baseline_ratio_lines(front(low, high)) == []


@pytest.mark.parametrize(("low", "high"), [(1.09, 1.2), (0.859, 0.972)])
def test_how_far_two_runs_of_one_file_differed_is_told(low: float, high: float) -> None:
    (line,) = baseline_ratio_lines(front(low, high))
    assert line.startswith(f"{BASE.label} ran beside itself, so its latency")
    assert "two runs of one file differed here" in line
