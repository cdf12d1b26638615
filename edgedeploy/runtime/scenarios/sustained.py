"""Sustained load: queries back to back for minutes, summarised in windows, with the board's conditions after each
window.

It shows what a burst cannot: heat, throttling and leaks slow a board down after minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgedeploy.runtime.scenarios.base import Bench


def from_settings(settings: Mapping[str, Any]) -> Sustained:
    return Sustained(**settings)


@dataclass(frozen=True)
class Sustained:
    """Whole windows of ``window_ns`` until ``duration_ns`` is over; a window has one query or more."""

    duration_ns: int
    window_ns: int

    def run(self, bench: Bench) -> dict[str, Any]:
        """``windows``: start since the run's start, queries, and the median, 90th percentile and slowest latency of each;
        ``conditions``: before the first window and after each."""
        bench.session.run(bench.cycle[0])
        windows: list[dict[str, int]] = []
        conditions = [bench.conditions()]
        start_ns = bench.clock.now_ns()
        query = 0
        while bench.clock.now_ns() - start_ns < self.duration_ns:
            window_start_ns = bench.clock.now_ns()
            times_ns: list[int] = []
            end_ns = window_start_ns
            while end_ns - window_start_ns < self.window_ns:
                query_start_ns = bench.clock.now_ns()
                bench.session.run(bench.cycle[query % len(bench.cycle)])
                end_ns = bench.clock.now_ns()
                times_ns.append(end_ns - query_start_ns)
                query += 1
            windows.append(_summary(window_start_ns - start_ns, sorted(times_ns)))
            conditions.append(bench.conditions())
        return {"windows": windows, "conditions": conditions}


def _summary(start_ns: int, ordered: list[int]) -> dict[str, int]:
    """The window's percentiles, by nearest rank."""
    return {
        "start_ns": start_ns,
        "queries": len(ordered),
        "p50_ns": ordered[(len(ordered) - 1) // 2],
        "p90_ns": ordered[-(-9 * len(ordered) // 10) - 1],
        "max_ns": ordered[-1],
    }
