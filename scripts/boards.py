"""What a lab pays beside measuring, taken on an emulated SSH board (the system's sshd on loopback):

    agent   one job: the agent's start (connect, its files checked, the lease), the upload check and job start, collect
    lease   hand-over: from SIGKILL of the process that holds the board, with its job running, to the next holder's lease
    lab     scheduling: jobs on 1 and on 4 SIMULATED boards that wait instead of computing

Median and slowest of N repeats; with --check exit 1 when the slowest of `lease`, or the median of `agent`, misses its bar,
or 4 boards need more than 0.3x of the time of one, or scheduling takes 50 ms a job or more.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from board_kit import ENDLESS, OUTPUTS_ONLY, make_job  # noqa: E402
from fault_kit import running_jobs, wait_for  # noqa: E402

from edgedeploy.boards.agent.board import RemoteBoard  # noqa: E402
from edgedeploy.boards.agent.session import BoardOptions  # noqa: E402
from edgedeploy.boards.emulated.board import find_sshd, serve  # noqa: E402
from edgedeploy.boards.ssh.config import SshTarget  # noqa: E402
from edgedeploy.boards.ssh.transport import SshTransport  # noqa: E402
from edgedeploy.errors import Quarantined  # noqa: E402
from edgedeploy.lab.crew import Crew, Post  # noqa: E402
from edgedeploy.records.variant import Variant  # noqa: E402
from edgedeploy.search.loop import Scored  # noqa: E402

AGENT_BAR_S: Final = 0.5
LEASE_BAR_S: Final = 30.0
SHARE_BAR: Final = 0.3
SCHEDULING_BAR_S: Final = 0.05
JOB_S: Final = 0.25
JOBS: Final = 40
HOLDER: Final = "import sys; sys.path.insert(0, sys.argv[1]); import boards; boards.hold(sys.argv[2])"


def board_at(target: SshTarget, folder: Path) -> RemoteBoard:
    options = BoardOptions(python=sys.executable, root=str(folder / "root"))
    return RemoteBoard("b", lambda: SshTransport(target), provenance="emulated", options=options)


def hold(text: str) -> None:
    """In a process of its own: hold the board and run a job that never ends."""
    given = json.loads(text)
    folder = Path(given["folder"])
    with board_at(SshTarget(**{**given["target"], "home": folder}), folder).session() as session:
        session.measure(make_job(Path(given["job"]), plan=ENDLESS), folder)


@contextmanager
def server() -> Iterator[tuple[SshTarget, Path, str]]:
    kind = "sshd" if find_sshd() is not None else "embedded"
    with tempfile.TemporaryDirectory(prefix="edgedeploy-bench-") as name, serve(kind) as target:
        yield target, Path(name), kind


def agent_times(repeats: int) -> dict[str, list[float]]:
    """Seconds by part of one job's costs, the first (cold) job left out."""
    found: dict[str, list[float]] = {
        "agent start (connect, check, lease)": [],
        "upload check and job start": [],
        "collect": [],
        "sum": [],
        "everything beside the run": [],
    }
    with server() as (target, folder, _):
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


def lease_times(repeats: int) -> list[float]:
    """Seconds from SIGKILL of the holder to the next holder's lease, the killed one's job ended."""
    found = []
    with server() as (target, folder, _):
        for repeat in range(repeats):
            given = {"target": {**asdict(target), "home": None}, "folder": str(folder), "job": f"{folder}/job-{repeat}"}
            path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
            holder = subprocess.Popen(
                [sys.executable, "-c", HOLDER, str(ROOT / "scripts"), json.dumps(given)],
                env={**os.environ, "PYTHONPATH": path},
            )
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


def line(name: str, values: Sequence[float]) -> str:
    return f"{name}: median {statistics.median(values):.3f} s, slowest {max(values):.3f} s of {len(values)}\n"


def bench_agent(repeats: int) -> bool:
    found = agent_times(repeats)
    for name, values in found.items():
        sys.stdout.write("      " + line(name, values))
    holds = statistics.median(found["sum"]) < AGENT_BAR_S
    sys.stdout.write(f"{'ok  ' if holds else 'FAIL'}  start + upload check + collect below {AGENT_BAR_S} s (median)\n")
    return holds


def bench_lease(repeats: int) -> bool:
    found = lease_times(repeats)
    sys.stdout.write("      " + line("SIGKILL of the holder to the next lease", found))
    holds = max(found) < LEASE_BAR_S
    sys.stdout.write(f"{'ok  ' if holds else 'FAIL'}  hand-over below {LEASE_BAR_S:.0f} s (slowest)\n")
    return holds


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


def bench_lab(repeats: int) -> bool:
    """SIMULATION: the boards wait. The optimiser's own time is no part of it."""
    pairs = [(simulated_lab(1), simulated_lab(4)) for _ in range(repeats)]
    share = max(four / one for one, four in pairs)
    scheduling_s = max((one - JOBS * JOB_S) / JOBS for one, _ in pairs)
    sys.stdout.write("      " + line(f"{JOBS} jobs of {JOB_S} s, 1 simulated board", [one for one, _ in pairs]))
    sys.stdout.write("      " + line(f"{JOBS} jobs of {JOB_S} s, 4 simulated boards", [four for _, four in pairs]))
    fast, light = share <= SHARE_BAR, scheduling_s < SCHEDULING_BAR_S
    sys.stdout.write(
        f"{'ok  ' if fast else 'FAIL'}  4 boards at most {SHARE_BAR}x of one board: {share:.3f}x (worst)\n"
    )
    sys.stdout.write(
        f"{'ok  ' if light else 'FAIL'}  scheduling below 50 ms a job: {scheduling_s * 1e3:.1f} ms (worst)\n"
    )
    return fast and light


BENCHES: Final[dict[str, tuple[Callable[[int], bool], int]]] = {
    "agent": (bench_agent, 20),
    "lease": (bench_lease, 5),
    "lab": (bench_lab, 3),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(BENCHES))
    parser.add_argument("-n", "--repeats", type=int)
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar does not hold")
    given = parser.parse_args()
    bench, repeats = BENCHES[given.name]
    if not bench(given.repeats or repeats) and given.check:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
