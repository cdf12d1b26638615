"""A process that has imported what strangers' files are looked at with, and forks for each look.

A look takes a process of its own, and 0.2 s of imports in it; ``init`` and ``quantize`` have up to nine of them. The process
that is ready (:mod:`.ready_child`) is started with the first look, sees no file itself, and ends with whoever started it, or
when nothing was asked of it for a while. The limits are those of the fork: they are set before it sees anything.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_MAIN: Final = (
    "import sys; sys.path[:] = sys.argv[1].split(sys.argv[2]); import importlib; "
    "importlib.import_module(sys.argv[3]).main()"
)

LOOKS: Final = struct.Struct("=i")
"""The process that looks tells its id before it looks."""

ENDED: Final = struct.Struct("=ii")
"""Whoever waits for it tells its id and its exit status (negative: the signal that ended it)."""

TAKEN_UP_S: Final = 60.0
"""A process that is ready tells within milliseconds who looks, and one that is started for it in seconds. Another one is
stopped or hangs."""


def child_command(module: str) -> list[str]:
    """How the ``main`` of a module of ours is run by another process: with this one's import path."""
    paths = os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))
    return [sys.executable, "-P", "-c", _MAIN, paths, os.pathsep, module]


@dataclass(frozen=True)
class Server:
    """``known`` is what it was started with: what a process imports depends on it."""

    process: subprocess.Popen[bytes]
    link: socket.socket
    known: tuple[str, ...]


class Ready:
    """The one process of this process that is ready. It may be asked from several threads."""

    def __init__(self) -> None:
        self._server: Server | None = None
        self._asking = threading.Lock()

    def run(
        self,
        argv: Sequence[str],
        limits: Mapping[str, Any],
        source: int,
        env: Mapping[str, str],
        patience_s: float | None,
    ) -> subprocess.CompletedProcess[bytes] | None:
        """As ``subprocess.run`` of ``argv``, a command of this interpreter with ``-P``, in ``/`` and with these limits.
        None where no process was ready: then nothing was looked at, or nobody is left who could tell how it ended."""
        order = json.dumps({"argv": argv[2:], "limits": limits, "environ": {**env}}).encode()
        ends = [os.pipe() for _ in range(3)]
        try:
            try:
                asked = self._ask(order, [source, *(writing for _, writing in ends)], env)
            finally:
                for _, writing in ends:
                    os.close(writing)
            done = _collected(argv, [reading for reading, _ in ends], patience_s) if asked else None
            if done is None:
                with self._asking:
                    self._end()  # it has ended, or is to
            return done
        finally:
            for reading, _ in ends:
                os.close(reading)

    def _ask(self, order: bytes, files: list[int], env: Mapping[str, str]) -> bool:
        with self._asking:
            try:
                socket.send_fds(self._serving(env).link, [order], files)
            except OSError:  # it has ended, or there is no room for such a message
                return False
            return True

    def _serving(self, env: Mapping[str, str]) -> Server:
        command = child_command("edgedeploy.reference.ready_child")
        known = (*command, env.get("PYTHONPATH", ""), env.get("LD_LIBRARY_PATH", ""))
        server = self._server
        if server is None or server.known != known or server.process.poll() is not None:
            self._end()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                quiet = subprocess.DEVNULL
                process = subprocess.Popen(
                    command, stdin=theirs.fileno(), stdout=quiet, stderr=quiet, cwd="/", env={**env}
                )
            self._server = server = Server(process, ours, known)
        return server

    def _end(self) -> None:
        """It ends by itself when nobody holds the other end of its link; one that is stopped or hangs does not."""
        if self._server is not None:
            self._server.process.kill()
        self._leave()

    def _leave(self) -> None:
        if self._server is not None:
            self._server.link.close()
            self._server = None

    def forget(self) -> None:
        """In a fork of this process: the server is not its own."""
        self._asking = threading.Lock()
        self._leave()


def _collected(
    argv: Sequence[str], reading: list[int], patience_s: float | None
) -> subprocess.CompletedProcess[bytes] | None:
    """What came out, when the process has ended."""
    out, err, told = reading
    got = {end: bytearray() for end in reading}
    taken_up_s = time.monotonic() + TAKEN_UP_S
    until_s = None if patience_s is None else time.monotonic() + patience_s
    with selectors.DefaultSelector() as waiting, _ended_if_left(got, told):
        for end in reading:
            os.set_blocking(end, False)
            waiting.register(end, selectors.EVENT_READ)
        while told in waiting.get_map():
            left_s = None if until_s is None else until_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise subprocess.TimeoutExpired([*argv], patience_s or 0.0)
            if not got[told]:
                if time.monotonic() >= taken_up_s:
                    return None
                left_s = min(taken_up_s - time.monotonic(), math.inf if left_s is None else left_s)
            for key, _ in waiting.select(left_s):
                _read(key.fd, got, waiting)
        for end in (out, err):  # what it wrote lies there: it has ended
            while end in waiting.get_map() and _read(end, got, waiting):
                pass
    if len(got[told]) < ENDED.size:
        _end_look(got[told])
        return None
    _, status = ENDED.unpack(got[told][-ENDED.size :])
    return subprocess.CompletedProcess([*argv], status, bytes(got[out]), bytes(got[err]))


def _read(end: int, got: dict[int, bytearray], waiting: selectors.BaseSelector) -> bool:
    try:
        part = os.read(end, 1 << 20)
    except BlockingIOError:
        return False
    got[end] += part
    if not part:
        waiting.unregister(end)
    return bool(part)


@contextlib.contextmanager
def _ended_if_left(got: dict[int, bytearray], told: int) -> Iterator[None]:
    """Whoever stops waiting ends the process that looks."""
    try:
        yield
    except BaseException:
        _end_look(got[told])
        raise


def _end_look(told: bytearray) -> None:
    """Where it is known who looks, and not that it has ended."""
    if len(told) == LOOKS.size:
        with contextlib.suppress(ProcessLookupError):
            os.kill(LOOKS.unpack(told)[0], signal.SIGKILL)


ready: Final = Ready()
os.register_at_fork(after_in_child=ready.forget)
