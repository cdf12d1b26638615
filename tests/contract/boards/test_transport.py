"""What every transport has to do, held against this host, the embedded SSH server and the real sshd."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from board_kit import TRANSPORTS, open_transport

from edgedeploy.boards import local
from edgedeploy.boards.local import LocalTransport
from edgedeploy.errors import CommandFailed, Unreachable
from edgedeploy.interfaces.board import Transport

MIB = 1 << 20

PATIENCE_S = 120.0
"""What takes longer hangs."""


@pytest.fixture(scope="module", params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> Iterator[Transport]:
    with open_transport(request.param) as opened:
        yield opened


@pytest.fixture(params=TRANSPORTS)
def own_transport(request: pytest.FixtureRequest) -> Iterator[Transport]:
    """A transport that a test may break."""
    with open_transport(request.param) as opened:
        yield opened


def test_outputs_and_status_come_back(transport: Transport) -> None:
    done = transport.run(["sh", "-c", "echo out; echo err >&2; exit 7"], timeout_s=PATIENCE_S)
    assert (done.stdout, done.stderr, done.exit_status) == (b"out\n", b"err\n", 7)


@pytest.mark.fault(38)
@pytest.mark.parametrize("argument", ["two words", "$HOME `id` $(id)", "'; touch x #", 'a"b', "line\nbreak", "ünï", ""])
def test_arguments_are_data(transport: Transport, argument: str) -> None:
    done = transport.run(["printf", "%s", argument], timeout_s=PATIENCE_S)
    assert done.stdout.decode() == argument


def test_large_streams_in_all_directions_at_once(transport: Transport) -> None:
    program = "import sys; d = sys.stdin.buffer.read(); sys.stderr.buffer.write(d); sys.stdout.buffer.write(d[::-1])"
    data = os.urandom(3 * MIB)
    done = transport.run([sys.executable, "-c", program], timeout_s=PATIENCE_S, stdin=data)
    assert done.stderr == data
    assert done.stdout == data[::-1]


def test_input_that_nobody_reads_is_no_failure(transport: Transport) -> None:
    assert transport.run(["true"], timeout_s=PATIENCE_S, stdin=b"x" * (4 * MIB)).exit_status == 0


def test_input_that_comes_after_the_end_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine lets the thread that writes it begin when the command has ended already."""
    ended, written, feed = threading.Event(), threading.Event(), local._feed

    def late(stream: IO[bytes], data: bytes) -> None:
        ended.wait(PATIENCE_S)
        feed(stream, data)
        written.set()

    monkeypatch.setattr(local, "_feed", late)
    assert LocalTransport().run(["true"], timeout_s=PATIENCE_S, stdin=b"x").exit_status == 0
    ended.set()
    assert written.wait(PATIENCE_S)


@pytest.mark.fault(5)
def test_killed_command_has_no_exit_status(transport: Transport) -> None:
    done = transport.run(["sh", "-c", "echo begun; kill -9 $$"], timeout_s=PATIENCE_S)
    assert done.exit_status is None
    assert done.stdout == b"begun\n"


def test_missing_command_is_status_127(transport: Transport) -> None:
    assert transport.run(["no-such-command-here"], timeout_s=PATIENCE_S).exit_status == 127


def test_command_past_its_deadline_is_unreachable(own_transport: Transport) -> None:
    with pytest.raises(Unreachable, match=r"0\.5 s"):
        own_transport.run(["sleep", "3000"], timeout_s=0.5)


def test_files_go_and_come_back_unchanged(transport: Transport, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(5 * MIB + 17))
    remote = str(tmp_path / "a folder's file")
    transport.put(source, remote, timeout_s=PATIENCE_S)
    transport.get(remote, back, timeout_s=PATIENCE_S)
    assert back.read_bytes() == source.read_bytes()


def test_empty_file_goes_and_comes_back(transport: Transport, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    transport.put(tmp_path / "empty", str(tmp_path / "remote"), timeout_s=PATIENCE_S)
    transport.get(str(tmp_path / "remote"), tmp_path / "back", timeout_s=PATIENCE_S)
    assert (tmp_path / "back").read_bytes() == b""


def test_written_bytes_are_read_and_replaced(transport: Transport, tmp_path: Path) -> None:
    remote = str(tmp_path / "remote")
    transport.write_bytes(remote, b"a longer text", timeout_s=PATIENCE_S)
    transport.write_bytes(remote, b"short", timeout_s=PATIENCE_S)
    assert transport.read_bytes(remote, timeout_s=PATIENCE_S) == b"short"


def test_absent_file_reads_as_none(transport: Transport, tmp_path: Path) -> None:
    assert transport.read_bytes(str(tmp_path / "absent"), timeout_s=PATIENCE_S) is None


def test_file_longer_than_the_limit_is_refused(transport: Transport, tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"x" * 11)
    assert transport.read_bytes(str(tmp_path / "long"), timeout_s=PATIENCE_S, limit_bytes=11) == b"x" * 11
    with pytest.raises(CommandFailed, match="10 bytes"):
        transport.read_bytes(str(tmp_path / "long"), timeout_s=PATIENCE_S, limit_bytes=10)


def test_refusals_of_the_file_system_name_the_file(transport: Transport, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    remote = str(tmp_path / "no folder" / "file")
    for operation in (
        lambda: transport.put(source, remote, timeout_s=PATIENCE_S),
        lambda: transport.get(remote, tmp_path / "back", timeout_s=PATIENCE_S),
        lambda: transport.write_bytes(remote, b"x", timeout_s=PATIENCE_S),
    ):
        with pytest.raises(CommandFailed, match="no folder"):
            operation()


def test_held_open_command_answers_line_by_line(transport: Transport) -> None:
    process = transport.start(["sh", "-c", "echo hello; read line; echo got $line"])
    assert process.read_line(60) == "hello"
    process.write(b"you\n")
    assert process.read_line(60) == "got you"
    assert process.read_line(60) == ""
    process.close()


def test_silence_past_the_deadline_is_unreachable(transport: Transport) -> None:
    process = transport.start(["cat"])
    with pytest.raises(Unreachable):
        process.read_line(0.3)
    process.close()


def test_closing_ends_the_input_of_what_is_held_open(own_transport: Transport, tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    own_transport.start(["sh", "-c", f"cat; touch {ended}"])
    own_transport.close()
    give_up_s = time.monotonic() + 60
    while not ended.exists():
        assert time.monotonic() < give_up_s, "the command did not notice that its holder is gone"
        time.sleep(0.02)
