"""A real sshd behind a cable that is cut, silent, reset or lossy at the wrong moment."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
from board_kit import ENDLESS_ASLEEP, OUTPUTS_ONLY, make_job, make_payload
from fault_kit import (
    Cable,
    Gate,
    agent_pace_s,
    board_behind_cable,
    gate,
    local_board,
    running_jobs,
    small_disk,
    wait_for,
)

from edgedeploy.boards.agent.board import RemoteBoard
from edgedeploy.boards.agent.session import BoardOptions
from edgedeploy.boards.ssh.files import Moved, SftpFiles
from edgedeploy.boards.ssh.transport import SshTransport
from edgedeploy.errors import Unreachable
from edgedeploy.records.job import Job, MeasurePlan, RawRun
from edgedeploy.runtime.files import sha256_file
from edgedeploy.runtime.processes import with_argument

pytestmark = pytest.mark.waiting

RUN = MeasurePlan(queries=400, warmup=1, block=50, cold_starts=6, time_limit_s=60.0)


PRODUCT: dict[str, object] = {"reconnect_pause_s": BoardOptions.reconnect_pause_s}
"""What the kit's boards shorten, as a study has it."""


DISK_MB = 144
"""Room for one job of the largest upload here (its inputs twice, and its outputs), for what the server of a connection that
was cut still holds of it, and for little more."""


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A real disk of the board. It is there before the board's server, whose namespace sees no later mounts."""
    with small_disk(tmp_path_factory.mktemp("board") / "disk", DISK_MB) as disk:
        yield disk


@pytest.fixture(scope="module")
def cable(disk: Path) -> Iterator[Cable]:
    with board_behind_cable() as cable:
        yield cable


def board_at(cable: Cable, root: Path, connect_s: float | None = None, **options: object) -> RemoteBoard:
    limit_s = max(1.0, 5 * agent_pace_s())
    connected: list[float] = []

    def connect() -> SshTransport:
        """The first connection, which nothing tries again, has time."""
        connected.append(connect_s or (limit_s if connected else 60.0))
        return SshTransport(cable.target, connect_timeout_s=connected[-1], stall_s=1.0)

    given = {"command_timeout_s": 2 * limit_s, "reconnects": 30, "reconnect_pause_s": 0.3, **options}
    return local_board(root, connect, **given)


def cut_under_a_job(cable: Cable, kind: str, held: Gate, root: Path, away_s: float) -> Callable[[], None]:
    """A fault while a job runs: the link is lost for so long. The job's workers wait until it is."""

    def fault() -> None:
        wait_for("the job to run", lambda: running_jobs(root))
        getattr(cable, kind)()
        held.open()
        time.sleep(away_s)
        cable.mend()

    return fault


def measured_while(board: RemoteBoard, job: Job, folder: Path, fault: Callable[[], None]) -> RawRun:
    """The run, with ``fault`` in a thread beside it."""
    thread = threading.Thread(target=fault)
    with board.session() as session:
        thread.start()
        run = session.measure(job, folder)
        thread.join()
        assert len(list((folder / "root" / "jobs").iterdir())) == 1
    return run


@pytest.mark.fault(2)
@pytest.mark.parametrize("kind", ["silence", "mute", "reset"])
def test_connection_lost_during_the_run(kind: str, cable: Cable, tmp_path: Path) -> None:
    """The job goes on without the network, is found again by its id, and was started once."""
    held = gate(tmp_path)
    fault = cut_under_a_job(cable, kind, held, tmp_path / "root", 3.0)
    board = board_at(cable, tmp_path / "root", python=held.python)
    run = measured_while(board, make_job(tmp_path / "job", plan=RUN), tmp_path, fault)
    assert sum(len(block) for block in run.candidate.blocks_ns) == 400
    assert run.outputs is not None


@pytest.mark.fault(2, 3)
@pytest.mark.parametrize("kind", ["silence", "mute"])
def test_connection_that_is_lost_comes_back_within_the_limits_of_a_study(
    kind: str, cable: Cable, tmp_path: Path
) -> None:
    """No setting is shortened: as a study has them, a link that is dead for twelve seconds is missed, opened anew, and the
    job that went on without it is found again."""
    held = gate(tmp_path)
    board = local_board(tmp_path / "root", lambda: SshTransport(cable.target), python=held.python, **PRODUCT)
    fault = cut_under_a_job(cable, kind, held, tmp_path / "root", 12.0)
    run = measured_while(board, make_job(tmp_path / "job", plan=RUN), tmp_path, fault)
    assert sum(len(block) for block in run.candidate.blocks_ns) == 400 and run.outputs is not None


def part_sizes(blobs: Path) -> list[int]:
    found = []
    for path in blobs.glob(".part-*"):
        with contextlib.suppress(FileNotFoundError):  # it became a blob
            found.append(path.stat().st_size)
    return found


@pytest.mark.fault(2, 7)
@pytest.mark.parametrize("kind", ["silence", "mute", "reset"])
def test_connection_lost_during_the_upload(
    kind: str, cable: Cable, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half an upload is no blob: it is brought again. The board's disk is a real one with room for the job, and for little
    more: what the first attempt left is in nobody's way."""
    payload = make_payload(tmp_path / "job", cases=12_000)
    size = payload.inputs.stat().st_size
    root = tmp_path / "root"
    root.symlink_to(disk / kind)
    (disk / kind).mkdir()
    blobs = root / "blobs"
    seen: list[int] = []
    lost, put = threading.Event(), SftpFiles.put

    class Half:
        """The file that is sent, at whose half the link is lost."""

        def __init__(self, stream: IO[bytes]) -> None:
            self._stream = stream

        def read(self, count: int) -> bytes:
            if self._stream.tell() > size // 2 and not lost.is_set():
                wait_for("a part to be on the board", lambda: any(n > size // 20 for n in part_sizes(blobs)))
                getattr(cable, kind)()
                seen.append(max(part_sizes(blobs)))
                lost.set()
            return self._stream.read(count)

    def put_half(files: SftpFiles, stream: IO[bytes], remote: str, size_bytes: int, moved: Moved) -> None:
        put(files, Half(stream) if size_bytes == size else stream, remote, size_bytes, moved)  # type: ignore[arg-type]

    def fault() -> None:
        assert lost.wait(300.0)
        time.sleep(2.0)
        cable.mend()

    monkeypatch.setattr(SftpFiles, "put", put_half)

    try:
        run = measured_while(board_at(cable, disk / kind), Job(payload, None, OUTPUTS_ONLY), tmp_path, fault)
        assert run.outputs is not None
        assert size // 20 < seen[0] < size, "the upload was over before the link was cut"
        assert not list(blobs.glob(".part-*"))
        whole = [path for path in blobs.iterdir() if path.stat().st_size == size]
        assert [sha256_file(path) for path in whole] == [path.name for path in whole] and len(whole) == 1
    finally:
        shutil.rmtree(disk / kind)


@pytest.mark.fault(2)
def test_lossy_network_is_slow_and_no_more(cable: Cable, tmp_path: Path) -> None:
    cable.lose(10)
    try:
        # a lost first packet is sent again after a second, its answer too: a limit of one second would be chance
        board = board_at(cable, tmp_path / "root", connect_s=15.0, command_timeout_s=15.0)
        with board.session() as session:
            job = make_job(tmp_path / "job")
            assert session.measure(job, tmp_path).outputs is not None
            assert len(list((tmp_path / "root" / "jobs").iterdir())) == 1
            for _ in range(20):  # one job has some hundred packets, and which are lost is chance
                if all(count >= 3 for count in cable.lost_packets()):
                    break
                assert session.measure(job, tmp_path).outputs is not None
        assert len(cable.lost_packets()) == 2
        assert all(count >= 3 for count in cable.lost_packets()), "packets were lost in both directions"
    finally:
        cable.mend()


@pytest.mark.fault(3)
def test_board_that_falls_silent_is_noticed_within_twenty_seconds(cable: Cable, tmp_path: Path) -> None:
    """With the time limits that a study has: no setting is shortened. The job ends by itself after that."""

    def connect() -> SshTransport:
        return SshTransport(cable.target)

    board = local_board(tmp_path / "root", connect, reconnects=0, orphan_grace_s=1.0)
    noticed: list[float] = []
    with pytest.raises(Unreachable), board.session() as session:
        job = make_job(tmp_path / "job", plan=ENDLESS_ASLEEP)

        def fault() -> None:
            wait_for("the job to run", lambda: running_jobs(tmp_path / "root"))
            cable.silence()
            noticed.append(time.monotonic())

        thread = threading.Thread(target=fault)
        thread.start()
        try:
            session.measure(job, tmp_path)
        finally:
            noticed.append(time.monotonic())
            thread.join()
            cable.mend()
    assert noticed[1] - noticed[0] < 20
    (folder,) = (tmp_path / "root" / "jobs").iterdir()
    with local_board(tmp_path / "root").session():
        assert with_argument(folder.name) == []


@pytest.mark.fault(3)
def test_upload_that_stands_still_is_noticed(cable: Cable, tmp_path: Path) -> None:
    """However long the whole transfer may take."""
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(4 << 30)  # of holes: many times what crosses the cable until it is cut, however late that is
    transport = SshTransport(cable.target, stall_s=1.0)
    started = threading.Event()

    def fault() -> None:
        wait_for("the upload to begin", (tmp_path / "remote").exists)
        cable.silence()
        started.set()

    thread = threading.Thread(target=fault)
    thread.start()
    began_s = time.monotonic()
    try:
        with pytest.raises(Unreachable, match="1 s"):
            transport.put(source, str(tmp_path / "remote"), timeout_s=1000.0)
    finally:
        thread.join()
        cable.mend()
        transport.close()
    assert started.is_set()
    assert time.monotonic() - began_s < 20
