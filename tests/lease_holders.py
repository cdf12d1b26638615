"""Holders of a board's lease, each a process of its own: a fork of the test that runs the agent's ``hold``.

SIMULATION of time alone: that a holder's heartbeats stayed away for longer than the limit is told to its ``select``,
which then answers as it does when the limit has passed. The boot id is what the test says it is. Locks, pipes,
signals and files are real.
"""

from __future__ import annotations

import json
import os
import select
import signal
import traceback
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edgedeploy.runtime import processes
from edgedeploy.runtime.agent import lease
from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.files import Root

OVER = b"?"
"""Ends what a holder answers when it asks for the lease."""


class Boot:
    """The boot id of the board, for this process and the holders that it starts afterwards."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> str:
        return f"boot-{self.number}"

    def installed(self) -> None:
        lease.boot_id = self
        processes.boot_id = self


class Holder:
    """Asks for the lease at once. ``granted`` is the lease, or None with the ``fault`` that refused it."""

    def __init__(self, root: Path, owner: str, *, wait_s: float = 0.0, resume: int | None = None) -> None:
        ours, theirs = os.pipe()
        beats, self._beats = os.pipe()
        silence, self._silence = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            for end in (ours, self._beats, self._silence):
                os.close(end)
            _hold(root, owner, wait_s, resume, theirs, beats, silence)
        for end in (theirs, beats, silence):
            os.close(end)
        said = b""
        while not said.endswith(OVER) and (piece := os.read(ours, 4096)):
            said += piece
        os.close(ours)
        answer: dict[str, Any] = json.loads(said.removesuffix(OVER))
        self.granted: dict[str, Any] | None = answer.get("lease")
        self.fault: tuple[str, str] | None = tuple(answer["fault"]) if "fault" in answer else None
        if self.granted is None:
            self.end()

    def say(self, text: bytes) -> None:
        os.write(self._beats, text)

    def release(self) -> None:
        self.say(b"beat\nrelease\n")
        self.end()

    def close(self) -> None:
        """As a lost connection does: the input ends."""
        self.end()

    def fall_silent(self) -> None:
        os.write(self._silence, b"!")
        os.waitpid(self.pid, 0)
        self.pid = 0
        self.end()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.end()

    def end(self) -> None:
        """Wait until it is gone. Its input is closed."""
        for end in (self._beats, self._silence):
            with suppress(OSError):
                os.close(end)
        if self.pid:
            os.waitpid(self.pid, 0)
            self.pid = 0


def _hold(root: Path, owner: str, wait_s: float, resume: int | None, answers: int, beats: int, silence: int) -> None:
    """In the fork."""

    def told_select(reading: list[Any], *_: Any) -> tuple[list[Any], list[Any], list[Any]]:
        ready, _, _ = select.select([*reading, silence], [], [], 60.0)
        if silence in ready and os.read(silence, 1):
            return [], [], []
        return select.select(reading, [], [], 60.0)  # its end alone is no silence: what was said before counts

    def grant(granted: dict[str, Any]) -> None:
        os.write(answers, json.dumps({"lease": granted}).encode() + OVER)
        lease.select = SimpleNamespace(select=told_select)

    try:
        with os.fdopen(beats, "rb", buffering=0) as source:
            lease.hold(
                Root(root),
                owner=owner,
                wait_s=wait_s,
                resume=resume,
                grant=grant,
                heartbeats=source,
                heartbeat_limit_s=60.0,
            )
    except RuntimeFault as fault:
        os.write(answers, json.dumps({"fault": [fault.cause, str(fault)]}).encode() + OVER)
    except BaseException:
        os.write(answers, json.dumps({"fault": ["crashed", traceback.format_exc()]}).encode() + OVER)
    finally:
        os._exit(0)
