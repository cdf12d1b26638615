"""An emulated Arm board: real arm64 runtimes behind a real SSH server, on a processor that does not exist.

It may say what the artifact computes, whether it loads, how large it is; the full system may also say how many instructions
an inference takes (``virtual_ns``). Neither may say how long anything takes on any board, so no time is taken.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgedeploy.boards.arm.image import Machine, require_image
from edgedeploy.boards.arm.server import serve
from edgedeploy.boards.remote import BoardOptions, RemoteBoard, RemoteSession
from edgedeploy.boards.ssh import SshTransport
from edgedeploy.boards.sshconfig import SshTarget
from edgedeploy.errors import Busy
from edgedeploy.measurement import BoardInfo, Clock, Job, MeasurePlan, Provenance, RawRun
from edgedeploy.runtime.supervisor import MEASURING_SOCKET

CLOCKS: Final[dict[Machine, Clock]] = {"arm64": "none", "arm64-system": "virtual"}

NOTES: Final[dict[Machine, str]] = {
    "arm64": (
        "emulated arm64: programs run by an instruction emulator (qemu-user) on this host's kernel; no time and no memory "
        "here is a board's, so none is given"
    ),
    "arm64-system": (
        "emulated arm64: a full system in an instruction emulator (qemu-system, one core); its clock counts instructions, "
        "1 ns each: virtual_ns compares work, it is no board's time"
    ),
}

VIRTUAL_QUERIES: Final = 16
"""Instruction counts repeat to a part in a thousand: more queries would say the same again, at emulation's pace."""

HOST_WAIT_S: Final = 300.0
"""Beside it comes what the study itself waits for a busy board: a measurement of minutes ends within it."""
COMMAND_TIMEOUT_S: Final = 120.0
"""Starting Python takes seconds under emulation on a busy host."""


NEVER_S: Final = 1e7
"""A clock that counts instructions jumps ahead while the board waits: its limits on silence would pass in a moment. Nobody
else can hold this board, and it ends with its session."""


class EmulatedArmBoard:
    """A :class:`~edgedeploy.protocols.Board`. It is turned on while it is probed or in session, and empty each time."""

    def __init__(self, name: str, machine: Machine) -> None:
        self.name = name
        self.provenance: Provenance = "emulated"
        self._machine: Machine = machine

    def probe(self) -> BoardInfo:
        """Raises ``TargetUnavailable`` when the image or the emulator is missing, ``BoardError`` when it does not start."""
        with serve(require_image(self._machine)) as target:
            return self._described(self._board(target).probe())

    @contextlib.contextmanager
    def session(self) -> Iterator[EmulatedArmSession]:
        """As :meth:`probe`; raises ``Busy`` while this host measures for another board past the wait."""
        image = require_image(self._machine)
        with _host_to_itself(self.name), serve(image) as target, self._board(target).session() as session:
            yield EmulatedArmSession(self._described(session.info), session)

    def _described(self, info: BoardInfo) -> BoardInfo:
        return replace(info, clock=CLOCKS[self._machine])

    def _board(self, target: SshTarget) -> RemoteBoard:
        return RemoteBoard(
            self.name,
            lambda: SshTransport(target, connect_timeout_s=COMMAND_TIMEOUT_S),
            provenance=self.provenance,
            options=BoardOptions(
                python="python3",
                root="/root/.edgedeploy",
                command_timeout_s=COMMAND_TIMEOUT_S,
                unchanged_s=120.0,
                silence_s=NEVER_S,
                orphan_grace_s=NEVER_S,
            ),
            notes=(NOTES[self._machine],),
        )


@contextlib.contextmanager
def _host_to_itself(board: str) -> Iterator[None]:
    """An emulator keeps a core busy: none runs beside a measurement of this host, and none starts beside an emulator."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as claim:
        give_up_s = time.monotonic() + HOST_WAIT_S
        while True:
            try:
                claim.bind(MEASURING_SOCKET)
                break
            except OSError as exc:
                if exc.errno != errno.EADDRINUSE:
                    raise
            if time.monotonic() > give_up_s:
                found = f"this host was measuring for another board for {HOST_WAIT_S:.0f} s"
                raise Busy(f"board {board!r}: hold it", found, "Wait until that is done")
            time.sleep(0.1)
        yield


class EmulatedArmSession:
    """A :class:`~edgedeploy.protocols.BoardSession` that asks for nothing that this board may not claim."""

    def __init__(self, info: BoardInfo, session: RemoteSession) -> None:
        self.info = info
        self._session = session

    def measure(self, job: Job, collect_into: Path) -> RawRun:
        """No baseline runs beside the candidate: nothing drifts here that it could show."""
        plan = plan_for(job.plan, self.info.clock)
        return self._session.measure(replace(job, plan=plan, baseline=None), collect_into)


def plan_for(plan: MeasurePlan, clock: Clock) -> MeasurePlan:
    """What of ``plan`` an emulated board can answer: nothing timed, or few queries that count instructions."""
    if clock == "none":
        return replace(plan, queries=0, cold_starts=0)
    return replace(plan, queries=min(plan.queries, VIRTUAL_QUERIES), block=1, warmup=min(plan.warmup, 2), cold_starts=0)
