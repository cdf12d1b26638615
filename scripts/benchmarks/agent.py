"""What a job costs beside its run: the agent's start, the upload check, the collection of the outputs.

On an emulated SSH board (the system's sshd on loopback), median and slowest of N repeats; the first (cold) job is left out,
and the bar judges the median. The agent's start is to connect, to check the agent's files and to take the lease.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Final

from benchmarks.shared.emulated import board_at, repeats_parser, say_bar, say_times, server

EXTRAS: Final = ("study", "dev")
BAR_S: Final = 0.5
REPEATS: Final = 20


def times(repeats: int) -> dict[str, list[float]]:
    """Seconds by part of one job's costs."""
    from board_kit import OUTPUTS_ONLY, make_job

    found: dict[str, list[float]] = {
        "agent start (connect, check, lease)": [],
        "upload check and job start": [],
        "collect": [],
        "sum": [],
        "everything beside the run": [],
    }
    with server() as (target, folder):
        job = make_job(folder / "job", plan=OUTPUTS_ONLY)
        board = board_at(target, folder)
        for repeat in range(repeats + 1):
            started_s = time.monotonic()
            with board.session() as session:
                opened_s = time.monotonic()
                raw = session.measure(job, folder)
            ended_s = time.monotonic()
            if repeat == 0:
                continue
            parts = [opened_s - started_s, raw.phases_ns["upload"] / 1e9, raw.phases_ns["collect"] / 1e9]
            rest = ended_s - started_s - raw.phases_ns["run"] / 1e9
            for name, value in zip(found, [*parts, sum(parts), rest], strict=True):
                found[name].append(value)
    return found


def main(argv: Sequence[str]) -> int:
    given = repeats_parser("agent", __doc__, REPEATS).parse_args(argv)
    found = times(given.repeats)
    for name, values in found.items():
        say_times(name, values)
    text = f"start + upload check + collect below {BAR_S} s (median)"
    return int(not say_bar(statistics.median(found["sum"]) < BAR_S, text) and given.check)
