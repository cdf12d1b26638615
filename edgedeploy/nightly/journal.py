"""What a lab has done and still has to do, in a database: a kill at any moment loses nothing and doubles nothing.

    night     one row a night, held by one process at a time
    job       one session: entry, board and number are unique in their night; claimed before it is run, and stored once
    verdict   one of an entry on a board, for the history
    accepted  every move of a frozen baseline: who, when, why, from what to what; the latest one holds

A night, and each job that is claimed, belong to a holder. It lets go of them by ending: on the same machine a dead process
is seen at once, on another one its lease runs out (:data:`LEASE_S`). A holder that has lost a job stores nothing under it.
All times are the database's own clock, which several hosts share.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from edgedeploy.errors import Busy
from edgedeploy.nightly.database import ACCEPTED, JOBS, NIGHTS, VERDICTS, Database, clock_s, insert_new
from edgedeploy.nightly.holder import Holder
from edgedeploy.nightly.rows import (
    DONE,
    NOT_RUN,
    RUNNING,
    WAITING,
    Acceptance,
    JobKey,
    JobRow,
    Measured,
    NightRow,
    acceptance_of,
    job_row,
    night_row,
    verdict_of,
)
from edgedeploy.records.night import Session, Verdict
from edgedeploy.runtime.wire.serde import to_json
from edgedeploy.search.history import Server

JOURNAL_FILE: Final = "journal.sqlite"
LEASE_S: Final = 60.0
"""A holder on another machine that was not heard of for so long is taken for dead."""


class Journal:
    """The journal of one lab. Threads may share it."""

    def __init__(self, place: Path | Server, lab: str, holder: Holder, *, read_only: bool = False) -> None:
        self.lab = lab
        self.holder = holder
        self._database = Database(place, read_only=read_only)

    def open(self) -> Journal:
        """Raises ``StorageError`` as :meth:`Database.open`."""
        self._database.open()
        return self

    def close(self) -> None:
        self._database.close()

    # -- a night, and who holds it

    def latest_open(self) -> NightRow | None:
        """The latest night that has not ended and whose budget has not either."""
        rows = self._database.run(
            lambda c: [
                night_row(row, clock_s(c))
                for row in c.execute(
                    sa.select(NIGHTS)
                    .where(NIGHTS.c.lab == self.lab, NIGHTS.c.ended_s.is_(None))
                    .order_by(NIGHTS.c.started_s.desc())
                )
            ]
        )
        return next((row for row in rows if row.left_s > 0), None)

    def night(self, night: str) -> NightRow | None:
        return self._database.run(lambda c: self._night(c, night))

    def at_work(self) -> Holder | None:
        """The process that is at work on a night now; None for nobody."""

        def read(connection: sa.Connection) -> Holder | None:
            held = sa.select(NIGHTS).where(NIGHTS.c.lab == self.lab, NIGHTS.c.holder != "")
            for row in connection.execute(held):
                holder = Holder.from_text(row.holder)
                if holder is not None and not holder.is_dead(clock_s(connection) - row.heard_s, LEASE_S):
                    return holder
            return None

        return self._database.run(read)

    def begin(self, night: str, budget_s: float) -> NightRow:
        """Begins the night, or takes it up where its holder is dead. Raises ``Busy`` while another process holds it."""

        def take(connection: sa.Connection) -> NightRow:
            now_s = clock_s(connection)
            insert_new(connection, NIGHTS, lab=self.lab, night=night, started_s=now_s, budget_s=budget_s)
            row = connection.execute(self._of_night(sa.select(NIGHTS), night).with_for_update()).one()
            other = Holder.from_text(row.holder)
            if other is not None and other != self.holder and not other.is_dead(now_s - row.heard_s, LEASE_S):
                found = f"{other} is at work on it"
                raise Busy(f"night {night} of lab {self.lab!r}", found, "Wait for it, or end that process: it resumes")
            values = {"holder": self.holder.text, "heard_s": now_s}
            connection.execute(self._of_night(NIGHTS.update(), night).values(**values))
            # whoever held this night is gone: what it had claimed is claimed again
            stale = self._jobs(JOBS.update(), night).where(JOBS.c.state == RUNNING)
            connection.execute(stale.where(JOBS.c.holder != self.holder.text).values(state=WAITING, holder=""))
            found_row = self._night(connection, night)
            assert found_row is not None
            return found_row

        return self._database.run(take)

    def let_go(self, night: str) -> None:
        """Of a night that was interrupted: whoever comes takes it up at once."""

        def free(connection: sa.Connection) -> None:
            mine = (JOBS.c.state == RUNNING, JOBS.c.holder == self.holder.text)
            connection.execute(self._jobs(JOBS.update(), night).where(*mine).values(state=WAITING, holder=""))
            held = self._of_night(NIGHTS.update(), night).where(NIGHTS.c.holder == self.holder.text)
            connection.execute(held.values(holder=""))

        self._database.run(free)

    def heard(self, night: str) -> None:
        """Renews the lease. Raises ``Busy`` when another process has the night now."""

        def renew(connection: sa.Connection) -> int:
            mine = self._of_night(NIGHTS.update(), night).where(NIGHTS.c.holder == self.holder.text)
            return connection.execute(mine.values(heard_s=clock_s(connection))).rowcount

        if not self._database.run(renew):
            raise self._lost(night)

    def end(self, night: str, reason: Callable[[JobKey], str]) -> NightRow:
        """Ends the night: what is still waiting is not run, each with its reason. Raises ``Busy`` as :meth:`heard`."""

        def finish(connection: sa.Connection) -> NightRow | None:
            mine = self._of_night(NIGHTS.update(), night).where(NIGHTS.c.holder == self.holder.text)
            if not connection.execute(mine.values(holder="", ended_s=clock_s(connection))).rowcount:
                return None
            for row in connection.execute(
                self._jobs(sa.select(JOBS), night).where(JOBS.c.state.in_([WAITING, RUNNING]))
            ):
                key = JobKey(row.entry, row.board, row.number)
                why = row.reason or reason(key)
                connection.execute(self._job(JOBS.update(), night, key).values(state=NOT_RUN, holder="", reason=why))
            return self._night(connection, night)

        found = self._database.run(finish)
        if found is None:
            raise self._lost(night)
        return found

    def reopen(self, night: str) -> None:
        """What was not run is waiting again, because the night goes on."""

        def again(connection: sa.Connection) -> None:
            left = self._jobs(JOBS.update(), night).where(JOBS.c.state == NOT_RUN)
            connection.execute(left.values(state=WAITING, reason="", attempts=0))
            connection.execute(self._of_night(NIGHTS.update(), night).values(ended_s=None))

        self._database.run(again)

    # -- jobs

    def add(self, night: str, keys: Sequence[JobKey]) -> None:
        """Jobs that are there already stay as they are."""

        def insert(connection: sa.Connection) -> None:
            for key in keys:
                insert_new(
                    connection,
                    JOBS,
                    lab=self.lab,
                    night=night,
                    entry=key.entry,
                    board=key.board,
                    number=key.number,
                    state=WAITING,
                )

        self._database.run(insert)

    def jobs(self, night: str) -> list[JobRow]:
        """Of a night, by entry, board and number."""

        def read(connection: sa.Connection) -> Sequence[Any]:
            order = (JOBS.c.entry, JOBS.c.board, JOBS.c.number)
            return connection.execute(self._jobs(sa.select(JOBS), night).order_by(*order)).all()

        return [job_row(row) for row in self._database.run(read)]

    def jobs_of(self, night: str, entry: str, board: str) -> list[JobRow]:
        """Of one pair, by number."""

        def read(connection: sa.Connection) -> Sequence[Any]:
            own = self._jobs(sa.select(JOBS), night).where(JOBS.c.entry == entry, JOBS.c.board == board)
            return connection.execute(own.order_by(JOBS.c.number)).all()

        return [job_row(row) for row in self._database.run(read)]

    def claim(self, night: str, key: JobKey) -> bool:
        """Whether this holder has the job now: it was waiting, and nobody else took it."""

        def take(connection: sa.Connection) -> int:
            free = self._job(JOBS.update(), night, key).where(JOBS.c.state == WAITING)
            return connection.execute(free.values(state=RUNNING, holder=self.holder.text)).rowcount

        return bool(self._database.run(take))

    def store(self, night: str, key: JobKey, session: Session) -> None:
        """Keeps the session of a job that this holder has. Raises ``Busy`` when it lost the job, which then is another's."""
        text = json.dumps(session.as_json(), allow_nan=False)

        def keep(connection: sa.Connection) -> int:
            values = {"state": DONE, "session": text, "spent_s": session.spent_s, "holder": "", "reason": session.cause}
            return connection.execute(self._mine(night, key).values(**values)).rowcount

        if not self._database.run(keep):
            raise self._lost(night)

    def attempts(self, night: str, key: JobKey) -> int:
        """How often the board has failed the job."""
        return int(
            self._database.run(lambda c: c.execute(self._job(sa.select(JOBS.c.attempts), night, key)).scalar_one())
        )

    def give_back(self, night: str, key: JobKey, *, failed: bool = False) -> None:
        """A job that was claimed waits again; with ``failed`` the board has failed it once more."""

        def put(connection: sa.Connection) -> None:
            attempts = JOBS.c.attempts + (1 if failed else 0)
            connection.execute(self._mine(night, key).values(state=WAITING, holder="", attempts=attempts))

        self._database.run(put)

    # -- history

    def spent(self) -> dict[tuple[str, str], list[float]]:
        """How long the sessions of each entry on each board took, oldest first; those that gave a number."""

        def read(connection: sa.Connection) -> Sequence[Any]:
            columns = (JOBS.c.entry, JOBS.c.board, JOBS.c.spent_s)
            wanted = sa.select(*columns).where(JOBS.c.lab == self.lab, JOBS.c.state == DONE, JOBS.c.reason == "")
            return connection.execute(wanted.order_by(JOBS.c.night, JOBS.c.number)).all()

        found: dict[tuple[str, str], list[float]] = {}
        for entry, board, spent_s in self._database.run(read):
            found.setdefault((entry, board), []).append(float(spent_s))
        return found

    def measured(self, before: str) -> dict[tuple[str, str], Measured]:
        """Of each entry on each board that was measured before this night: when last, and how often."""

        def read(connection: sa.Connection) -> Sequence[Any]:
            done = sa.and_(JOBS.c.lab == self.lab, JOBS.c.state == DONE, JOBS.c.reason == "", JOBS.c.night < before)
            counted = (sa.func.max(JOBS.c.night), sa.func.count(sa.distinct(JOBS.c.night)))
            wanted = sa.select(JOBS.c.entry, JOBS.c.board, *counted).where(done)
            return connection.execute(wanted.group_by(JOBS.c.entry, JOBS.c.board)).all()

        return {(entry, board): Measured(*found) for entry, board, *found in self._database.run(read)}

    def keep_verdict(self, verdict: Verdict) -> None:
        """Of a pair and a night there is one: a later one, of more sessions, takes its place."""
        text = json.dumps(to_json(verdict), allow_nan=False)
        key = {"lab": self.lab, "entry": verdict.entry, "board": verdict.board, "night": verdict.night}

        def keep(connection: sa.Connection) -> None:
            there = sa.and_(*(VERDICTS.c[name] == value for name, value in key.items()))
            connection.execute(VERDICTS.delete().where(there))
            connection.execute(VERDICTS.insert().values(**key, verdict=text))

        self._database.run(keep)

    def verdicts(self, night: str) -> dict[tuple[str, str], Verdict]:
        """Those of a night so far, by entry and board."""

        def read(connection: sa.Connection) -> Sequence[Any]:
            of_night = (VERDICTS.c.lab == self.lab, VERDICTS.c.night == night)
            return connection.execute(sa.select(VERDICTS).where(*of_night)).all()

        found = [verdict_of(row) for row in self._database.run(read)]
        return {(item.entry, item.board): item for item in found}

    def latest_series(self, before: str) -> dict[tuple[str, str], int]:
        """How many series each pair had in the latest night before this one, by entry and board."""

        def read(connection: sa.Connection) -> str | None:
            earlier = (VERDICTS.c.lab == self.lab, VERDICTS.c.night < before)
            return connection.execute(sa.select(sa.func.max(VERDICTS.c.night)).where(*earlier)).scalar()

        night = self._database.run(read)
        return {} if night is None else {key: len(item.series) for key, item in self.verdicts(night).items()}

    def history(self, entry: str, board: str, before: str) -> list[Verdict]:
        """Verdicts of earlier nights on what the entry is held against now, oldest first. They know its number: a clock that
        was wrong when it was accepted hides none. Records of before go by the time."""
        log = self.accepted(entry)
        number, since_s = (log[0].number, log[0].at_s) if log and log[0].number > 1 else (1, 0.0)

        def read(connection: sa.Connection) -> Sequence[Any]:
            wanted = (
                sa.select(VERDICTS, NIGHTS.c.started_s)
                .join(NIGHTS, sa.and_(NIGHTS.c.lab == VERDICTS.c.lab, NIGHTS.c.night == VERDICTS.c.night))
                .where(VERDICTS.c.lab == self.lab, VERDICTS.c.entry == entry, VERDICTS.c.board == board)
                .where(VERDICTS.c.night < before)
            )
            return connection.execute(wanted.order_by(VERDICTS.c.night)).all()

        found = [(verdict_of(row), row.started_s) for row in self._database.run(read)]
        return [item for item, at_s in found if (item.generation == number if item.generation else at_s >= since_s)]

    # -- what entries are held against

    def accept(self, entry: str, was: str, now: str, who: str, why: str, *, number: int) -> Acceptance:
        """Logs that an entry is held against something else from now on, the ``number``-th that was frozen of it. ``was``
        and ``now`` are digests. The one of that number that is there already stays, and is returned."""

        def add(connection: sa.Connection) -> sa.Row[Any]:
            key = {"lab": self.lab, "entry": entry, "number": number}
            insert_new(connection, ACCEPTED, **key, who=who, why=why, was=was, now=now, at_s=clock_s(connection))
            return connection.execute(self._acceptances(entry).where(ACCEPTED.c.number == number)).one()

        return acceptance_of(self._database.run(add))

    def accepted(self, entry: str) -> list[Acceptance]:
        """All that was ever accepted for an entry, the latest first, which holds."""
        return [acceptance_of(row) for row in self._database.run(lambda c: c.execute(self._acceptances(entry)).all())]

    def acceptances(self) -> list[Acceptance]:
        """All that was ever accepted in this lab, the oldest first."""
        of_lab = sa.select(ACCEPTED).where(ACCEPTED.c.lab == self.lab).order_by(ACCEPTED.c.at_s, ACCEPTED.c.entry)
        return [acceptance_of(row) for row in self._database.run(lambda c: c.execute(of_lab).all())]

    # -- the database

    def _acceptances(self, entry: str) -> sa.Select[Any]:
        of_entry = sa.select(ACCEPTED).where(ACCEPTED.c.lab == self.lab, ACCEPTED.c.entry == entry)
        return of_entry.order_by(ACCEPTED.c.number.desc())

    def _of_night(self, statement: Any, night: str) -> Any:
        return statement.where(NIGHTS.c.lab == self.lab, NIGHTS.c.night == night)

    def _jobs(self, statement: Any, night: str) -> Any:
        return statement.where(JOBS.c.lab == self.lab, JOBS.c.night == night)

    def _job(self, statement: Any, night: str, key: JobKey) -> Any:
        pair = (JOBS.c.entry == key.entry, JOBS.c.board == key.board, JOBS.c.number == key.number)
        return self._jobs(statement, night).where(*pair)

    def _mine(self, night: str, key: JobKey) -> Any:
        mine = (JOBS.c.state == RUNNING, JOBS.c.holder == self.holder.text)
        return self._job(JOBS.update(), night, key).where(*mine)

    def _night(self, connection: sa.Connection, night: str) -> NightRow | None:
        row = connection.execute(self._of_night(sa.select(NIGHTS), night)).first()
        return None if row is None else night_row(row, clock_s(connection))

    def _lost(self, night: str) -> Busy:
        found = "another process has it now: this one was taken for dead"
        return Busy(f"night {night} of lab {self.lab!r}", found, "It goes on there; nothing was stored twice")
