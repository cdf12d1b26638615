"""Runs that must not become numbers, and what they leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from board_kit import (
    ENDLESS,
    OUTPUTS_ONLY,
    broken_model,
    constant_model,
    conv_model,
    huge_model,
    make_job,
    make_payload,
    nan_model,
)
from fault_kit import gate, has_loaded, living, local_board, machine_claimed, running_jobs, wait_for, workers_of

from edgedeploy.boards.agent.board import RemoteBoard
from edgedeploy.boards.emulated.board import serve
from edgedeploy.boards.local import LocalTransport
from edgedeploy.boards.ssh.transport import SshTransport
from edgedeploy.errors import Busy, CommandFailed, MeasurementError, Unreachable
from edgedeploy.interfaces.board import Completed, Transport
from edgedeploy.records.job import Job, MeasurePlan

pytestmark = pytest.mark.waiting

TIMED = MeasurePlan(queries=8, warmup=1, block=4, cold_starts=1, time_limit_s=60.0)


@pytest.fixture
def board(tmp_path: Path) -> RemoteBoard:
    return local_board(tmp_path / "root")


@pytest.mark.fault(17, 18, 23)
@pytest.mark.parametrize(
    ("write", "plan", "cause"),
    [
        (nan_model, OUTPUTS_ONLY, "non_finite"),
        (nan_model, TIMED, "non_finite"),
        (constant_model, OUTPUTS_ONLY, "constant_output"),
        (huge_model, TIMED, "memory_exceeded"),
        (broken_model, TIMED, "open_failed"),
    ],
)
def test_artifact_that_fails_is_an_error_with_its_cause(
    board: RemoteBoard, write: Callable[[Path], None], plan: MeasurePlan, cause: str, tmp_path: Path
) -> None:
    with board.session() as session, pytest.raises(MeasurementError, match=f"{cause}: candidate") as caught:
        session.measure(make_job(tmp_path / "job", write, plan), tmp_path)
    assert caught.value.remedy
    assert not (tmp_path / "outputs.npz").exists()


def test_same_input_in_every_case_may_give_the_same_output(board: RemoteBoard, tmp_path: Path) -> None:
    payload = make_payload(tmp_path / "job", conv_model)
    np.savez(payload.inputs, x=np.ones((4, 1, 3, 16, 16), np.float32))
    with board.session() as session:
        assert session.measure(Job(payload, None, OUTPUTS_ONLY), tmp_path).outputs is not None


def test_missing_runtime_is_about_the_board(board: RemoteBoard, tmp_path: Path) -> None:
    job = Job(make_payload(tmp_path / "job", target="teletype"), None, OUTPUTS_ONLY)
    with board.session() as session, pytest.raises(CommandFailed, match=r"runtime_missing.*teletype"):
        session.measure(job, tmp_path)


def test_board_without_python_is_told_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="no-such-python") as caught:
        local_board(tmp_path / "root", python="no-such-python").probe()
    assert "python =" in caught.value.remedy


@pytest.mark.fault(19)
def test_job_past_its_limit_ends_with_its_processes(board: RemoteBoard, tmp_path: Path) -> None:
    job = make_job(tmp_path / "job", plan=replace(ENDLESS, time_limit_s=1.0))
    with board.session() as session:
        with pytest.raises(MeasurementError, match=r"time_limit.*1 s"):
            session.measure(job, tmp_path)
        (folder,) = (tmp_path / "root" / "jobs").iterdir()
        wait_for("its supervisor, who wrote that it is over, to end", lambda: not living(folder.name))


@pytest.mark.fault(23, simulated="who sends the signal")
@pytest.mark.parametrize(
    ("number", "error", "cause"),
    [
        (signal.SIGKILL, MeasurementError, "killed: candidate: .*nothing says by whom"),
        (signal.SIGSEGV, MeasurementError, "worker_crashed.*SIGSEGV"),
    ],
)
def test_worker_that_dies_is_told_apart_by_how(
    board: RemoteBoard, number: int, error: type[Exception], cause: str, tmp_path: Path
) -> None:
    job = make_job(tmp_path / "job", plan=ENDLESS)

    def shot() -> bool:
        for path in (tmp_path / "root" / "jobs").glob("*/candidate"):
            for pid in filter(has_loaded, workers_of(path.parent.name)):
                os.kill(pid, number)
                return True
        return False

    def shoot() -> None:
        wait_for("a worker that has its artifact in use", shot)

    thread = threading.Thread(target=shoot)
    with board.session() as session:
        thread.start()
        with pytest.raises(error, match=cause):
            session.measure(job, tmp_path)
    thread.join()


@pytest.mark.fault(8)
def test_blob_that_rotted_on_the_board_is_brought_again(board: RemoteBoard, tmp_path: Path) -> None:
    job = make_job(tmp_path / "job")
    blob = tmp_path / "root" / "blobs" / job.candidate.artifact.files[0].sha256
    with board.session() as session:
        session.measure(job, tmp_path)
        blob.write_bytes(b"rot")
        assert session.measure(job, tmp_path).outputs is not None
    assert blob.read_bytes() == (job.candidate.folder / "model.onnx").read_bytes()


class DamagingTransport(LocalTransport):
    """A link that flips the last byte of every upload."""

    def put(self, source: Path, remote: str, *, timeout_s: float) -> None:
        data = bytearray(source.read_bytes())
        data[-1] ^= 1
        Path(remote).write_bytes(data)


@pytest.mark.fault(8)
def test_damaged_upload_is_refused_and_removed(tmp_path: Path) -> None:
    board = local_board(tmp_path / "root", DamagingTransport)
    with board.session() as session, pytest.raises(CommandFailed, match="corrupt_blob"):
        session.measure(make_job(tmp_path / "job"), tmp_path)
    assert list((tmp_path / "root" / "blobs").iterdir()) == []


@pytest.mark.fault(8)
def test_damaged_download_is_noticed(tmp_path: Path) -> None:
    class Damaging(LocalTransport):
        def get(self, remote: str, destination: Path, *, timeout_s: float, limit_bytes: int | None = None) -> None:
            destination.write_bytes(Path(remote).read_bytes()[:-1])

    board = local_board(tmp_path / "root", Damaging)
    with board.session() as session, pytest.raises(CommandFailed, match="damaged"):
        session.measure(make_job(tmp_path / "job"), tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A little more than two megabytes in memory, of which the agent takes a half."""
    if os.getuid() != 0:
        pytest.skip("mounting a small disk needs root")
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2304k", "tmpfs", str(place)], check=False).returncode != 0:
        pytest.skip("this machine does not allow mounts")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.fault(7)
def test_full_disk_is_seen_before_the_upload(small_disk: Path, tmp_path: Path) -> None:
    payload = make_payload(tmp_path / "job", cases=2000)
    needed = payload.inputs.stat().st_size + payload.artifact.size_bytes
    board = local_board(small_disk / "root")
    with board.session() as session, pytest.raises(CommandFailed, match=f"{needed} bytes are needed, [0-9]+ are free"):
        session.measure(Job(payload, None, OUTPUTS_ONLY), tmp_path)
    assert list((small_disk / "root" / "blobs").iterdir()) == []


@pytest.mark.fault(7)
def test_disk_that_fills_during_the_run_is_said(small_disk: Path, tmp_path: Path) -> None:
    """The inputs fit once, as the blob; unpacking them and writing the outputs does not."""
    payload = make_payload(tmp_path / "job", cases=450)
    board = local_board(small_disk / "root")
    with board.session() as session:
        with pytest.raises(CommandFailed, match="disk_full"):
            session.measure(Job(payload, None, OUTPUTS_ONLY), tmp_path)
        small = make_job(tmp_path / "small")
        assert session.measure(small, tmp_path).outputs is not None


class Cutter:
    """Makes transports of which the first is cut once, at one step: before the step reaches the board, or after it did.
    ``spared`` is how often the step goes well before that."""

    def __init__(self, step: str, after: bool, spared: int = 0) -> None:
        self.step = step
        self.after = after
        self.spared = spared
        self.cuts = 0

    def __call__(self) -> Transport:
        return CutTransport(self)


class CutTransport(LocalTransport):
    def __init__(self, cutter: Cutter) -> None:
        super().__init__()
        self._cutter = cutter

    def _do(self, step: str, work: Callable[[], Any]) -> Any:
        if self._cutter.cuts or self._cutter.step not in step:
            return work()
        if self._cutter.spared:
            self._cutter.spared -= 1
            return work()
        self._cutter.cuts += 1
        if self._cutter.after:
            work()
        self.close()
        raise Unreachable("the link", "was cut")

    def run(self, argv: Sequence[str], *, timeout_s: float, stdin: bytes = b"") -> Completed:
        work = super().run
        step = " ".join(["run", *argv[4:5]])  # PYTHON AGENT --root ROOT COMMAND ...
        done: Completed = self._do(step, lambda: work(argv, timeout_s=timeout_s, stdin=stdin))
        return done

    def put(self, source: Path, remote: str, *, timeout_s: float) -> None:
        work = super().put
        self._do("put", lambda: work(source, remote, timeout_s=timeout_s))

    def get(self, remote: str, destination: Path, *, timeout_s: float, limit_bytes: int | None = None) -> None:
        work = super().get
        self._do("get", lambda: work(remote, destination, timeout_s=timeout_s, limit_bytes=limit_bytes))

    def read_bytes(self, remote: str, *, timeout_s: float, limit_bytes: int = 1 << 20) -> bytes | None:
        work = super().read_bytes
        step = f"read {Path(remote).name}"
        data: bytes | None = self._do(step, lambda: work(remote, timeout_s=timeout_s, limit_bytes=limit_bytes))
        return data


@pytest.mark.fault(2, simulated="the link")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("step", "spared"),
    [
        ("run start", 0),  # it says what is missing
        ("put", 0),
        ("run commit", 0),
        ("run start", 1),  # it starts
        ("read status.json", 0),
        ("read result.json", 0),
        ("get", 0),
    ],
)
def test_link_cut_at_any_step_is_taken_up_without_a_second_run(
    step: str, spared: int, after: bool, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    cutter = Cutter(step, after, spared)
    with local_board(root, cutter).session() as session:
        run = session.measure(make_job(tmp_path / "job"), tmp_path)
        assert len(list((root / "jobs").iterdir())) == 1
    assert cutter.cuts == 1
    assert run.outputs is not None
    assert list((root / "blobs").glob(".part-*")) == [] or step in ("put", "run commit")


@pytest.mark.fault(2, simulated="the link")
def test_link_that_stays_away_is_unreachable(tmp_path: Path) -> None:
    links: list[Transport] = []

    def connect() -> Transport:
        if links:
            raise Unreachable("the link", "stays away")
        links.append(CutTransport(Cutter("run start", after=True)))
        return links[0]

    with local_board(tmp_path / "root", connect).session() as session, pytest.raises(Unreachable, match="stays away"):
        session.measure(make_job(tmp_path / "job"), tmp_path)


@pytest.mark.fault(2)
def test_connection_lost_during_the_run_finds_the_job_again(tmp_path: Path) -> None:
    """Over SSH: the connection is closed under a running job; the job goes on and its result is collected."""
    links: list[SshTransport] = []
    held = gate(tmp_path)
    plan = MeasurePlan(queries=3000, warmup=1, block=50, cold_starts=2, time_limit_s=60.0)
    root = tmp_path / "root"
    with serve("embedded") as target:

        def connect() -> SshTransport:
            links.append(SshTransport(target))
            return links[-1]

        def cut() -> None:
            wait_for("the job to run", lambda: running_jobs(root))
            links[0].close()
            held.open()

        thread = threading.Thread(target=cut)
        with local_board(root, connect, python=held.python).session() as session:
            thread.start()
            run = session.measure(make_job(tmp_path / "job", plan=plan), tmp_path)
            assert len(list((root / "jobs").iterdir())) == 1
        thread.join()
    assert len(links) == 2
    assert sum(len(block) for block in run.candidate.blocks_ns) == 3000


@pytest.mark.fault(9)
def test_boards_that_share_a_machine_never_time_side_by_side(tmp_path: Path) -> None:
    """Whatever their roots are. Runs that time nothing may go on."""
    board = local_board(tmp_path / "root", wait_s=0.5)
    with board.session() as session, machine_claimed():
        with pytest.raises(Busy, match="measuring for another board"):
            session.measure(make_job(tmp_path / "timed", plan=TIMED), tmp_path)
        assert session.measure(make_job(tmp_path / "untimed", plan=OUTPUTS_ONLY), tmp_path).outputs is not None
