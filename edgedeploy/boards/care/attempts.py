"""Retries one job on a board that may fail:

    connection lost, disk full, refused   retry, at most ``attempts`` attempts in all
    unreachable after it was reached      wait for it, at most ``away_s``
    busy                                  wait for it, at most ``busy_s``
    rebooted during the run               discard the attempt and retry once; the second time: quarantine
    hung                                  turn it off and on once if it has power control, else quarantine
    host key, quarantine                  raise at once
    candidate did not run                 run it a second time, then the baseline alone: if that does not run either,
                                          the board is at fault

What is raised as ``MeasurementError`` after that is the artifact's own failure: data about the variant.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

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
)
from edgedeploy.interfaces.board import Board, BoardSession, Powered
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.job import Job, MeasurePlan, RawRun

REQUEUES_AFTER_REBOOT: Final = 1
RUNS_BEFORE_BLAME: Final = 2
"""How often a candidate must fail to run before the failure can be its own."""


@dataclass(frozen=True)
class Patience:
    """``pause_s`` grows with each attempt. ``busy_s`` is added to the time that the board's own session waits;
    ``away_s`` allows a board to boot."""

    attempts: int = 3
    pause_s: float = 2.0
    away_s: float = 300.0
    busy_s: float = 1800.0


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
        self._away_until_s = 0.0
        self._answered = False
        self._did_not_run = 0

    def run(self) -> tuple[BoardSession, RawRun]:
        while True:
            self._answered = False
            try:
                with self._given.board.session() as session:
                    self._note(session.info)
                    raw = session.measure(self._job, self._folder)
                return session, raw
            except (HostKeyError, Quarantined):
                raise
            except Busy as exc:
                self._wait(exc)
            except Rebooted as exc:
                self._boot_id = None
                self._void(str(exc.found))
            except Hung as exc:
                self._revive(exc)
            except DidNotRun as exc:
                self._blame(exc)
            except BoardError as exc:
                self._fail(exc)

    def _blame(self, exc: DidNotRun) -> None:
        """Returns when the candidate is to be run again; else raises ``exc``, which is then shown to be the candidate's,
        or ``CommandFailed`` where the board cannot run what is known to be good."""
        self._did_not_run += 1
        if self._did_not_run < RUNS_BEFORE_BLAME:
            self._tell(f"{exc.found}; running it a second time, to see whether it is the artifact's fault")
            return
        baseline = self._job.baseline
        if baseline is None or baseline.artifact.digest == self._job.candidate.artifact.digest:
            raise exc
        load_and_run_once = MeasurePlan(
            queries=0, cold_starts=0, collect_outputs=False, time_limit_s=self._job.plan.time_limit_s
        )
        try:
            with self._given.board.session() as session:
                self._note(session.info)
                session.measure(Job(baseline, None, load_and_run_once), self._folder)
        except MeasurementError as other:
            found = f"the candidate and the baseline alone both fail: {exc.found}; {other.found}"
            raise CommandFailed(exc.asked, found, "See to the board's runtime, then run it again") from exc
        raise exc

    def _note(self, info: BoardInfo) -> None:
        """Check the connected board: refuse it in quarantine; discard a lost attempt if the board has rebooted
        since."""
        self._answered = True
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
        if isinstance(exc, Unreachable) and not self._answered and time.monotonic() < self._away_until_s:
            time.sleep(self._given.patience.pause_s)
            return
        self._away_until_s = time.monotonic() + self._given.patience.away_s if self._answered else 0.0
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
