"""Offline: all samples are available at once, and only the throughput counts.

This is LoadGen's Offline scenario with one request at a time, because artifacts have batch size 1. The samples are
timed in chunks, so that the throughput has a spread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgedeploy.runtime.scenarios.base import Bench


def from_settings(settings: Mapping[str, Any]) -> Offline:
    return Offline(**settings)


@dataclass(frozen=True)
class Offline:
    """``samples`` in total, in ``chunks`` whose sizes differ by at most one."""

    samples: int
    chunks: int

    def run(self, bench: Bench) -> dict[str, Any]:
        run, cycle, now_ns = bench.session.run, bench.cycle, bench.clock.now_ns
        run(cycle[0])
        ends = [round(self.samples * chunk / self.chunks) for chunk in range(self.chunks + 1)]
        elapsed_ns = []
        for chunk in range(self.chunks):
            start_ns = now_ns()
            for sample in range(ends[chunk], ends[chunk + 1]):
                run(cycle[sample % len(cycle)])
            elapsed_ns.append(now_ns() - start_ns)
        sizes = [ends[chunk + 1] - ends[chunk] for chunk in range(self.chunks)]
        return {"samples": sizes, "elapsed_ns": elapsed_ns}
