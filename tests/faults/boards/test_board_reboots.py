"""Boards that start anew, hang or are in use under a job: what goes back, what is waited for, what is set aside."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from board_kit import ENDLESS, OUTPUTS_ONLY, make_job, need_sshd
from fault_kit import (
    PretendedBoots,
    cgroup_v1,
    local_board,
    machine_claimed,
    pretended_boots,
    running_jobs,
    wait_for,
    workers_of,
)
from restarted_sshd import restarted_sshd

from edgedeploy.boards.care.attempts import Attempts, Patience
from edgedeploy.boards.care.quarantine import Quarantine
from edgedeploy.boards.emulated.board import serve
from edgedeploy.boards.ssh.transport import SshTransport
from edgedeploy.diagnose.doctor import board_findings
from edgedeploy.errors import Busy, MeasurementError, Quarantined, SpecError, Unreachable
from edgedeploy.records.job import MeasurePlan
from edgedeploy.runtime.processes import end_all_with_argument, with_argument
from edgedeploy.spec.boards import BoardTable

pytestmark = pytest.mark.waiting

LONG_ENOUGH = MeasurePlan(queries=64, warmup=1, block=8, cold_starts=6, time_limit_s=60.0)
"""A few seconds, most of them spent on starting processes: time to hit the run."""

QUICK = Patience(attempts=2, pause_s=0.1, away_s=20.0, busy_s=20.0)


@contextlib.contextmanager
def struck(root: Path, strike: object, times: int) -> Iterator[list[str]]:
    """While the block runs: ``strike`` each new job as soon as it runs, at most ``times``. Yields the jobs that were hit."""
    hit: list[str] = []
    over = threading.Event()

    def watch() -> None:
        while len(hit) < times and not over.is_set():
            fresh = [job for job in running_jobs(root) if job not in hit]
            if fresh:
                hit.append(fresh[0])
                assert callable(strike)
                strike()
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield hit
    finally:
        over.set()
        thread.join(60)


@pytest.fixture(params=["local", "sshd"])
def boots(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[PretendedBoots, Attempts, list[str], object]]:
    """A board whose boots are pretended, the attempts at it, what they tell, and what strikes it."""
    boots = pretended_boots(tmp_path)
    told: list[str] = []
    if request.param == "local":
        board = local_board(boots.root, python=boots.python, unchanged_s=0.5)
        yield boots, Attempts(board, told.append, QUICK), told, boots.reboot
        return
    need_sshd()
    links: list[SshTransport] = []
    with serve("sshd") as target:

        def connect() -> SshTransport:
            links.append(SshTransport(target))
            return links[-1]

        def strike() -> None:
            boots.reboot()
            links[-1].close()

        board = local_board(boots.root, connect, python=boots.python, unchanged_s=0.5)
        yield boots, Attempts(board, told.append, QUICK), told, strike


@pytest.mark.fault(1, simulated="the source of boot_id")
def test_job_goes_back_once_after_a_reboot(
    boots: tuple[PretendedBoots, Attempts, list[str], object], tmp_path: Path
) -> None:
    board, attempts, told, strike = boots
    with struck(board.root, strike, times=1) as hit:
        _, run = attempts.run(make_job(tmp_path / "job", plan=LONG_ENOUGH), tmp_path)
    assert len(hit) == 1
    assert with_argument(hit[0]) == []
    assert [line for line in told if "void" in line] == told[-1:]
    assert sum(len(block) for block in run.candidate.blocks_ns) == 64
    assert list(attempts.quarantine.records()) == []


@pytest.mark.fault(1, simulated="the source of boot_id")
def test_board_that_reboots_again_is_set_aside_until_it_is_lifted(
    boots: tuple[PretendedBoots, Attempts, list[str], object], tmp_path: Path
) -> None:
    board, attempts, _, strike = boots
    job = make_job(tmp_path / "job", plan=LONG_ENOUGH)
    with struck(board.root, strike, times=2) as hit, pytest.raises(Quarantined, match="rebooted 2 times") as caught:
        attempts.run(job, tmp_path)
    assert len(hit) == 2
    assert "edgedeploy boards --lift 'b'" in caught.value.remedy
    with pytest.raises(Quarantined):
        attempts.run(make_job(tmp_path / "next"), tmp_path)
    assert not (tmp_path / "outputs.npz").exists()

    (finding,) = board_findings([BoardTable(name="b", kind="local", root=str(board.root))])
    assert finding.ok is False
    assert "rebooted 2 times" in finding.found
    (elsewhere,) = board_findings([])
    assert elsewhere.what == "board b"
    lift = [sys.executable, "-m", "edgedeploy", "boards", "--lift", "b"]
    done = subprocess.run(lift, capture_output=True, text=True, check=True)
    assert "b is free again" in done.stdout
    assert attempts.run(make_job(tmp_path / "last"), tmp_path)[1].outputs is not None


def test_lifting_what_is_not_set_aside_is_the_users_error() -> None:
    with pytest.raises(SpecError, match="not in quarantine"):
        Quarantine().lift("b")


@pytest.mark.fault(2)
def test_board_that_needs_time_to_boot_is_waited_for(tmp_path: Path) -> None:
    """It loses its power under a job: its sshd and every process of the job and of the lease end. For some seconds nothing
    listens; that it does not answer is no further failure of the two that are allowed."""
    need_sshd()
    root, told = tmp_path / "root", []  # type: ignore[var-annotated]
    with restarted_sshd() as server:
        board = local_board(root, lambda: SshTransport(server.target, connect_timeout_s=5.0), reconnects=1)
        attempts = Attempts(board, told.append, QUICK)

        def lose_power() -> None:
            server.cut_power()
            for job in root.glob("jobs/*"):
                end_all_with_argument(job.name)
            for path in root.glob("agents/*"):
                end_all_with_argument(str(path))
            time.sleep(3.0)
            server.start()

        with struck(root, lose_power, times=1) as hit:
            _, run = attempts.run(make_job(tmp_path / "job", plan=LONG_ENOUGH), tmp_path)
    assert len(hit) == 1 and with_argument(hit[0]) == []
    assert sum(len(block) for block in run.candidate.blocks_ns) == 64
    assert len([line for line in told if "trying again (2 of 2)" in line]) == 1, told


@pytest.mark.fault(2)
def test_board_that_never_comes_back_is_given_up_after_its_time(tmp_path: Path) -> None:
    need_sshd()
    root = tmp_path / "root"
    with restarted_sshd() as server:
        board = local_board(root, lambda: SshTransport(server.target, connect_timeout_s=5.0), reconnects=1)
        attempts = Attempts(board, patience=replace(QUICK, away_s=1.0))
        with struck(root, server.cut_power, times=1), pytest.raises(Unreachable):
            attempts.run(make_job(tmp_path / "job", plan=LONG_ENOUGH), tmp_path)
        server.start()
        with board.session() as session:  # the next holder ends what was left
            assert session.measure(make_job(tmp_path / "next"), tmp_path).outputs is not None


@pytest.mark.alone  # its time is judged, and it measures
@pytest.mark.fault(19)
@pytest.mark.parametrize("powered", [False, True], ids=["quarantine", "power cycle"])
def test_worker_that_cannot_be_killed(powered: bool, tmp_path: Path) -> None:
    """A frozen control group keeps a process from dying, as a hung driver does. The power control is a SIMULATION: it
    thaws."""
    job = make_job(tmp_path / "job", plan=replace(ENDLESS, time_limit_s=1.5))
    with cgroup_v1("freezer") as group:
        switch = ("sh", "-c", f"echo THAWED > {group}/freezer.state") if powered else ()
        board = local_board(tmp_path / "root", power_cycle=switch)
        told: list[str] = []
        attempts = Attempts(board, told.append, QUICK)

        def freeze() -> None:
            (job_id,) = (path.name for path in (tmp_path / "root" / "jobs").iterdir())
            wait_for("the worker to start", lambda: workers_of(job_id))
            (worker,) = workers_of(job_id)
            (group / "tasks").write_text(str(worker))
            (group / "freezer.state").write_text("FROZEN")

        started_s = time.monotonic()
        with struck(tmp_path / "root", freeze, times=1) as hit:
            if powered:
                # The job goes back once, and is now found to be merely too slow.
                with pytest.raises(MeasurementError, match="time_limit"):
                    attempts.run(job, tmp_path)
                assert any("turning it off and on" in line for line in told)
            else:
                with pytest.raises(Quarantined, match=r"hung: .*cannot be ended"):
                    attempts.run(job, tmp_path)
        assert time.monotonic() - started_s < 40
        assert len(list(attempts.quarantine.records())) == (0 if powered else 1)
    wait_for("the thawed worker to end", lambda: not with_argument(hit[0]))


@pytest.mark.fault(9)
def test_busy_machine_is_waited_for(tmp_path: Path) -> None:
    """Another board on the same machine is timing: the job waits, and the study does not end."""
    told: list[str] = []
    with contextlib.ExitStack() as claim:

        def tell(line: str) -> None:
            told.append(line)
            claim.close()

        attempts = Attempts(local_board(tmp_path / "root", wait_s=0.3), tell, QUICK)
        claim.enter_context(machine_claimed())
        _, run = attempts.run(make_job(tmp_path / "job", plan=LONG_ENOUGH), tmp_path)
    assert run.outputs is not None
    assert all("measuring for another board" in line for line in told)
    assert told


@pytest.mark.fault(9)
def test_waiting_for_a_busy_machine_ends(tmp_path: Path) -> None:
    patience = replace(QUICK, busy_s=0.5)
    attempts = Attempts(local_board(tmp_path / "root", wait_s=0.2), patience=patience)
    with machine_claimed(), pytest.raises(Busy, match="measuring for another board"):
        attempts.run(make_job(tmp_path / "job", plan=LONG_ENOUGH), tmp_path)


def test_waiting_and_running_are_two_clocks(tmp_path: Path) -> None:
    """A job that waits for the machine uses up none of its own time."""
    plan = replace(LONG_ENOUGH, cold_starts=0, time_limit_s=20.0)
    board = local_board(tmp_path / "root")
    with contextlib.ExitStack() as claim, board.session() as session:
        claim.enter_context(machine_claimed())

        def let_go() -> None:
            wait_for("the job to wait", lambda: [*(tmp_path / "root").glob("jobs/*/status.json")])
            time.sleep(1.5)
            claim.close()

        threading.Thread(target=let_go).start()
        started_ns = time.monotonic_ns()
        phases_ns = session.measure(make_job(tmp_path / "job", plan=plan), tmp_path).phases_ns
        spent_ns = time.monotonic_ns() - started_ns
    assert phases_ns["wait"] > 1.2e9
    assert 0 < phases_ns["run"] < spent_ns - 1.2e9


@pytest.mark.fault(9)
def test_outputs_need_no_quiet_machine(tmp_path: Path) -> None:
    attempts = Attempts(local_board(tmp_path / "root", wait_s=0.2), patience=replace(QUICK, busy_s=0.0))
    with machine_claimed():
        assert attempts.run(make_job(tmp_path / "job", plan=OUTPUTS_ONLY), tmp_path)[1].outputs is not None
