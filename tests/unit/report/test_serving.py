"""The report's row of one load of users."""

from __future__ import annotations

from typing import Any

import pytest

from edgedeploy.report.serving import HEADERS, load_line

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
