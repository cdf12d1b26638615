"""Base of boards whose processor is an instruction emulator: real runtimes behind a real SSH server.

Such a board can tell what an artifact computes, whether it loads and how large it is. If its clock counts instructions,
it also tells how many an inference takes (``virtual_ns``). No other time is taken: it says nothing about a real board.
"""

from __future__ import annotations

import abc
import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgedeploy.boards.agent.board import RemoteBoard
from edgedeploy.boards.agent.session import NEVER_S, BoardOptions, RemoteSession
from edgedeploy.boards.ssh.config import SshTarget
from edgedeploy.boards.ssh.transport import SshTransport
from edgedeploy.errors import Busy
from edgedeploy.interfaces.session import PackedSession
from edgedeploy.records.board import BoardInfo, LoadedBundle, Provenance
from edgedeploy.records.job import Job, MeasurePlan, Payload, RawRun
from edgedeploy.records.metrics import Clock
from edgedeploy.runtime.agent.claim import Claim

VIRTUAL_QUERIES: Final = 16
"""The least count of so many repeats to a part in a thousand for networks of more than a few million instructions; for
smaller ones the ticks of the kernel's clock show. Emulation is slow, so more are not asked for."""

HOST_WAIT_S: Final = 600.0
"""A measurement of several minutes ends within this time. The study's own wait for a busy board is added to it."""
EMULATED_COMMAND_TIMEOUT_S: Final = 120.0
"""Starting Python takes seconds under emulation on a busy host."""


class EmulatorBoard(abc.ABC):
    """A :class:`~edgedeploy.interfaces.board.Board`. It runs only while it is probed or in session, and starts empty.

    ``note`` goes with every number and says what emulates the board; ``python`` is the board's interpreter.
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
        """Raises ``TargetUnavailable`` on a host that cannot emulate the board."""

    @abc.abstractmethod
    def _serve(self) -> AbstractContextManager[SshTarget]:
        """Run the board's server for the block."""

    @abc.abstractmethod
    def _root(self, target: SshTarget) -> str:
        """The agent's folder on the board."""

    def _described(self, info: BoardInfo) -> BoardInfo:
        return replace(info, clock=self.clock)

    @abc.abstractmethod
    def _check(self, payload: Payload) -> None:
        """Raises ``TargetUnavailable`` for an artifact that the emulator is known to compute wrongly."""

    def probe(self) -> BoardInfo:
        """Raises ``TargetUnavailable`` on a host that cannot emulate the board, ``BoardError`` when it does not
        start."""
        self._require()
        with self._serve() as target:
            return self._described(self._board(target).probe())

    @contextlib.contextmanager
    def session(self) -> Iterator[EmulatorSession]:
        """As :meth:`probe`; raises ``Busy`` when this host is still measuring for another board after the wait."""
        self._require()
        with host_to_itself(self.name), self._serve() as target, self._board(target).session() as session:
            yield EmulatorSession(self._described(session.info), session, self._check)

    def _board(self, target: SshTarget) -> RemoteBoard:
        return RemoteBoard(
            self.name,
            lambda: SshTransport(target, connect_timeout_s=EMULATED_COMMAND_TIMEOUT_S),
            provenance=self.provenance,
            options=BoardOptions(
                python=self.python,
                root=self._root(target),
                command_timeout_s=EMULATED_COMMAND_TIMEOUT_S,
                unchanged_s=120.0,
                silence_s=NEVER_S,
                orphan_grace_s=NEVER_S,
                sessions=self._sessions,
                clock=self.clock,
            ),
            notes=(self.note,),
        )


@contextlib.contextmanager
def host_to_itself(board: str) -> Iterator[None]:
    """Hold this host's lock: an emulator keeps a core busy, so no emulator runs beside a measurement on this host, and
    none beside another emulator."""
    with Claim() as claim:
        give_up_s = time.monotonic() + HOST_WAIT_S
        while not claim.take():
            if time.monotonic() > give_up_s:
                found = f"this host was measuring for another board for {HOST_WAIT_S:.0f} s"
                raise Busy(f"board {board!r}: hold it", found, "Wait until that is done")
            time.sleep(0.1)
        yield


class EmulatorSession:
    """A :class:`~edgedeploy.interfaces.board.BoardSession` that measures only what this board can tell."""

    def __init__(self, info: BoardInfo, session: RemoteSession, check: Callable[[Payload], None]) -> None:
        self.info = info
        self._session = session
        self._check = check

    def measure(self, job: Job, collect_into: Path) -> RawRun:
        """Runs the candidate without the baseline, which would only show drift: instruction counts do not drift."""
        self._check(job.candidate)
        plan = plan_for(job.plan, self.info.clock)
        return self._session.measure(replace(job, plan=plan, baseline=None), collect_into)

    def load_bundle(self, archive: Path, trust: Path | None) -> LoadedBundle:
        return self._session.load_bundle(archive, trust)


def plan_for(plan: MeasurePlan, clock: Clock) -> MeasurePlan:
    """The part of ``plan`` that an emulated board can answer: no timing, or a few queries that count instructions."""
    if clock == "none":
        return replace(plan, queries=0, cold_starts=0)
    return replace(plan, queries=min(plan.queries, VIRTUAL_QUERIES), block=1, warmup=min(plan.warmup, 2), cold_starts=0)
