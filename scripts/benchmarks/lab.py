"""What 4 boards gain over 1, and what scheduling costs a job. The boards are SIMULATED: they only wait.

Each job waits for a quarter of a second. Median and slowest of N repeats; the bars judge the worst. The optimiser's own time
is no part of it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from benchmarks.shared.emulated import repeats_parser, say_bar, say_times
from edgedeploy.errors import Quarantined
from edgedeploy.lab.crew import Crew, Post
from edgedeploy.records.variant import Variant
from edgedeploy.search.loop import Scored

EXTRAS: Final = ("study",)
SHARE_BAR: Final = 0.3
SCHEDULING_BAR_S: Final = 0.05
JOB_S: Final = 0.25
JOBS: Final = 40
REPEATS: Final = 3


def simulated_lab(boards: int) -> float:
    """Seconds that ``JOBS`` jobs take, each of which waits for ``JOB_S``."""

    def wait(variant: Variant) -> Scored:
        time.sleep(JOB_S)
        return Scored((), {})

    posts = [Post(f"board {number}", wait, lambda cause: Quarantined("board", cause)) for number in range(boards)]
    variant = Variant("onnxruntime", "float32", 1.0, (), 1)
    with Crew(posts) as crew:
        started_s = time.monotonic()
        for future in [crew.submit(variant) for _ in range(JOBS)]:
            future.result()
        return time.monotonic() - started_s


def main(argv: Sequence[str]) -> int:
    given = repeats_parser("lab", __doc__, REPEATS).parse_args(argv)
    pairs = [(simulated_lab(1), simulated_lab(4)) for _ in range(given.repeats)]
    share = max(four / one for one, four in pairs)
    scheduling_s = max((one - JOBS * JOB_S) / JOBS for one, _ in pairs)
    say_times(f"{JOBS} jobs of {JOB_S} s, 1 simulated board", [one for one, _ in pairs])
    say_times(f"{JOBS} jobs of {JOB_S} s, 4 simulated boards", [four for _, four in pairs])
    fast = say_bar(share <= SHARE_BAR, f"4 boards at most {SHARE_BAR}x of one board: {share:.3f}x (worst)")
    text = f"scheduling below 50 ms a job: {scheduling_s * 1e3:.1f} ms (worst)"
    light = say_bar(scheduling_s < SCHEDULING_BAR_S, text)
    return int(given.check and not (fast and light))
