"""A simulation of NVIDIA's ``tegrastats``: a recorded Orin Nano line whose VDD_IN follows the CPU time of the workers.

3 W when no worker runs and 5 W more for each core that workers use, so that energy has a known answer. Nothing here is
a measurement of power.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

IDLE_MW = 3000
BUSY_MW = 5000
SEEN = "seen.log"
LINE = (Path(__file__).parent / "data" / "tegrastats" / "orin_nano_l4t36.txt").read_text(encoding="ascii").strip()


def worker_seconds(root: str) -> float:
    """CPU time so far of every process that has ``worker`` and a path below ``root`` among its arguments."""
    total = 0
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            if b"worker" in words and any(word.startswith(os.fsencode(root)) for word in words):
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12])
        except OSError:
            continue
    return total / os.sysconf("SC_CLK_TCK")


def install(folder: Path, root: Path) -> None:
    """Put it into ``folder`` under the name of the real program, for the workers of the agent in ``root``. What it saw goes
    into ``seen.log`` beside ``root``: nanoseconds of the monotonic clock, and the workers' CPU seconds until then."""
    program = folder / "tegrastats"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} --root {root} "$@"\n', encoding="utf-8")
    program.chmod(0o755)


def seconds_between(log: Path, start_ns: int, end_ns: int) -> float:
    """CPU seconds of the workers in that time, by what the simulation saw."""
    rows = [line.split() for line in log.read_text(encoding="ascii").splitlines()]
    times, seconds = [float(row[0]) for row in rows], [float(row[1]) for row in rows]
    first, last = np.interp([start_ns, end_ns], times, seconds)
    return float(last - first)


def main() -> None:
    interval_s = int(sys.argv[sys.argv.index("--interval") + 1]) / 1000
    root = sys.argv[sys.argv.index("--root") + 1]
    seen = Path(root).with_name(SEEN)
    before_s, at_s = worker_seconds(root), time.monotonic()
    while True:
        time.sleep(interval_s)
        now_s, now_at_s = worker_seconds(root), time.monotonic()
        cores = max(0.0, (now_s - before_s) / (now_at_s - at_s))
        before_s, at_s = now_s, now_at_s
        with seen.open("a", encoding="ascii") as log:
            log.write(f"{round(1e9 * now_at_s)} {now_s}\n")
        sys.stdout.write(LINE.replace("VDD_IN 16321mW", f"VDD_IN {round(IDLE_MW + BUSY_MW * cores)}mW") + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
