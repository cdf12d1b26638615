"""Reads something at a fixed period while others are being timed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Sampler(threading.Thread, Generic[Value]):
    """Calls ``read`` once a period until :meth:`stop`, off the cores that are being timed.

    ``samples`` are (monotonic ns, value) pairs; ``failure`` says why they end early, ``cpu_ns`` what sampling cost.
    A ``read`` that waits longer than the period sets the pace itself.
    """

    def __init__(self, read: Callable[[], Value], period_s: float, busy_cores: Sequence[int] = ()) -> None:
        super().__init__(daemon=True, name="sampler")
        self.samples: list[tuple[int, Value]] = []
        self.failure: str | None = None
        self.cpu_ns = 0
        self._read = read
        self._period_s = period_s
        self._busy_cores = set(busy_cores)
        self._stopping = threading.Event()

    def run(self) -> None:
        keep_off(self._busy_cores)
        due_s = time.monotonic()
        try:
            while not self._stopping.is_set():
                value = self._read()
                self.samples.append((time.monotonic_ns(), value))
                due_s = max(due_s + self._period_s, time.monotonic())
                self._stopping.wait(due_s - time.monotonic())
        except (OSError, LookupError, ValueError) as exc:
            self.failure = str(exc)
        self.cpu_ns = time.thread_time_ns()

    def stop(self) -> None:
        self._stopping.set()
        self.join()


def keep_off(cores: set[int]) -> None:
    """Bind the calling thread to the cores that are not in ``cores``, when there are any."""
    free = os.sched_getaffinity(0) - cores
    if free:
        os.sched_setaffinity(0, free)
