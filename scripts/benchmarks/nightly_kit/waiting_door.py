"""How a process of the SIMULATED lab is started, so that workers import what they are sent by its own name.

python -m benchmarks.nightly_kit.waiting_door work ADDRESS FIRST LAST           workers of boards FIRST to LAST - 1
python -m benchmarks.nightly_kit.waiting_door run LAB.toml ADDRESS JOB_S LOG    the coordinator, for one night
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.nightly_kit.waiting import board_name, coordinate, work


def main(argv: Sequence[str]) -> None:
    what, *given = argv
    if what == "work":
        address, first, last = given
        work(address, [board_name(number) for number in range(int(first), int(last))])
    else:
        lab, address, job_s, log = given
        coordinate(Path(lab), address, float(job_s), Path(log))


if __name__ == "__main__":
    main(sys.argv[1:])
