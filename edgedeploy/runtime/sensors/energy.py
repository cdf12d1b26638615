"""Samples power while candidate and baseline work and while they wait; the host computes joules
(``evidence/energy.py``).

A stretch is a series of queries that is long enough for the sensor. The timed blocks last only milliseconds and are not
sampled, so that sampling never affects a latency. Stretches alternate in ABBA order between two waits of the same
loaded processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from edgedeploy.runtime.sensors.power import PowerSource, describe, find_source
from edgedeploy.runtime.sensors.sampler import Sampler

PERIODS_A_STRETCH = 25
LEAST_STRETCH_S = 0.5
SETTLE_S = 0.1
"""Pause between two windows: at least this long, and at least two sensor periods. The sensor still averages over the
window before, and a sample must lie on either side of the pause."""


class Worker(Protocol):
    """The process of the candidate or the baseline. A protocol, so that a simulated one can be measured."""

    cores: list[int]

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]: ...


def measure_energy(
    live: Mapping[str, Worker],
    find: Callable[[], PowerSource] = find_source,
    stretch_s: float | None = None,
) -> dict[str, Any]:
    """Sample the power. Returns ``missing`` with the reason, or ``source``, ``scope``, ``kind``, ``period_s``,
    ``samples`` ([monotonic ns, J or W]), ``waits`` ([start ns, end ns]) and ``stretches`` (``side``, ``start_ns``,
    ``end_ns``, ``queries``)."""
    try:
        source = find()
    except LookupError as exc:
        return {"missing": str(exc)}
    length_s = stretch_s or max(LEAST_STRETCH_S, PERIODS_A_STRETCH * source.period_s)
    sampler = Sampler(source.read, source.period_s, [core for worker in live.values() for core in worker.cores])
    settle_s = max(SETTLE_S, 2 * source.period_s)
    sampler.start()
    try:
        waits = [_wait(settle_s, length_s)]
        stretches = []
        for side in abba(list(live)):
            time.sleep(settle_s)
            stretches.append({"side": side, **live[side].ask("stretch", for_ns=round(length_s * 1e9))})
        waits.append(_wait(settle_s, length_s))
        time.sleep(settle_s)
    finally:
        sampler.stop()
        source.close()
    if sampler.failure is not None:
        return {"missing": f"{source.name} failed: {sampler.failure}"}
    return {
        **describe(source),
        "samples": [list(sample) for sample in sampler.samples],
        "waits": waits,
        "stretches": stretches,
        "sampler_cpu_ns": sampler.cpu_ns,
    }


def abba(sides: Sequence[str]) -> list[str]:
    return [*sides, *reversed(sides)]


def _wait(settle_s: float, length_s: float) -> list[int]:
    time.sleep(settle_s)
    start_ns = time.monotonic_ns()
    time.sleep(length_s)
    return [start_ns, time.monotonic_ns()]
