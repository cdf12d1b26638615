"""Where a study's wall time went, phase by phase.

The time of a nested phase is charged to the inner phase only, so that the phases of a run add up to at most its wall
time; the rest is ``idle``. A killed run counts up to its last entry. Each thread counts as a run: with several boards
the wall time is the sum over their threads.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from edgedeploy.study.store import PHASES, Store

OVERHEAD_PHASES: Final = ("upload", "search", "bookkeeping", "idle")
"""Phases that are not the work itself: SSH, the optimiser, the store, waiting."""

EVALUATION_PHASES: Final = ("build", "upload", "measure", "evaluate", "bookkeeping")
"""Phases that every variant has, whether or not its model has to be trained."""


class _Clock(threading.local):
    """Clock of one thread, created when the thread first uses it."""

    def __init__(self) -> None:
        self.run = uuid.uuid4().hex[:8]
        self.start_ns = time.monotonic_ns()
        self.inner_ns: list[int] = []


class Account:
    """The clock of one run of a study; entries go to the store as they end."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._clock = _Clock()
        self._spent_ns: dict[str, int] = defaultdict(int)
        self.outcomes = 0
        """Variants that this run has evaluated."""

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Leave the time of the block out of this thread's account: it waits for other threads, whose time is counted."""
        started = time.monotonic_ns()
        try:
            yield
        finally:
            self._clock.start_ns += time.monotonic_ns() - started

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.monotonic_ns()
        self._clock.inner_ns.append(0)
        try:
            yield
        finally:
            spent = time.monotonic_ns() - started
            self.add(name, spent - self._clock.inner_ns.pop())
            if self._clock.inner_ns:
                self._clock.inner_ns[-1] += spent

    def move(self, name: str, duration_ns: int) -> None:
        """Charge part of the current phase to ``name``, such as a job's upload within its measurement."""
        self.add(name, duration_ns)
        if self._clock.inner_ns:
            self._clock.inner_ns[-1] += duration_ns

    def add(self, name: str, duration_ns: int) -> None:
        if name not in PHASES:
            raise ValueError(f"no phase named {name!r}")
        self._spent_ns[name] += max(0, duration_ns)
        self._store.add_time(self._clock.run, name, max(0, duration_ns), self.elapsed_ns)

    def seconds(self, *names: str) -> float:
        """What this run has spent in these phases."""
        return sum(self._spent_ns[name] for name in names) / 1e9

    @property
    def elapsed_ns(self) -> int:
        return time.monotonic_ns() - self._clock.start_ns

    def close(self) -> None:
        """Mark the end, so that time after the last phase is seen as idle."""
        self._store.add_time(self._clock.run, "idle", 0, self.elapsed_ns)


@dataclass(frozen=True)
class TimeAccount:
    """Seconds by phase over all runs of a study, ``wall_s`` their sum, ``overhead`` the share that is not work."""

    seconds: Mapping[str, float]
    wall_s: float
    overhead: float

    def as_json(self) -> dict[str, Any]:
        return {"seconds": dict(self.seconds), "wall_s": self.wall_s, "overhead": self.overhead}


def summarise(entries: Iterable[Mapping[str, Any]]) -> TimeAccount:
    """The account of stored entries; an empty one has zero everywhere."""
    spent = dict.fromkeys(PHASES, 0)
    walls: dict[str, int] = {}
    for entry in entries:
        spent[entry["phase"]] += int(entry["ns"])
        walls[entry["run"]] = max(walls.get(entry["run"], 0), int(entry["at_ns"]))
    wall_ns = sum(walls.values())
    spent["idle"] = max(0, wall_ns - sum(spent[name] for name in PHASES if name != "idle"))
    overhead = sum(spent[name] for name in OVERHEAD_PHASES) / wall_ns if wall_ns else 0.0
    return TimeAccount({name: ns / 1e9 for name, ns in spent.items()}, wall_ns / 1e9, overhead)
