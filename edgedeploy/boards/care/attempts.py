"""Retries one job on a board that may fail:

    connection lost, disk full, refused   retry, at most ``attempts`` attempts in all
    away                                  wait for it, at most ``away_s``
    busy                                  wait for it, at most ``busy_s``
    rebooted during the run               discard the attempt and retry once; the second time: quarantine
    hung                                  turn it off and on once if it has power control, else quarantine
    host key, quarantine                  raise at once
    candidate gave no number              run it again: the same cause twice counts, and three causes say nothing of it. Then
                                          the baseline alone: if that does not run either, the board is at fault

What is raised as ``MeasurementError`` after that is the artifact's own failure, and data about the variant; but ``Unstable``
is neither's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgedeploy.boards.care.absence import Absence
from edgedeploy.boards.care.quarantine import Quarantine
from edgedeploy.errors import (
    BoardError,
    Busy,
    CommandFailed,
    DidNotRun,
    HostKeyError,
    Hung,
    MeasurementError,
    Quarantined,
    Rebooted,
    Unreachable,
    Unstable,
)
from edgedeploy.interfaces.board import Board, BoardSession, Powered
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.job import Job, MeasurePlan, RawRun
from edgedeploy.spec.boards import DEFAULT_AWAY_S

REQUEUES_AFTER_REBOOT: Final = 1
RUNS_BEFORE_BLAME: Final = 2
"""How often a candidate must fail by the same cause before the failure can be its own."""

RUNS_IN_ALL: Final = 3
"""After so many runs without a number, each by another cause, nothing is said of the candidate."""

RUNTIME_REMEDY: Final = "See to the board's runtime, then run it again"
ANSWERS_REMEDY: Final = (
    "See whether the task's own network answers so (weights that are not trained, a layer that is dead, inputs that are "
    "all alike). If it does not, see to the board's runtime; then run it again"
)


@dataclass(frozen=True)
class Patience:
    """``pause_s`` grows with each attempt. ``busy_s`` is added to the time that the board's own session waits;
    ``away_s`` is how long a board that does not answer is waited for. ``away_at_first`` says whether that holds too for a
    board that has not answered since the job came to it; who has other boards gives the job to one of them instead."""

    attempts: int = 3
    pause_s: float = 2.0
    away_s: float = DEFAULT_AWAY_S
    busy_s: float = 1800.0
    away_at_first: bool = True


@dataclass
class Attempts:
    """Runs jobs on one board. ``tell`` gets one line per failure that is retried. ``check`` gets the connected board
    before anything is sent to it, and raises ``BoardError`` when it must not be used."""

    board: Board
    tell: Callable[[str], None] = lambda line: None
    patience: Patience = field(default_factory=Patience)
    quarantine: Quarantine = field(default_factory=Quarantine)
    check: Callable[[BoardInfo], None] = lambda info: None

    def run(self, job: Job, folder: Path) -> tuple[BoardSession, RawRun]:
        """The session that succeeded and its results. Raises ``BoardError`` after the last retry, ``MeasurementError``
        for the artifact's own failures."""
        return _Course(self, job, folder).run()


class _Course:
    """The attempts at one job: how many failed, and how long they have waited."""

    def __init__(self, given: Attempts, job: Job, folder: Path) -> None:
        self._given = given
        self._job = job
        self._folder = folder
        self._failed = 0
        self._reboots = 0
        self._cycled = False
        self._info: BoardInfo | None = None
        self._boot_id: str | None = None
        self._busy_until_s: float | None = None
        self._absence = Absence(given.board.name, given.patience.away_s, given.tell)
        self._answered = False
        self._no_number: list[MeasurementError] = []
        self._suspected: MeasurementError | None = None

    def run(self) -> tuple[BoardSession, RawRun]:
        while True:
            self._answered = False
            try:
                session, raw = self._once(self._job if self._suspected is None else self._baseline_alone())
            except (HostKeyError, Quarantined):
                raise
            except Busy as exc:
                self._wait(exc)
            except Rebooted as exc:
                self._boot_id = None
                self._void(str(exc.found))
            except Hung as exc:
                self._revive(exc)
            except MeasurementError as exc:
                self._blame(exc)
            except BoardError as exc:
                self._fail(exc)
            else:
                if self._suspected is not None:
                    raise self._suspected
                return session, raw

    def _once(self, job: Job) -> tuple[BoardSession, RawRun]:
        with self._given.board.session() as session:
            self._note(session.info)
            return session, session.measure(job, self._folder)

    def _baseline_alone(self) -> Job:
        """What a sound board can run: what is known to be good, loaded and run once; and its outputs, where the candidate's
        were at fault."""
        assert self._job.baseline is not None and self._suspected is not None
        outputs = not isinstance(self._suspected, DidNotRun)
        limit_s = self._job.plan.time_limit_s
        plan = MeasurePlan(queries=0, cold_starts=0, collect_outputs=outputs, time_limit_s=limit_s)
        return Job(self._job.baseline, None, plan)

    def _blame(self, exc: MeasurementError) -> None:
        """Returns when there is something to run: the candidate again, or the baseline alone. Raises ``exc`` when it is
        shown to be the candidate's; ``Unstable`` when nothing is shown; ``CommandFailed`` when the board cannot run what is
        known to be good."""
        if self._suspected is not None:
            found = f"the candidate and the baseline alone both fail: {self._suspected.found}; {exc.found}"
            remedy = RUNTIME_REMEDY if isinstance(exc, DidNotRun) else ANSWERS_REMEDY
            raise CommandFailed(exc.asked, found, remedy) from exc
        self._no_number.append(exc)
        if sum(_cause(other) == _cause(exc) for other in self._no_number) < RUNS_BEFORE_BLAME:
            if len(self._no_number) >= RUNS_IN_ALL:
                told = "; ".join(f"{number}: {each.found}" for number, each in enumerate(self._no_number, start=1))
                raise Unstable(exc.asked, f"each run ended otherwise ({told})", "See to the board, then run it again")
            which = "second" if len(self._no_number) == 1 else "third"
            self._tell(f"{exc.found}; running it a {which} time, to see whether it is the artifact's fault")
            return
        baseline = self._job.baseline
        same = baseline is None or baseline.artifact.digest == self._job.candidate.artifact.digest
        if same or isinstance(exc, Unstable):
            raise exc
        self._suspected = exc

    def _note(self, info: BoardInfo) -> None:
        """Check the connected board: refuse it in quarantine; discard a lost attempt if the board has rebooted
        since."""
        self._answered = True
        self._absence.over()
        self._given.quarantine.check(info)
        self._given.check(info)
        before, self._info, self._boot_id = self._boot_id, info, info.boot_id
        if before is not None and before != info.boot_id:
            self._void("the connection was lost because the board started anew")

    def _void(self, found: str) -> None:
        self._reboots += 1
        if self._reboots > REQUEUES_AFTER_REBOOT:
            raise self._set_aside(f"it rebooted {self._reboots} times under one job")
        self._tell(f"{found}; the attempt is void, the job goes back once")

    def _wait(self, exc: Busy) -> None:
        now_s = time.monotonic()
        if self._busy_until_s is None:
            self._busy_until_s = now_s + self._given.patience.busy_s
        if now_s >= self._busy_until_s:
            raise exc
        self._tell(f"{exc.found}; waiting {self._busy_until_s - now_s:.0f} s more for it")
        time.sleep(self._given.patience.pause_s)

    def _fail(self, exc: BoardError) -> None:
        if isinstance(exc, Unreachable) and not self._answered:
            patience = self._given.patience
            if patience.away_at_first or self._info is not None:
                if not self._absence.goes_on(exc):
                    raise self._absence.given_up(exc) from exc
                time.sleep(patience.pause_s)
                return
        self._failed += 1
        if self._failed >= self._given.patience.attempts:
            raise exc
        self._tell(f"{exc}; trying again ({self._failed + 1} of {self._given.patience.attempts})")
        time.sleep(self._given.patience.pause_s * self._failed)

    def _revive(self, exc: Hung) -> None:
        """Turn a hung board off and on: it could not end the job by itself."""
        board = self._given.board
        if isinstance(board, Powered) and board.has_power_control and not self._cycled:
            self._cycled = True
            self._tell(f"{exc.found}; turning it off and on")
            self._boot_id = None
            board.power_cycle()
            return
        raise self._set_aside(exc.found) from exc

    def _set_aside(self, cause: str) -> Quarantined:
        return self._given.quarantine.put(self._info or self._given.board.probe(), cause)

    def _tell(self, text: str) -> None:
        self._given.tell(f"board {self._given.board.name}: {text}")


def _cause(exc: MeasurementError) -> str:
    """The agent's word for it; all that was found, where no agent said one."""
    return exc.cause or exc.found
