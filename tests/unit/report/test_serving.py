"""The report's row of one load of users."""

from __future__ import annotations

import dataclasses
from typing import Any

import made_up
import pytest

from edgedeploy.evidence.front import build_front
from edgedeploy.evidence.rows import front_rows
from edgedeploy.records.goals import Objective
from edgedeploy.report.serving import HEADERS, load_line
from edgedeploy.report.tables import all_variants_table
from edgedeploy.report.words import names_text

RAW: dict[str, Any] = {
    "gaps": [1_000_000] * 1000,
    "every_ns": 10_000_000_000,
    "deadline_ns": 100_000_000,
    "percent": 99.0,
    "rules": {"max_batch": 1, "max_wait_ns": 0, "capacity": 64, "instances": 1},
    "services": [{"batch": 1, "busy": 1, "ns": [5_000_000]}],
    "wakes_ns": [0],
}


def row(answers: int) -> dict[str, str]:
    level = {
        **{"users": 7, "sent": answers + 1, "held": False, "late": 3, "shed": [0]},
        "latencies_ns": [1_000_000 * (1 + place % 100) for place in range(answers)],
    }
    return dict(zip(HEADERS, (cell.text for cell in load_line(RAW, level).cells), strict=True))


@pytest.mark.parametrize(("answers", "p50", "p99"), [(0, "", ""), (661, "48.0 ms", ""), (662, "48.0 ms", "99.0 ms")])
def test_a_p99_is_stated_of_as_many_answers_as_it_needs(answers: int, p50: str, p99: str) -> None:
    shown = row(answers)
    assert (shown["Answered"], shown["Turned away"]) == (f"{answers} of {answers + 1}", "1")
    assert (shown["p50"], shown["p99"]) == (p50, p99)
    assert shown["p99, predicted"] == "5.00 ms"


def test_who_serves_otherwise_is_told_apart() -> None:
    alone = made_up.variant()
    served = dataclasses.replace(alone, instances=2, max_batch=4)
    items = [made_up.measurement(alone), made_up.measurement(served)]
    front = build_front(items, [Objective("latency_p50_ns", "minimize")], margin=None, metrics=made_up.TASK_METRICS)
    found = {row["digest"]: (row["instances"], row["max_batch"]) for row in front_rows(front)}
    assert found == {alone.digest: (1, 1), served.digest: (2, 4)}
    shown = {line.cells[4].text for line in all_variants_table(front).lines}
    assert shown == {"2", "2 2inst batch4"}
    assert "sessions side by side" in names_text(front)
