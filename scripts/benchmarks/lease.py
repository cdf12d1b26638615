"""How long a killed holder's board stays held: from SIGKILL, with a job running, to the next holder's lease.

On an emulated SSH board (the system's sshd on loopback), median and slowest of N repeats; the bar judges the slowest. The
killed holder's job has ended by then.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from benchmarks import DOOR
from benchmarks.shared.emulated import board_at, repeats_parser, say_bar, say_times, server
from edgedeploy.boards.agent.board import RemoteBoard
from edgedeploy.boards.ssh.config import SshTarget

EXTRAS: Final = ("study", "dev")
BAR_S: Final = 30.0
REPEATS: Final = 5


def hold(text: str) -> None:
    """In a process of its own: hold the board and run a job that never ends."""
    from board_kit import ENDLESS, make_job

    given = json.loads(text)
    folder = Path(given["folder"])
    with board_at(SshTarget(**{**given["target"], "home": folder}), folder).session() as session:
        session.measure(make_job(Path(given["job"]), plan=ENDLESS), folder)


def times(repeats: int) -> list[float]:
    """Seconds from SIGKILL of the holder to the next holder's lease."""
    from fault_kit import running_jobs, wait_for

    found = []
    with server() as (target, folder):
        for repeat in range(repeats):
            given = {"target": {**asdict(target), "home": None}, "folder": str(folder), "job": f"{folder}/job-{repeat}"}
            holder = subprocess.Popen([sys.executable, str(DOOR), "lease", "--hold", json.dumps(given)])
            granted_s: list[float] = []
            heir = threading.Thread(target=_inherit, args=(board_at(target, folder), granted_s))
            try:
                wait_for("the job to run", lambda: running_jobs(folder / "root"), 120)
                heir.start()
                time.sleep(1.0)  # the heir is waiting by then
            finally:
                killed_s = time.monotonic()
                holder.kill()
                holder.wait()
            heir.join()
            found.append(granted_s[0] - killed_s)
    return found


def _inherit(board: RemoteBoard, granted_s: list[float]) -> None:
    with board.session():
        granted_s.append(time.monotonic())


def main(argv: Sequence[str]) -> int:
    parser = repeats_parser("lease", __doc__, REPEATS)
    parser.add_argument("--hold", metavar="JSON", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.hold:
        hold(given.hold)
        return 0
    found = times(given.repeats)
    say_times("SIGKILL of the holder to the next lease", found)
    return int(not say_bar(max(found) < BAR_S, f"hand-over below {BAR_S:.0f} s (slowest)") and given.check)
