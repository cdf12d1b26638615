"""One board in a night: one job at a time, as long as the board answers and the budget lasts.

away           waited for, as its table says, and longer while other boards still work
failed a job   the job is tried a second time; three failed jobs in a row put the board into quarantine
host key, quarantine, login refused     the board's own jobs are not run; other boards go on
same machine   boards of one kernel take turns
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Protocol

from edgedeploy import errors
from edgedeploy.boards.care.absence import PAUSE_S, Absence
from edgedeploy.boards.care.attempts import Patience
from edgedeploy.boards.care.quarantine import Quarantine
from edgedeploy.errors import BoardError, EdgeDeployError, LoginRefused, TargetUnavailable, Unreachable
from edgedeploy.interfaces.board import Board
from edgedeploy.lab.crew import FAILURES_BEFORE_QUARANTINE, Machines
from edgedeploy.lab.kinds import health_check
from edgedeploy.nightly.journal import Journal
from edgedeploy.nightly.order import Pair, next_pair
from edgedeploy.nightly.parts import Parts
from edgedeploy.nightly.rows import JobKey
from edgedeploy.nightly.session import SessionPlan
from edgedeploy.nightly.subject import Subject
from edgedeploy.nightly.tonight import THIS_HOST
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.night import Session
from edgedeploy.spec.boards import BoardTable
from edgedeploy.study.runner import Runner
from edgedeploy.study.store import utc_now

ATTEMPTS: Final = 2
"""How often a job is tried that its board fails, each after the retries of :mod:`edgedeploy.boards.care.attempts`."""

LEAVES: Final = ("HostKeyError", "Quarantined", "LoginRefused")
NOT_ITS_FAULT: Final = ("Busy", "Unreachable")
"""Failures after which a board is not set aside: somebody else has it, or it is away."""


class Stop(Exception):
    """The night is over for a board, or was interrupted."""


class Tonight(Protocol):
    """What all boards share. ``missing`` are sessions of a pair to be measured, after a suspicion two more; ``judge`` says
    whether there are. ``pause`` raises :class:`Stop` when the night is over."""

    night: str
    journal: Journal
    machines: Machines
    parts: Parts
    plan: SessionPlan

    def subject(self, entry: str) -> Subject: ...
    def missing(self, pair: Pair) -> list[JobKey]: ...
    def judge(self, pair: Pair) -> bool: ...
    def left_s(self) -> float: ...
    def pause(self, pause_s: float) -> None: ...
    def others_work(self, board: str) -> bool: ...
    def say(self, text: str) -> None: ...
    def told(self, session: Session) -> None: ...


class Station:
    """A board and its pairs. ``error`` says why it serves no more, ``info`` is the latest that it said of itself. A board
    that is waited for is not ``at_work``; one that has nothing more to measure is ``over``."""

    def __init__(self, table: BoardTable, pairs: Sequence[Pair], tonight: Tonight) -> None:
        self.table = table
        self.pairs = list(pairs)
        self.info: BoardInfo | None = None
        self.error: EdgeDeployError | None = None
        self.at_work = True
        self.over = not self.pairs
        self._tonight = tonight
        self._device: Board | None = None
        self._run: Runner | None = None
        self._failed = 0

    @property
    def name(self) -> str:
        return self.table.name

    def serve(self) -> None:
        """Until nothing is left that fits, the board fails, or :class:`Stop`."""
        try:
            while self.error is None and self._next() is not None:
                self._open()
                assert self.info is not None
                with self._tonight.machines.of(self.info.seat):
                    pair = self._next()  # others of the same machine had their turn meanwhile
                    if pair is not None:
                        self._measure(pair)
        except Stop:
            return
        except BoardError as exc:
            self._leave(exc)
        finally:
            self.at_work, self.over = False, True

    @property
    def machine(self) -> str:
        """The kernel, where the board answered."""
        if self.info is not None:
            return self.info.kernel
        return self.name if self.table.kind == "ssh" else THIS_HOST

    @property
    def needed_s(self) -> float:
        """Of what it has still to measure."""
        return 0.0 if self.over else sum(pair.expected_s for pair in tuple(self.pairs))

    def _next(self) -> Pair | None:
        return next_pair(self.pairs, self._tonight.left_s())

    def _leave(self, exc: EdgeDeployError) -> None:
        self.error = exc
        self._tonight.say(f"board {self.name}: {exc}; the night goes on without it")

    def _open(self) -> None:
        """Waits for the board. Raises ``BoardError`` when it is given up, :class:`Stop`."""
        if self._device is not None:
            return
        absence, failed = Absence(self.name, self.table.away, self._tonight.say), 0
        while True:
            try:
                self._device, self.info = self._tonight.parts.open_board(self.table)
            except Unreachable as exc:
                waits = not isinstance(exc, LoginRefused) and self._tonight.others_work(self.name)
                if not absence.goes_on(exc) and not waits:
                    raise absence.given_up(exc) from exc
                self.at_work = False
                self._tonight.pause(PAUSE_S)
            except BoardError as exc:
                failed += 1
                if type(exc).__name__ in LEAVES or failed >= FAILURES_BEFORE_QUARANTINE:
                    raise
                self._tonight.pause(PAUSE_S)
            else:
                break
            finally:
                self.at_work = True
        absence.over()
        patience = Patience(away_s=self.table.away, away_at_first=False)
        check = health_check(self.info)
        self._run = self._tonight.parts.runner(self._device, self._tonight.say, check, patience)

    def _measure(self, pair: Pair) -> None:
        """All missing sessions of a pair, and two more where it is suspected and they fit. A session that the board fails
        leaves the pair for later."""
        try:
            subject = self._tonight.subject(pair.entry)
        except EdgeDeployError:  # remembered, and told with the entry's verdict
            self.pairs.remove(pair)
            return
        for key in self._tonight.missing(pair):
            if not self._session(subject, key):
                return
        self.pairs.remove(pair)
        if self._tonight.judge(pair):
            more = self._tonight.missing(pair)
            self.pairs.append(replace(pair, sessions=len(more), suspected=True))

    def _session(self, subject: Subject, key: JobKey) -> bool:
        """Whether the job is over, with a number or without."""
        journal, night = self._tonight.journal, self._tonight.night
        if not journal.claim(night, key):
            return True
        try:
            found = self._measured(subject, key)
            failed = _of_board(found.error)
            if failed and journal.attempts(night, key) + 1 < ATTEMPTS:
                journal.give_back(night, key, failed=True)
            else:
                journal.store(night, key, found)
                self._tonight.told(found)
        except BaseException:
            journal.give_back(night, key)
            raise
        if failed:
            self._board_failed(found)
        else:
            self._failed = 0
        return not failed

    def _measured(self, subject: Subject, key: JobKey) -> Session:
        assert self._run is not None and self.info is not None
        lacks = {subject.candidate.artifact.target, subject.baseline.artifact.target} - {*self.info.runtimes}
        if lacks:
            remedy = f"Install it there, or leave the board out of `boards` of {key.entry!r}"
            exc = TargetUnavailable(f"board {self.name!r}", f"it has no runtime for {', '.join(sorted(lacks))}", remedy)
            return Session(
                *(key.entry, self.name, self._tonight.night, key.number, utc_now(), 0.0),
                info=self.info,
                error=type(exc).__name__,
                cause=str(exc),
            )
        parts, plan = self._tonight.parts, self._tonight.plan
        found = parts.measure(subject, self.name, self._run, plan, night=self._tonight.night, number=key.number)
        self.info = found.info or self.info
        return found

    def _board_failed(self, found: Session) -> None:
        self._tonight.say(f"board {self.name}: {found.entry}: {found.cause}")
        if found.error in LEAVES:
            self._leave(getattr(errors, found.error)(f"board {self.name!r}", found.cause))
            return
        if found.error == "Unreachable":
            self._device = None
        if found.error in NOT_ITS_FAULT:
            return
        self._failed += 1
        if self._failed >= FAILURES_BEFORE_QUARANTINE and self.info is not None:
            cause = f"{self._failed} jobs in a row failed, the last one: {found.cause}"
            self._leave(Quarantine().put(self.info, cause))


def _of_board(error: str) -> bool:
    """Whether the error of a session, by its name, is a board's."""
    kind = getattr(errors, error, None) if error else None
    return isinstance(kind, type) and issubclass(kind, BoardError)
