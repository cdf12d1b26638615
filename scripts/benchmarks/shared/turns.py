"""Sessions that take turns in one process, for the CPU time of each beside that of another in the same round."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def cpu_times(sessions: Sequence[Any], feeds: Sequence[Mapping[str, Any]], rounds: int) -> Any:
    """CPU time in ns of answering all ``feeds`` once: (sessions, rounds). Every other round goes backwards, and each turn
    begins with a query that is not timed."""
    times = np.zeros((len(sessions), rounds))
    for number in range(rounds):
        for index in range(len(sessions))[:: 1 if number % 2 == 0 else -1]:
            sessions[index].run(feeds[0])
            start_ns = time.process_time_ns()
            for feed in feeds:
                sessions[index].run(feed)
            times[index, number] = time.process_time_ns() - start_ns
    return times
