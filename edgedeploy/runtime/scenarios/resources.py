"""Records memory and CPU of one process over its life; the host computes the areas under these curves.

As in the FLARE challenge's efficiency measures (MICCAI 2022, flare22.grand-challenge.org), resources are recorded every
0.1 s and summed over the running time, and a run that exceeds its time is an error. Two things differ: memory is the
process's resident set, because most boards have no separate GPU memory, and the CPU curve is that of the process in
cores, not that of the whole machine in percent.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from edgedeploy.runtime.processes import cpu_time_ns
from edgedeploy.runtime.scenarios.schedule import Clock, MonotonicClock

RESOURCES = "resources"
FLARE = "flare"
CASE_FAILURES = ("time_limit", "memory_exceeded", "killed_at_limit", "worker_crashed", "run_failed", "non_finite")
"""Causes by which a case has no answer; any other is about the board or the job."""

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int) -> int:
    """Resident set of a process now; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0


class Recorder:
    """Records a process from now on, every ``period_ns``, until :meth:`stop`."""

    def __init__(self, pid: int, period_ns: int, clock: Clock | None = None) -> None:
        self._pid = pid
        self._period_ns = period_ns
        self._clock = clock or MonotonicClock()
        self._start_ns = self._clock.now_ns()
        self._samples: list[tuple[int, int, int]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        due_ns = self._start_ns + self._period_ns
        while not self._stop.wait(max(0, due_ns - self._clock.now_ns()) / 1e9):
            self._look()
            due_ns = max(due_ns + self._period_ns, self._clock.now_ns())

    def _look(self) -> None:
        at_ns = self._clock.now_ns() - self._start_ns
        self._samples.append((at_ns, resident_bytes(self._pid), cpu_time_ns(self._pid)))

    def stop_dead(self) -> dict[str, Any]:
        """As :meth:`stop`, of a process that was killed: what it had before stands until now."""
        curves = self.stop()
        for name in ("resident_bytes", "cpu_ns"):
            values = curves[name]
            for place in range(1, len(values)):
                values[place] = values[place] or values[place - 1]
        return curves

    def stop(self) -> dict[str, Any]:
        """Take a last sample and return all of them by column: time since the start, resident bytes, CPU time so
        far."""
        self._stop.set()
        self._thread.join()
        self._look()
        names = ("at_ns", "resident_bytes", "cpu_ns")
        return {name: [sample[column] for sample in self._samples] for column, name in enumerate(names)}
