"""What boards have in common whose processor is an instruction emulator: real runtimes behind a real SSH server.

Such a board may say what an artifact computes, whether it loads, how large it is; where its clock counts instructions, also
how many an inference takes (``virtual_ns``). It may not say how long anything takes on any board, so no time is taken.
"""

from __future__ import annotations

import abc
import contextlib
import errno
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgedeploy.boards.agent.board import RemoteBoard
from edgedeploy.boards.agent.session import BoardOptions, RemoteSession
from edgedeploy.boards.ssh.config import SshTarget
from edgedeploy.boards.ssh.transport import SshTransport
from edgedeploy.errors import Busy
from edgedeploy.interfaces.session import PackedSession
from edgedeploy.records.board import BoardInfo, Provenance
from edgedeploy.records.job import Job, MeasurePlan, Payload, RawRun
from edgedeploy.records.metrics import Clock
from edgedeploy.runtime.agent.supervisor import MEASURING_SOCKET

VIRTUAL_QUERIES: Final = 16
"""Instruction counts repeat to a part in a thousand: more queries would say the same again, at emulation's pace."""

HOST_WAIT_S: Final = 600.0
"""Beside it comes what the study itself waits for a busy board: a measurement of minutes ends within it."""
COMMAND_TIMEOUT_S: Final = 120.0
"""Starting Python takes seconds under emulation on a busy host."""


NEVER_S: Final = 1e7
"""A clock that counts instructions jumps ahead while the board waits: its limits on silence would pass in a moment. Nobody
else can hold this board, and it ends with its session."""


class EmulatorBoard(abc.ABC):
    """A :class:`~edgedeploy.interfaces.board.Board`. It is turned on while it is probed or in session, and empty each time.

    ``note`` says with every number what stands in for the board; ``python`` is the interpreter in there.
    """

    clock: Clock = "none"
    note: str
    python: str = "python3"

    def __init__(self, name: str, sessions: tuple[PackedSession, ...] = ()) -> None:
        self.name = name
        self._sessions = sessions
        self.provenance: Provenance = "emulated"

    @abc.abstractmethod
    def _require(self) -> None:
        """Raises ``TargetUnavailable`` where the board cannot be."""

    @abc.abstractmethod
    def _serve(self) -> AbstractContextManager[SshTarget]:
        """Its server, running."""

    @abc.abstractmethod
    def _root(self, target: SshTarget) -> str:
        """The agent's folder in there."""

    def _described(self, info: BoardInfo) -> BoardInfo:
        return replace(info, clock=self.clock)

    @abc.abstractmethod
    def _check(self, payload: Payload) -> None:
        """Raises ``TargetUnavailable`` for an artifact that the emulator is known to compute wrongly."""

    def probe(self) -> BoardInfo:
        """Raises ``TargetUnavailable`` where the board cannot be, ``BoardError`` when it does not start."""
        self._require()
        with self._serve() as target:
            return self._described(self._board(target).probe())

    @contextlib.contextmanager
    def session(self) -> Iterator[EmulatorSession]:
        """As :meth:`probe`; raises ``Busy`` while this host measures for another board past the wait."""
        self._require()
        with host_to_itself(self.name), self._serve() as target, self._board(target).session() as session:
            yield EmulatorSession(self._described(session.info), session, self._check)

    def _board(self, target: SshTarget) -> RemoteBoard:
        return RemoteBoard(
            self.name,
            lambda: SshTransport(target, connect_timeout_s=COMMAND_TIMEOUT_S),
            provenance=self.provenance,
            options=BoardOptions(
                python=self.python,
                root=self._root(target),
                command_timeout_s=COMMAND_TIMEOUT_S,
                unchanged_s=120.0,
                silence_s=NEVER_S,
                orphan_grace_s=NEVER_S,
                sessions=self._sessions,
            ),
            notes=(self.note,),
        )


@contextlib.contextmanager
def host_to_itself(board: str) -> Iterator[None]:
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


class EmulatorSession:
    """A :class:`~edgedeploy.interfaces.board.BoardSession` that asks for nothing that this board may not claim."""

    def __init__(self, info: BoardInfo, session: RemoteSession, check: Callable[[Payload], None]) -> None:
        self.info = info
        self._session = session
        self._check = check

    def measure(self, job: Job, collect_into: Path) -> RawRun:
        """No baseline runs beside the candidate: nothing drifts here that it could show."""
        self._check(job.candidate)
        plan = plan_for(job.plan, self.info.clock)
        return self._session.measure(replace(job, plan=plan, baseline=None), collect_into)


def plan_for(plan: MeasurePlan, clock: Clock) -> MeasurePlan:
    """What of ``plan`` an emulated board can answer: nothing timed, or few queries that count instructions."""
    if clock == "none":
        return replace(plan, queries=0, cold_starts=0)
    return replace(plan, queries=min(plan.queries, VIRTUAL_QUERIES), block=1, warmup=min(plan.warmup, 2), cold_starts=0)
