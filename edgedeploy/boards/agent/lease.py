"""The exclusive hold on a board: the agent keeps its lock for as long as this side's heartbeats arrive."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import Final

from edgedeploy.boards.agent import answers
from edgedeploy.boards.agent.client import AgentClient, answer_of, last_object
from edgedeploy.boards.ssh.config import user_name
from edgedeploy.errors import CommandFailed, EdgeDeployError, Unreachable
from edgedeploy.interfaces.board import RemoteProcess

SILENCE_S: Final = 30.0
"""After so long without a sign of its holder a board frees itself, unless it is told another time."""

HEARTBEAT_PERIOD_S: Final = SILENCE_S / 6

MOST_LINES: Final = 1000
"""Of greetings before the agent's answer."""

RELEASE_TIMEOUT_S: Final = 5.0


class Lease:
    """A lease that is granted. ``token`` names it, ``probe`` says what the board is."""

    def __init__(
        self, agent: AgentClient, *, wait_s: float, resume: int | None = None, silence_s: float = SILENCE_S
    ) -> None:
        """The board frees itself after ``silence_s`` without a heartbeat. Raises ``Busy`` when it is not free within
        ``wait_s``, or ``resume`` is no longer the board's lease."""
        asked = f"board {agent.board!r}: hold it"
        arguments = ["lease", "--owner", owner(), "--wait", f"{wait_s:g}", "--heartbeat-limit", f"{silence_s:g}"]
        if resume is not None:
            arguments += ["--resume", str(resume)]
        self._process = agent.transport.start([*agent.command, *arguments])
        self._stop = threading.Event()
        try:
            answer = answer_of(asked, _first_object(self._process, wait_s + agent.timeout_s))
            granted = answers.granted(asked, answer)
        except EdgeDeployError:
            self._process.close()
            raise
        self.token = granted.token
        self.probe = granted.probe
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat of {agent.board}", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_PERIOD_S):
            try:
                self._process.write(b"\n")
            except Unreachable:
                return  # the next command on this board meets the same end and reports it

    def release(self) -> None:
        """Give the board back: what is left of the session's jobs is removed there. A board that is gone is no error."""
        self._stop.set()
        try:
            self._process.write(b"release\n")
            self._process.read_line(RELEASE_TIMEOUT_S)
        except (CommandFailed, Unreachable):
            pass  # the agent frees the board by itself when the heartbeats stop
        self._process.close()

    def drop(self) -> None:
        """Forget a lease whose connection is lost, so that its job may go on and the lease be resumed."""
        self._stop.set()
        self._process.close()


def _first_object(process: RemoteProcess, timeout_s: float) -> bytes:
    """The first line that is a JSON object: start-up files of the board's shell may print before it."""
    give_up_s = time.monotonic() + timeout_s
    said = b""
    for _ in range(MOST_LINES):
        line = process.read_line(max(0.0, give_up_s - time.monotonic())).encode()
        with contextlib.suppress(ValueError, RecursionError):
            last_object(line)
            return line
        if not line:
            break
        said = said or line
    return said


def owner() -> str:
    """Who holds it, for the one who has to wait."""
    return f"{user_name()}@{socket.gethostname()}, process {os.getpid()}"
