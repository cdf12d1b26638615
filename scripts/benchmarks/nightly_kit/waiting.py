"""A lab on Dask whose boards are SIMULATED: each only waits as long as a session would take.

Everything else is the product's own: the scheduler, a worker that offers each board, the night's coordinator, its journal
on a PostgreSQL server. Workers log each session that they ran, so that what the journal holds can be held against it.

`waiting_door` is what its processes start.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from benchmarks import ROOT
from edgedeploy.lab.cluster import resource_of
from edgedeploy.nightly.cluster import LabCluster
from edgedeploy.nightly.parts import Parts
from edgedeploy.nightly.place import Lab
from edgedeploy.nightly.run import NightRun
from edgedeploy.nightly.states import board_state
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.night import Accepted, ArtifactState, Night, Session
from edgedeploy.study.store import utc_now

DOOR: Final = "benchmarks.nightly_kit.waiting_door"
NIGHT: Final = "2026-11-29"
ARTIFACT: Final = ArtifactState("simulated", {})
LIMIT_S: Final = 600.0
PROGRAMS: Final = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class Shape:
    """``entries`` are spread evenly over the boards; each is measured twice, and a session takes ``job_s`` in the
    mean. Worker processes
    have several boards each."""

    boards: int
    entries: int
    job_s: float
    processes: int

    @property
    def jobs(self) -> int:
        return 2 * self.entries

    @property
    def of_process(self) -> int:
        return self.boards // self.processes


# -- what runs on the workers


def info_of(board: str) -> dict[str, Any]:
    """Runs on a worker: what the SIMULATED board says of itself."""
    text = {"cpu": "SIMULATED", "arch": "none", "os": "none", "python": "3"}
    found = BoardInfo(
        **text,
        name=board,
        provenance="emulated",
        identity=board,
        boot_id=board,
        isa=(),
        cores=1,
        memory_bytes=1 << 30,
        runtimes={"onnxruntime": "1"},
        governor=None,
        notes=("SIMULATED: it only waits",),
    )
    return found.as_json()


def _unevenly(entry: str) -> float:
    """Of a session's time: up to a quarter more or less, by its entry. Boards whose sessions all took the same time would
    end them in one instant, all night, as no lab's do."""
    share = int.from_bytes(hashlib.sha256(entry.encode()).digest()[:4], "big") / 2**32
    return 0.75 + share / 2


def wait(board: str, entry: str, number: int, job_s: float, log: str) -> dict[str, Any]:
    """Runs on a worker: a SIMULATED session. One line in the log, when it is over."""
    began_s = time.monotonic()
    time.sleep(job_s * _unevenly(entry))
    found = {"id": uuid.uuid4().hex, "entry": entry, "board": board, "number": number}
    told = {**found, "began_s": began_s, "ended_s": time.monotonic(), "pid": os.getpid()}
    line = (json.dumps(told) + "\n").encode()
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)
    return told


def work(address: str, boards: Sequence[str]) -> None:
    """A Dask worker for each of the boards, in this process, as ``edgedeploy work`` has one."""
    from distributed import Worker

    async def serve() -> None:
        async with contextlib.AsyncExitStack() as stack:
            workers = [
                await stack.enter_async_context(
                    Worker(address, nthreads=1, resources={resource_of(name): 1}, name=f"{name} {os.getpid()}")
                )
                for name in boards
            ]
            await asyncio.gather(*(worker.finished() for worker in workers))

    asyncio.run(serve())


# -- the coordinator


class WaitingSubject:
    """Stands for an entry that is shipped as it was accepted."""

    def __init__(self, entry: str) -> None:
        self.entry = entry
        self.frozen = SimpleNamespace(generation=1, artifact=ARTIFACT)
        self.margins: dict[str, float] = {}
        self.candidate = self.baseline = SimpleNamespace(artifact=SimpleNamespace(target="onnxruntime"))

    def accepted_on(self, board: str, sessions: Sequence[Session]) -> Accepted | None:
        first = next((item for item in sessions if item.info and item.state), None)
        return None if first is None else Accepted(first.night, ARTIFACT, first.state, first.info)  # type: ignore[arg-type]


def parts_of(cluster: LabCluster, job_s: float, log: Path) -> Parts:
    """The night's parts, of which the sessions wait on the board's worker."""

    def open_board(table: Any) -> Any:
        info = BoardInfo.from_json(cluster.ask(table.name, info_of, table.name, limit_s=LIMIT_S))
        return SimpleNamespace(name=table.name, info=info), info

    def measure(subject: Any, board: str, run: Any, plan: object, *, night: str, number: int) -> Session:
        said = cluster.ask(board, wait, board, subject.entry, number, job_s, str(log), limit_s=LIMIT_S)
        return Session(
            *(subject.entry, board, night, number, utc_now(), job_s),
            info=run,
            state=board_state(run, {}, {}),
            artifact=ARTIFACT,
            baseline_digest=ARTIFACT.digest,
            losses={"latency_p50_ns": 0.0},
            environment={"id": said["id"]},
        )

    def runner(board: Any, *others: object) -> Any:
        return board.info

    def prepare(entry: Any, base: Path, frozen: Path) -> Any:
        (frozen / "entries" / entry.id / "1").mkdir(parents=True, exist_ok=True)
        return WaitingSubject(entry.id)

    return Parts(open_board=open_board, runner=runner, prepare=prepare, measure=measure)


def coordinate(lab: Path, address: str, job_s: float, log: Path) -> Night:
    place = Lab.load(lab)
    cluster = LabCluster(address)
    with closing(cluster), closing(place.open()) as journal:
        return NightRun(place, journal, parts=parts_of(cluster, job_s, log)).run(NIGHT)


# -- a whole lab, and what is killed in it


@contextmanager
def postgresql() -> Iterator[str | None]:
    """The URL of a new server on a socket in a folder of its own; None where PostgreSQL is not installed."""
    found = [Path(path).parent for path in (shutil.which("initdb"),) if path]
    found += sorted(PROGRAMS.glob("*/bin"), reverse=True)
    if not found:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="edgedeploy-pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        other = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.getuid() == 0 else {}
        if other:
            shutil.chown(folder, "nobody", "nogroup")

        def run(program: str, *arguments: str) -> None:
            argv = [str(found[0] / program), "-D", str(folder / "data"), *arguments]
            quiet = subprocess.DEVNULL
            subprocess.run(argv, check=True, stdout=quiet, stderr=quiet, cwd=folder, timeout=120, **other)  # type: ignore[call-overload]

        run("initdb", "-U", "lab", "-A", "trust", "--no-sync")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"
        run("pg_ctl", "-l", str(folder / "log"), "-w", "-o", options, "start")
        try:
            yield f"postgresql+psycopg://lab@/postgres?host={folder}"
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):
                run("pg_ctl", "-m", "immediate", "-w", "stop")


class WaitingLab:
    """Scheduler, workers and coordinator as processes of their own. Whatever is left of them ends with the context."""

    def __init__(self, folder: Path, shape: Shape, storage: str) -> None:
        self.shape = shape
        self.folder = folder
        self.log = folder / "sessions.log"
        self.lab = folder / "lab.toml"
        self.lab.write_text(lab_text(shape, storage), encoding="utf-8")
        self.address = f"tcp://127.0.0.1:{_free_port()}"
        self._stack = ExitStack()
        self._workers: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> WaitingLab:
        port = self.address.rpartition(":")[2]
        with self._stack:
            self._start("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
            for number in range(self.shape.processes):
                self.start_worker(number)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def start_worker(self, number: int) -> None:
        """The process with the ``number``-th part of the boards."""
        first = number * self.shape.of_process
        last = str(first + self.shape.of_process)
        self._workers[number] = self._start(DOOR, "work", self.address, str(first), last)

    def kill_worker(self, number: int) -> None:
        """SIGKILL, while its boards have jobs."""
        _kill(self._workers[number])

    def start_coordinator(self) -> subprocess.Popen[bytes]:
        job = f"{self.shape.job_s}"
        return self._start(DOOR, "run", str(self.lab), self.address, job, str(self.log))

    def sessions(self) -> list[dict[str, Any]]:
        """What workers ran, in the order in which it ended."""
        text = self.log.read_text(encoding="utf-8") if self.log.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def wait_for(self, sessions: int) -> None:
        give_up_s = time.monotonic() + LIMIT_S
        while len(self.sessions()) < sessions:
            if time.monotonic() > give_up_s:
                raise TimeoutError(f"{len(self.sessions())} of {sessions} sessions; see {self.folder}")
            time.sleep(0.05)

    def kept(self) -> list[tuple[str, str, int, str]]:
        """Of every session that the journal holds: entry, board, number, and the id that its worker logged."""
        with closing(Lab.load(self.lab).open()) as journal:
            rows = journal.jobs(NIGHT)
        return [(*_key(row), str(row.session.environment["id"])) for row in rows if row.session is not None]

    def _start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        path = os.pathsep.join([str(ROOT / "scripts"), str(ROOT), os.environ.get("PYTHONPATH", "")])
        with (self.folder / "output").open("ab") as output:
            child = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path, "EDGEDEPLOY_STATE": str(self.folder / "state")},
            )
        self._stack.callback(_kill, child)
        return child


def _key(row: Any) -> tuple[str, str, int]:
    return row.key.entry, row.key.board, row.key.number


@dataclass(frozen=True)
class Survived:
    """After kills: what the journal lacks, and what it holds that no worker ran, or twice. ``again`` are sessions that
    were run more than once, because nobody had stored the first."""

    jobs: int
    kept: int
    lost: int
    doubled: int
    again: int
    wall_s: float

    @property
    def whole(self) -> bool:
        return self.kept == self.jobs and self.lost == 0 and self.doubled == 0


def survive(lab: WaitingLab, worker_kills: int) -> Survived:
    """A night in which the coordinator is killed once and as many worker processes, spread over it; each is started
    again."""
    started_s = time.monotonic()
    coordinator = lab.start_coordinator()
    moments = [(number + 1) * lab.shape.jobs // (worker_kills + 2) for number in range(worker_kills + 1)]
    middle = len(moments) // 2
    for number, moment in enumerate(moments):
        lab.wait_for(moment)
        if number == middle:
            _kill(coordinator)
            coordinator = lab.start_coordinator()
            continue
        lab.kill_worker(number % lab.shape.processes)
        lab.start_worker(number % lab.shape.processes)
    if coordinator.wait(LIMIT_S) != 0:
        raise RuntimeError(f"the coordinator failed: {(lab.folder / 'output').read_text()[-4000:]}")
    ran, kept = lab.sessions(), lab.kept()
    ids = Counter(item["id"] for item in ran)
    stored = Counter(identity for *_, identity in kept)
    counted = Counter((item["entry"], item["board"], item["number"]) for item in ran)
    return Survived(
        jobs=lab.shape.jobs,
        kept=len(kept),
        lost=lab.shape.jobs - len({tuple(key) for *key, _ in kept}),
        doubled=sum(count - 1 for count in stored.values()) + sum(identity not in ids for identity in stored),
        again=sum(count - 1 for count in counted.values()),
        wall_s=time.monotonic() - started_s,
    )


@dataclass(frozen=True)
class Overhead:
    """``gaps_s`` is the time between two sessions of each board, in which verdicts are made too; shape (jobs - boards,).
    ``cpu_s`` is the coordinator's own, for each job."""

    gaps_s: Any
    wall_s: float
    cpu_s: float

    @property
    def mean_s(self) -> float:
        return float(np.mean(self.gaps_s))


def overhead(lab: WaitingLab) -> Overhead:
    """An undisturbed night: how long boards wait for their next job."""
    started_s, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    coordinator = lab.start_coordinator()
    if coordinator.wait(LIMIT_S) != 0:
        raise RuntimeError(f"the coordinator failed: {(lab.folder / 'output').read_text()[-4000:]}")
    wall_s, after = time.monotonic() - started_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    by_board: dict[str, list[dict[str, Any]]] = {}
    for item in lab.sessions():
        by_board.setdefault(item["board"], []).append(item)
    gaps = [later["began_s"] - earlier["ended_s"] for own in by_board.values() for earlier, later in pairwise(own)]
    return Overhead(np.array(gaps), wall_s, cpu_s / lab.shape.jobs)


def names(shape: Shape) -> list[str]:
    return [board_name(number) for number in range(shape.boards)]


def board_name(number: int) -> str:
    return f"b{number:03d}"


def lab_text(shape: Shape, storage: str) -> str:
    """Entries in turn on the boards, each on one."""
    boards = "".join(f'[[boards]]\nname = "{name}"\nkind = "ssh"\nhost = "{name}.invalid"\n' for name in names(shape))
    entry = '[[entries]]\nid = "e{number:04d}"\nbundle = "none"\ntrust = "none"\nboards = ["{board}"]\n'
    entries = "".join(
        entry.format(number=number, board=board_name(number % shape.boards)) for number in range(shape.entries)
    )
    return f'[lab]\nname = "waiting"\nbudget = "1 h"\nstorage = "{storage}"\n{boards}{entries}'


def _kill(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(signal.SIGKILL)
    child.wait()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
