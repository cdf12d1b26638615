"""A real Dask cluster of several processes on loopback, whose boards are roots of this machine: parts of it are killed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import dask_kit
import numpy as np
import pytest
from board_kit import ENDLESS_ASLEEP, OUTPUTS_ONLY, STUDY_LIMIT_S, make_job
from fault_kit import running_jobs, wait_for

from edgedeploy.errors import SpecError, Unreachable
from edgedeploy.evidence.layers import profile_of
from edgedeploy.lab.cluster import Cluster
from edgedeploy.records.job import MeasurePlan
from edgedeploy.runtime.processes import with_argument
from edgedeploy.study.store import Store

pytestmark = pytest.mark.waiting

pytest.importorskip("distributed", reason="Dask is not installed: pip install 'edgedeploy[lab]'")

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"
BOARD = '[[boards]]\nname = "{name}"\nkind = "local"\nroot = "{root}"\n\n'
LONG = MeasurePlan(queries=150_000, warmup=1, block=1000, cold_starts=0, time_limit_s=200.0)


class Processes:
    """A scheduler and its workers, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        shutil.copy(EXAMPLES / "squares.py", folder)
        text = (EXAMPLES / "squares.toml").read_text(encoding="utf-8").replace(', "openvino"]', "]")
        tables = "".join(BOARD.format(name=name, root=self.root(name)) for name in "ab")
        self.study = folder / "squares.toml"
        self.study.write_text(text.replace("[space]", tables + "[space]", 1), encoding="utf-8")
        said = dask_kit.place_of_scheduler(folder)
        self.scheduler = self._start("scheduler", dask_kit.scheduler(said))
        self.address = dask_kit.address(said)

    def _start(self, name: str, arguments: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen([sys.executable, "-m", *arguments], stdout=log, stderr=log)

    def root(self, board: str) -> Path:
        return self.folder / f"root-{board}"

    def add(self, board: str) -> None:
        arguments = ["edgedeploy", "work", str(self.study), "--board", board, "--dask", self.address]
        self.workers[board] = self._start(f"worker-{board}", arguments)

    def add_builder(self) -> None:
        arguments = ["distributed.cli.dask_worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        self.workers["builder"] = self._start("builder", arguments)

    def kill(self, board: str) -> None:
        worker = self.workers.pop(board)
        worker.kill()
        worker.wait()

    def end(self) -> None:
        for process in (*self.workers.values(), self.scheduler):
            process.kill()
            process.wait()


def connected(processes: Processes, boards: int) -> Cluster:
    """Once all workers are there."""
    found: list[Cluster] = []

    def all_there() -> bool:
        with contextlib.suppress(SpecError):
            cluster = Cluster(processes.address)
            if len(cluster.boards) == boards:
                found.append(cluster)
                return True
            cluster.close()
        return False

    wait_for("the workers", all_there)
    return found[0]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(tmp_path)
    try:
        started.add("a")
        started.add("b")
        yield started
    finally:
        started.end()


@pytest.mark.fault(4)
def test_a_killed_worker_loses_no_job_and_doubles_none(processes: Processes, tmp_path: Path) -> None:
    """SIGKILL in the middle of a job: another board does it, the killed worker's board is free and its job has ended."""
    job = make_job(tmp_path / "job", plan=LONG)
    with closing(connected(processes, 2)) as cluster, ThreadPoolExecutor() as pool:
        (tmp_path / "out").mkdir()
        future = pool.submit(cluster.run, job, tmp_path / "out")
        ((struck, job_id),) = wait_for(
            "a job to run", lambda: [(name, job) for name in "ab" for job in running_jobs(processes.root(name))]
        )
        other = "b" if struck == "a" else "a"
        processes.kill(struck)
        wait_for("the other board to take it", lambda: running_jobs(processes.root(other)))
        wait_for("the killed one's processes to end", lambda: not with_argument(job_id))
        board, raw = future.result(200)
    assert board.name == other
    assert sum(len(block) for block in raw.candidate.blocks_ns) >= LONG.queries


@pytest.mark.fault(4)
def test_many_jobs_while_workers_come_and_go(processes: Processes, tmp_path: Path) -> None:
    """Every job has one answer, and it is its own."""
    jobs = [make_job(tmp_path / f"job-{number}", plan=OUTPUTS_ONLY) for number in range(6)]
    folders = [tmp_path / f"out-{number}" for number in range(6)]
    for folder in folders:
        folder.mkdir()
    with closing(connected(processes, 2)) as cluster, ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(cluster.run, job, folder) for job, folder in zip(jobs, folders, strict=True)]
        wait_for("the first answer", lambda: any(future.done() for future in futures))
        processes.kill("a")
        processes.add("a")
        answers = [future.result(200) for future in futures]
    for folder, (_, raw) in zip(folders, answers, strict=True):
        assert raw.outputs == folder / "outputs.npz"
        with np.load(raw.outputs) as data:
            assert [data[name].shape[0] for name in data.files] == [6]


def test_a_killed_scheduler_ends_the_run_and_frees_the_board(processes: Processes, tmp_path: Path) -> None:
    job = make_job(tmp_path / "job", plan=ENDLESS_ASLEEP)
    with closing(connected(processes, 2)) as cluster, ThreadPoolExecutor() as pool:
        (tmp_path / "out").mkdir()
        future = pool.submit(cluster.run, job, tmp_path / "out")
        wait_for("a job to run", lambda: [name for name in "ab" if running_jobs(processes.root(name))])
        processes.scheduler.kill()
        with pytest.raises(Unreachable, match="scheduler is gone"):
            future.result(120)
        processes.kill("a")
        processes.kill("b")
        wait_for("the job to end", lambda: not [name for name in "ab" if running_jobs(processes.root(name))])


def test_a_study_on_a_cluster(processes: Processes, tmp_path: Path) -> None:
    """The boards measure, and the worker without a board builds."""
    from distributed import Client

    processes.add_builder()
    with closing(connected(processes, 2)), Client(processes.address, set_as_default=False) as client:
        client.wait_for_workers(3, timeout=120)
    argv = [sys.executable, "-m", "edgedeploy", "search", str(processes.study), "--out", str(tmp_path / "study")]
    argv += ["--dask", processes.address, "--trials", "4", "--no-confirm"]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=STUDY_LIMIT_S, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    measured = Store(tmp_path / "study").measurements()
    assert len({item.digest for item in measured}) == len(measured) == 4
    assert {item.board.name for item in measured} <= {"a", "b"}
    for item in measured:
        assert profile_of(item, "candidate").total_ns > 0 and profile_of(item, "baseline").total_ns > 0
        assert any(layer.source for layer in profile_of(item, "candidate").layers)
    assert set(json.loads((tmp_path / "study" / "study.json").read_text())["boards"]) == {"a", "b"}
    with Client(processes.address, set_as_default=False) as client:
        tasks = client.run_on_scheduler(lambda dask_scheduler: set(dask_scheduler.task_prefixes))
    assert {"build_on_worker", "run_here"} <= tasks
