"""Multi-stream: how many streams a board can serve when each interval brings one frame per stream.

LoadGen's first definition (Reddi et al., "MLPerf Inference Benchmark", section on scenarios): a query of N samples is
sent at a fixed interval, which is also its deadline. A query that runs longer makes the next one skip intervals; at
most 1 % of queries may do so. The result is the largest such N. LoadGen's early-stopping bound at 99 % confidence
decides whether N holds; N is searched by doubling, then by bisection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgedeploy.runtime.scenarios.base import Bench
from edgedeploy.runtime.scenarios.earlystopping import slow_allowed
from edgedeploy.runtime.scenarios.schedule import Clock


def from_settings(settings: Mapping[str, Any]) -> MultiStream:
    return MultiStream(**settings)


@dataclass(frozen=True)
class Level:
    """The result for one N. ``latencies_ns`` ends early when too many queries were late."""

    streams: int
    held: bool
    late: int
    latencies_ns: tuple[int, ...]


@dataclass(frozen=True)
class MultiStream:
    """At each N, ``queries`` are sent, one every ``interval_ns``; ``percent`` % of them must be in time."""

    interval_ns: int
    queries: int
    percent: float
    most: int

    def run(self, bench: Bench) -> dict[str, Any]:
        bench.session.run(bench.cycle[0])
        served = 0

        def serve(streams: int) -> None:
            nonlocal served
            for _ in range(streams):
                bench.session.run(bench.cycle[served % len(bench.cycle)])
                served += 1

        levels: list[Level] = []

        def holds(streams: int) -> bool:
            levels.append(self.level(streams, serve, bench.clock))
            return levels[-1].held

        found = largest(holds, self.most)
        return {
            "streams": found,
            "most": self.most,
            "levels": [
                {"streams": at.streams, "held": at.held, "late": at.late, "latencies_ns": list(at.latencies_ns)}
                for at in levels
            ],
        }

    def level(self, streams: int, serve: Callable[[int], None], clock: Clock) -> Level:
        """Send queries of ``streams`` samples, one per interval, until all are answered or too many are late."""
        allowed = slow_allowed(self.queries, self.percent)
        latencies_ns: list[int] = []
        late = 0
        tick_ns = clock.now_ns()
        while len(latencies_ns) < self.queries and late <= allowed:
            clock.sleep_until_ns(tick_ns)
            start_ns = clock.now_ns()
            serve(streams)
            end_ns = clock.now_ns()
            latencies_ns.append(end_ns - start_ns)
            late += end_ns - start_ns > self.interval_ns
            # The next interval that has not begun: a late query skips the intervals during which it ran.
            tick_ns += self.interval_ns * max(1, -(-(end_ns - tick_ns) // self.interval_ns))
        return Level(streams, late <= allowed, late, tuple(latencies_ns))


def largest(holds: Callable[[int], bool], most: int) -> int:
    """The largest N from 1 to ``most`` that holds; 0 when 1 does not. Assumes that a larger N never holds more
    easily."""
    good, bad = 0, 1
    while bad <= most and holds(bad):
        good, bad = bad, min(2 * bad, most) if bad < most else most + 1
    while bad - good > 1:
        middle = (good + bad) // 2
        if holds(middle):
            good = middle
        else:
            bad = middle
    return good
