"""The lease of a board, rule by rule: who gets it, what its end leaves behind, and what a late holder is told."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fault_kit import wait_for
from lease_holders import Holder

from edgedeploy.runtime.agent import lease
from edgedeploy.runtime.agent.blobs import PART_PREFIX
from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.files import Root, write_json
from edgedeploy.runtime.processes import boot_id, identity, is_alive, with_argument
from edgedeploy.runtime.sensors import powermode

JOB = uuid.uuid4().hex
"""Of this process alone: tests beside this one end their own jobs."""
LONG_S = 60.0


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "root")


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders in which the power mode was put back."""
    found: list[Path] = []

    class Modes:
        def __init__(self, folder: Path) -> None:
            self._folder = folder

        def restore(self) -> None:
            found.append(self._folder)

    monkeypatch.setattr(powermode, "PowerModes", Modes)
    return found


class Held:
    """The lease, held by a thread of this process."""

    def __init__(self, root: Root, **options: Any) -> None:
        self.leases: list[dict[str, Any]] = []
        self.faults: list[RuntimeFault] = []
        self._granted = threading.Event()
        reading, self._beats = os.pipe()
        given = {"owner": "me", "wait_s": 0.0, "resume": None, "heartbeat_limit_s": LONG_S, **options}

        def grant(found: dict[str, Any]) -> None:
            self.leases.append(found)
            self._granted.set()

        def hold() -> None:
            with os.fdopen(reading, "rb", buffering=0) as source:
                try:
                    lease.hold(root, grant=grant, heartbeats=source, **given)
                except RuntimeFault as fault:
                    self.faults.append(fault)
                finally:
                    self._granted.set()

        self._thread = threading.Thread(target=hold, daemon=True)
        self._thread.start()
        assert self._granted.wait(LONG_S)

    def say(self, text: bytes) -> None:
        os.write(self._beats, text)

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def end(self) -> None:
        os.close(self._beats)
        self._thread.join(LONG_S)
        assert self.over

    def release(self) -> None:
        self.say(b"release\n")
        self._thread.join(LONG_S)
        assert self.over
        os.close(self._beats)


@pytest.fixture
def job(root: Root) -> Iterator[subprocess.Popen[bytes]]:
    """A process of a job that an earlier holder left, with its folder."""
    (root.jobs / JOB).mkdir(parents=True)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3000)", JOB])
    try:
        wait_for("its arguments to be seen, which is a moment after it was started", lambda: with_argument(JOB))
        yield process
    finally:
        process.kill()
        process.wait()


def ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        return process.wait(LONG_S) == -signal.SIGKILL
    except subprocess.TimeoutExpired:
        return False


def test_a_new_lease_has_the_next_token_and_says_who_holds_it(root: Root, restored: list[Path]) -> None:
    for number in (1, 2, 3):
        held = Held(root, owner=f"holder {number}")
        wanted = {
            "token": number,
            "owner": f"holder {number}",
            "boot_id": boot_id(),
            "holder": identity(os.getpid()),
        }
        assert held.leases == [wanted] == [json.loads(root.lease.read_text())]
        held.end()
    assert restored == [root.folder] * 3


def test_a_second_holder_is_told_who_the_first_is(root: Root, restored: list[Path]) -> None:
    first = Held(root, owner="somebody")
    second = Held(root, owner="me")
    assert [(fault.cause, str(fault)) for fault in second.faults] == [("busy", "held by somebody (lease 1)")]
    second.end()
    root.lease.unlink()
    third = Held(root)
    assert "held by somebody unknown (lease None)" in str(third.faults[0])
    third.end()
    first.end()


def test_a_second_holder_waits_as_long_as_it_says_it_would(root: Root, restored: list[Path]) -> None:
    first = Held(root, owner="first")
    threading.Timer(0.3, first.end).start()
    began_s = time.monotonic()
    second = Held(root, wait_s=LONG_S)
    assert second.leases[0]["token"] == 2 and time.monotonic() - began_s < LONG_S / 2
    began_s = time.monotonic()
    third = Held(root, wait_s=0.4)
    assert third.faults[0].cause == "busy" and time.monotonic() - began_s >= 0.4
    third.end()
    second.end()


def test_who_waits_and_goes_away_is_not_given_the_board(root: Root, restored: list[Path]) -> None:
    first = Held(root)
    reading, writing = os.pipe()
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as gone, pytest.raises(RuntimeFault, match="went away") as caught:
        lease.hold(root, owner="x", wait_s=LONG_S, resume=None, grant=print, heartbeats=gone, heartbeat_limit_s=LONG_S)
    assert caught.value.cause == "busy"
    first.end()


def test_heartbeats_while_waiting_are_signs_of_life(root: Root, restored: list[Path]) -> None:
    first = Held(root)
    reading, writing = os.pipe()
    os.write(writing, b"beat\n")
    threading.Timer(0.3, first.end).start()
    tokens: list[int] = []

    def grant(found: dict[str, Any]) -> None:
        tokens.append(found["token"])
        os.close(writing)

    with os.fdopen(reading, "rb", buffering=0) as beats:
        lease.hold(root, owner="x", wait_s=LONG_S, resume=None, grant=grant, heartbeats=beats, heartbeat_limit_s=LONG_S)
    assert tokens == [2]


def test_a_new_lease_ends_what_an_earlier_one_left(
    root: Root, restored: list[Path], job: subprocess.Popen[bytes]
) -> None:
    root.blobs.mkdir(parents=True)
    (root.blobs / f"{PART_PREFIX}half").write_bytes(b"half")
    held = Held(root)
    assert ended(job)
    assert list(root.jobs.iterdir()) == [] == list(root.blobs.iterdir())
    assert restored == [root.folder]
    held.end()


@pytest.mark.parametrize("how", ["released", "lost"])
def test_only_a_lease_that_is_given_back_ends_its_jobs(
    how: str, root: Root, restored: list[Path], job: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is lost may come back: its job goes on."""
    write_json(root.lease, {"token": 7, "boot_id": boot_id(), "holder": {}})
    root.blobs.mkdir(parents=True)
    (root.blobs / f"{PART_PREFIX}half").write_bytes(b"half")
    held = Held(root, resume=7)
    assert held.leases[0]["token"] == 7 and held.leases[0]["owner"] == "me"
    assert job.poll() is None and (root.jobs / JOB).is_dir() and restored == []
    assert list(root.blobs.iterdir()) == [], "of the connection before: nobody goes on with it"
    (root.blobs / f"{PART_PREFIX}other").write_bytes(b"half")
    if how == "lost":
        held.end()
        assert job.poll() is None and (root.jobs / JOB).is_dir() and restored == []
        assert len(list(root.blobs.iterdir())) == 1
    else:
        held.say(b"beat\n")
        held.release()
        assert ended(job)
        assert list(root.jobs.iterdir()) == [] == list(root.blobs.iterdir())
        assert restored == [root.folder]


def test_silence_ends_the_lease_and_heartbeats_keep_it(
    root: Root, restored: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIMULATION of time: ``select`` says at once that there is something to read, twice, and then that the limit passed."""
    reading, writing = os.pipe()
    os.write(writing, b"beat\nbeat\n")
    answers = [True, True, False]
    asked: list[tuple[object, float]] = []

    def told_select(sources: list[Any], _: list[Any], __: list[Any], limit_s: float) -> tuple[list[Any], ...]:
        asked.append((sources[0], limit_s))
        if answers[len(asked) - 1] and len(asked) == 2:
            os.write(writing, b"beat\n")
        return (sources if answers[len(asked) - 1] else [], [], [])

    monkeypatch.setattr(lease, "select", SimpleNamespace(select=told_select))
    with os.fdopen(reading, "rb", buffering=0) as beats:
        lease.hold(root, owner="x", wait_s=0.0, resume=None, grant=id, heartbeats=beats, heartbeat_limit_s=7.5)
        assert asked == [(beats, 7.5)] * 3
    os.close(writing)
    assert restored == [root.folder], "a lease that fell silent may be resumed"


def test_resuming_ends_the_holder_that_a_dead_connection_left(root: Root, restored: list[Path]) -> None:
    left = Holder(root.folder, "me")
    assert left.granted is not None
    back = Held(root, owner="me", wait_s=LONG_S, resume=left.granted["token"])
    assert back.leases[0]["token"] == left.granted["token"]
    assert os.waitstatus_to_exitcode(os.waitpid(left.pid, 0)[1]) == -signal.SIGKILL
    left.pid = 0
    left.end()
    back.end()


def test_resuming_a_lease_whose_holder_ends_just_then(
    root: Root, restored: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does when the connection's end reaches it at last: it is there, and then there is nobody to end."""
    left = Holder(root.folder, "me")
    assert left.granted is not None

    def alive(who: dict[str, Any]) -> bool:
        found = is_alive(who)
        left.close()
        return found

    monkeypatch.setattr(lease, "is_alive", alive)
    back = Held(root, owner="me", wait_s=LONG_S, resume=left.granted["token"])
    assert back.leases and back.leases[0]["token"] == left.granted["token"]
    back.end()


def test_an_upload_that_was_cut_gives_its_room_back_when_the_lease_is_resumed(root: Root, restored: list[Path]) -> None:
    """Though the server of the lost connection still has it open. What became a blob stays."""
    left = Holder(root.folder, "me")
    assert left.granted is not None
    root.blobs.mkdir(exist_ok=True)
    (root.blobs / "whole").write_bytes(b"all of it")
    with (root.blobs / ".part-1").open("wb", buffering=0) as first, (root.blobs / ".part-2").open("wb") as second:
        first.write(bytes(1 << 16))
        back = Held(root, owner="me", wait_s=LONG_S, resume=left.granted["token"])
        assert back.leases
        assert os.fstat(first.fileno()).st_size == os.fstat(second.fileno()).st_size == 0
        assert [path.name for path in root.blobs.iterdir()] == ["whole"]
        assert (root.blobs / "whole").read_bytes() == b"all of it"
    os.waitpid(left.pid, 0)
    left.pid = 0
    left.end()
    back.end()


def test_resuming_another_lease_ends_nobody(root: Root, restored: list[Path]) -> None:
    now = Holder(root.folder, "somebody")
    late = Held(root, resume=41)
    assert late.faults[0].cause == "busy"
    assert os.waitpid(now.pid, os.WNOHANG) == (0, 0)
    late.end()
    now.close()


@pytest.mark.parametrize(
    ("kept", "cause", "told"),
    [
        ({"token": 5, "boot_id": "another boot", "holder": {}}, "rebooted", "since lease 4 was granted"),
        ({"token": 5, "boot_id": boot_id(), "holder": {}}, "lease_lost", "lease 4 is over: the board's lease is 5"),
        (None, "rebooted", "since lease 4"),
    ],
)
def test_a_lease_that_is_over_is_not_resumed(
    kept: dict[str, Any] | None, cause: str, told: str, root: Root, restored: list[Path]
) -> None:
    root.folder.mkdir()
    if kept:
        write_json(root.lease, kept)
    late = Held(root, resume=4)
    assert late.faults[0].cause == cause and told in str(late.faults[0])
    late.end()


def test_a_job_that_cannot_be_ended_keeps_the_board_from_everybody(
    root: Root, restored: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (root.jobs / JOB).mkdir(parents=True)

    def stuck(argument: str) -> int:
        raise TimeoutError(f"{argument} does not end")

    monkeypatch.setattr(lease, "end_all_with_argument", stuck)
    asked = Held(root)
    assert asked.faults[0].cause == "hung" and "an earlier job still runs" in str(asked.faults[0])
    assert JOB in str(asked.faults[0])
    asked.end()


def test_a_token_counts_while_its_holder_lives(root: Root, restored: list[Path]) -> None:
    holder = Holder(root.folder, "me")
    lease.check_token(root, 1)
    for stale in (0, 2):
        with pytest.raises(RuntimeFault, match=f"token {stale} is outdated: the board's lease is 1") as caught:
            lease.check_token(root, stale)
        assert caught.value.cause == "stale_token"
    holder.kill()
    with pytest.raises(RuntimeFault, match="nobody holds the lease any more") as caught:
        lease.check_token(root, 1)
    assert caught.value.cause == "stale_token"


def test_a_board_that_nobody_ever_held_knows_no_token(root: Root) -> None:
    root.folder.mkdir()
    with pytest.raises(RuntimeFault, match="the board's lease is None"):
        lease.check_token(root, 1)


def test_heartbeats_come_from_standard_input(root: Root, restored: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"release\n")
    with os.fdopen(reading, "rb", buffering=0) as stream:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stream))
        tokens: list[int] = []
        lease.hold(
            root,
            owner="x",
            wait_s=0.0,
            resume=None,
            grant=lambda found: tokens.append(found["token"]),
            heartbeat_limit_s=LONG_S,
        )
    os.close(writing)
    assert tokens == [1]
    assert restored == [root.folder] * 2
