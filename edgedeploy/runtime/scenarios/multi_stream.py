"""Multi-stream: how many streams one board serves when each tick brings one frame of each.

LoadGen's first definition (Reddi et al., "MLPerf Inference Benchmark", section on scenarios): a query of N samples is sent
at a fixed interval, which is also its deadline; a query that is still running when its interval ends makes the next ones
skip that interval; at most 1 % of queries may do so; the result is the largest such N. Whether N holds is judged by
LoadGen's early-stopping bound at 99 % confidence. N is searched by doubling, then by bisection.
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
    """One N that was tried. ``latencies_ns`` ends early when more queries were late than ``queries`` allow."""

    streams: int
    held: bool
    late: int
    latencies_ns: tuple[int, ...]


@dataclass(frozen=True)
class MultiStream:
    """``queries`` are sent at each N that is tried, one every ``interval_ns``; ``percent`` of them have to be in time."""

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
        """Send queries of ``streams`` samples, one a tick, until all are answered or the deadline is lost for good."""
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
            # The next tick that is not over: a late query skips the ticks that it ran into.
            tick_ns += self.interval_ns * max(1, -(-(end_ns - tick_ns) // self.interval_ns))
        return Level(streams, late <= allowed, late, tuple(latencies_ns))


def largest(holds: Callable[[int], bool], most: int) -> int:
    """The largest N from 1 to ``most`` that holds, 0 when not even one does; taking for granted that more is harder."""
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
