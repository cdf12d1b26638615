"""This host as a board: the same commands and files, without SSH."""

from __future__ import annotations

import contextlib
import selectors
import stat
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from edgedeploy.boards.drain import MOST_LINE_BYTES, PIECE_BYTES, Drain, check_flood, flood
from edgedeploy.errors import CommandFailed, Unreachable
from edgedeploy.files import raise_if_disk
from edgedeploy.interfaces.board import Completed, RemoteProcess

NOT_FOUND = 127
"""A shell's exit status for a command that does not exist."""


class LocalTransport:
    """Commands as child processes, remote paths as local ones."""

    def __init__(self) -> None:
        self._processes: list[LocalProcess] = []

    def run(self, argv: Sequence[str], *, timeout_s: float, stdin: bytes = b"") -> Completed:
        asked = f"run {argv[0]} here"
        pipe = subprocess.PIPE
        try:
            child = subprocess.Popen(list(argv), stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
        except FileNotFoundError as exc:
            return Completed(NOT_FOUND, b"", str(exc).encode())
        with child:
            assert child.stdin is not None and child.stdout is not None and child.stderr is not None
            give_up_s = time.monotonic() + timeout_s
            drains = [Drain(stream.read, child.kill) for stream in (child.stdout, child.stderr)]
            threading.Thread(target=_feed, args=(child.stdin, stdin), daemon=True).start()
            child.stdin = (
                None  # the thread's to close: one that is closed under its writing may be another file by then
            )
            output, error = (drain.wait(max(0.0, give_up_s - time.monotonic())) for drain in drains)
            if not all(drain.ended for drain in drains) or not _has_ended(child, give_up_s):
                child.kill()
                raise Unreachable(asked, f"no end within {timeout_s:g} s, so it was killed")
        check_flood(asked, *drains)
        return Completed(child.returncode if child.returncode >= 0 else None, output, error)

    def start(self, argv: Sequence[str]) -> RemoteProcess:
        try:
            process = LocalProcess(argv)
        except OSError as exc:
            raise CommandFailed(f"start {argv[0]} here", str(exc)) from exc
        self._processes.append(process)
        return process

    def put(self, source: Path, remote: str, *, timeout_s: float) -> None:
        _copy(source, Path(remote), remote)

    def get(self, remote: str, destination: Path, *, timeout_s: float, limit_bytes: int | None = None) -> None:
        _copy(Path(remote), destination, remote, limit_bytes)

    def read_bytes(self, remote: str, *, timeout_s: float, limit_bytes: int = 1 << 20) -> bytes | None:
        try:
            with Path(remote).open("rb") as stream:
                data = stream.read(limit_bytes + 1)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise CommandFailed(f"read {remote}", str(exc)) from exc
        return within(data, remote, limit_bytes)

    def write_bytes(self, remote: str, data: bytes, *, timeout_s: float) -> None:
        try:
            Path(remote).write_bytes(data)
        except OSError as exc:
            raise CommandFailed(f"write {remote}", str(exc)) from exc

    def close(self) -> None:
        for process in self._processes:
            process.close()
        self._processes.clear()


def within(data: bytes, remote: str, limit_bytes: int) -> bytes:
    """``data``, unless it is longer than ``limit_bytes``; raises ``CommandFailed`` then."""
    if len(data) > limit_bytes:
        raise CommandFailed(f"read {remote}", f"it is longer than {limit_bytes} bytes")
    return data


def _copy(source: Path, destination: Path, remote: str, limit_bytes: int | None = None) -> None:
    """Copy the bytes only, as SFTP to a board does: no links, no permissions. Raises ``CommandFailed`` for what is no
    file, and for one that is longer than ``limit_bytes``."""
    asked, copied = f"copy {remote}", 0
    try:
        if not stat.S_ISREG(source.stat().st_mode):
            raise CommandFailed(asked, "it is no plain file")
        with source.open("rb") as given, destination.open("wb") as taken:
            while piece := given.read(PIECE_BYTES):
                copied += len(piece)
                if limit_bytes is not None and copied > limit_bytes:
                    raise flood(asked, limit_bytes)
                taken.write(piece)
    except OSError as exc:
        if destination != Path(remote):  # a download: it is not the board's disk that is full
            raise_if_disk(exc, destination)
        raise CommandFailed(asked, str(exc)) from exc


def _feed(stream: IO[bytes], data: bytes) -> None:
    """Give a command its input, and end it. A command may end without reading it."""
    with contextlib.suppress(OSError), stream:
        view = memoryview(data)
        while view:
            view = view[stream.write(view) :]


def _has_ended(child: subprocess.Popen[bytes], give_up_s: float) -> bool:
    try:
        child.wait(max(0.0, give_up_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


class LocalProcess:
    def __init__(self, argv: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            list(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        self._text = b""

    def read_line(self, timeout_s: float) -> str:
        """The next line without its end; empty when the process has closed its output. Raises ``Unreachable`` when it is not
        whole within ``timeout_s``, ``CommandFailed`` for one without an end."""
        assert self._process.stdout is not None
        deadline_s = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._text:
                if len(self._text) > MOST_LINE_BYTES:
                    raise flood("a line from a local process", MOST_LINE_BYTES)
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or not selector.select(left_s):
                    raise Unreachable("a line from a local process", f"none within {timeout_s:g} s")
                data = self._process.stdout.read(65536)
                if not data:
                    break
                self._text += data
        line, _, self._text = self._text.partition(b"\n")
        return line.decode("utf-8", errors="replace")

    def write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
        except (OSError, ValueError) as exc:
            raise Unreachable("write to a local process", str(exc)) from exc

    def close(self) -> None:
        """End its input; a process that does not end then is killed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
