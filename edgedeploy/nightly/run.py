"""One night: boards side by side, each pair measured twice, suspicions measured again, and what came of it.

A night that was interrupted or killed is taken up where it was: sessions that are in the journal are not measured again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Final, Literal

from edgedeploy.errors import Busy, DamagedFile, EdgeDeployError, StorageError
from edgedeploy.lab.crew import LEAVE_S, THREAD_NAME, Machines, interrupt
from edgedeploy.nightly.journal import LEASE_S, Journal
from edgedeploy.nightly.judging import Judge, is_suspect
from edgedeploy.nightly.order import MORE_SESSIONS, SESSIONS, Pair, does_not_fit
from edgedeploy.nightly.outcome import night_of
from edgedeploy.nightly.parts import Parts
from edgedeploy.nightly.place import Lab
from edgedeploy.nightly.rows import DONE, NOT_RUN, JobKey, JobRow
from edgedeploy.nightly.session import SessionPlan
from edgedeploy.nightly.station import Station, Stop
from edgedeploy.nightly.subject import Subject
from edgedeploy.nightly.tonight import keys_of, pairs_of
from edgedeploy.records.night import Night, Session, Verdict
from edgedeploy.runtime.sensors.probe import probe
from edgedeploy.study.events import Event, Observer, ignore

_LOOK_S: Final = 0.2
"""How often the night looks at its boards and at the time."""


class NightRun:
    """A night of a lab. ``parts`` are what it is made of, ``observer`` hears of what happens."""

    def __init__(
        self,
        lab: Lab,
        journal: Journal,
        *,
        parts: Parts | None = None,
        observer: Observer = ignore,
    ) -> None:
        self.journal = journal
        self.machines = Machines()
        self.parts = parts or Parts()
        self.plan = SessionPlan.of(lab.spec.measure)
        self.night = ""
        self._lab = lab
        self._observer = observer
        self._subjects: dict[str, Subject | EdgeDeployError] = {}
        self._stations: list[Station] = []
        self._stop = threading.Event()
        self._lost: EdgeDeployError | None = None
        self._broken: BaseException | None = None
        self._saying = threading.RLock()
        self._leaving = threading.Lock()
        self._at_work: set[threading.Thread] = set()
        self._done = self._total = 0
        here = probe()
        self._host = self.machines.of(here["boot_id"] or here["identity"])

    def run(self, night: str, idle: Callable[[Callable[[str], bool]], None] = lambda free: None) -> Night:
        """Measures what is missing of the night inside its budget. ``idle`` is called again and again with what says whether
        a board is free for other work. Raises ``Busy`` while another process is at work on it,
        ``StorageError``."""
        self.night = night
        began = self.journal.begin(night, self._lab.spec.lab.budget)
        self._deadline_s = time.monotonic() + began.left_s
        self._judge = Judge(self._lab.spec, self.journal, night)
        with self._kept():
            if began.ended_s is not None and began.left_s > 0:
                self.journal.reopen(night)
            pairs = self._begin()
            self._work(idle)
            if self._lost is not None:
                raise self._lost
            return self._end(pairs)

    # -- what the boards share

    def left_s(self) -> float:
        return 0.0 if self._stop.is_set() else self._deadline_s - time.monotonic()

    def budget_left_s(self) -> float:
        """Also when all is measured."""
        return self._deadline_s - time.monotonic()

    def pause(self, pause_s: float) -> None:
        """Raises :class:`Stop` when the night is over."""
        if self._stop.wait(max(0.0, min(pause_s, self.left_s()))) or self.left_s() <= 0:
            raise Stop

    def others_work(self, board: str) -> bool:
        return any(station.at_work for station in self._stations if station.name != board)

    def is_free(self, board: str) -> bool:
        """Whether a board may do other work: nothing is left to measure on its machine, and nothing on this host."""
        own = next(station for station in self._stations if station.name == board)
        busy = [station for station in self._stations if not station.over]
        here = any(station.table.kind != "ssh" for station in busy)
        return own.error is None and own.over and not here and all(station.machine != own.machine for station in busy)

    def subject(self, entry: str) -> Subject:
        """The entry, prepared once a night, while nothing is measured on this host. Raises ``EdgeDeployError``, the same one
        again for the entry's other boards."""
        with self._host:
            found = self._subjects.get(entry)
            if found is None:
                self.say(f"{entry}: looking at what is shipped", "phase")
                try:
                    self._judge.require_frozen(entry, self._lab.frozen)
                    found = self.parts.prepare(self._lab.spec.entry(entry), self._lab.base, self._lab.frozen)
                    self._judge.first_seen(entry, found)
                except EdgeDeployError as exc:
                    if isinstance(exc, (Busy, StorageError)) and not isinstance(exc, DamagedFile):
                        raise  # a frozen file that is damaged is the entry's, a full disk everybody's
                    self.say(f"{entry}: {exc}")
                    found = exc
                self._subjects[entry] = found
        if isinstance(found, EdgeDeployError):
            raise found
        return found

    def missing(self, pair: Pair) -> list[JobKey]:
        return [row.key for row in self._rows(pair) if row.state != DONE]

    def judge(self, pair: Pair) -> bool:
        """Keeps the verdict on a pair that has its sessions. Whether there is a suspicion that two more have to confirm."""
        rows = self._rows(pair)
        sessions = [row.session for row in rows if row.session is not None]
        found = self._judge.verdict(pair.entry, pair.board, sessions, self._subjects.get(pair.entry))
        goes_on = len(rows) <= SESSIONS and is_suspect(found)
        self.say(f"{pair.entry} on {pair.board}: {'suspect' if goes_on else found.outcome}: {found.reason}", "trial")
        if not goes_on:
            return False
        more = [JobKey(pair.entry, pair.board, SESSIONS + number) for number in range(1, MORE_SESSIONS + 1)]
        self.journal.add(self.night, more)
        with self._saying:
            self._total += len(more)
        return True

    def told(self, session: Session) -> None:
        with self._saying:
            self._done += 1
        why = f" ({session.cause or session.error})" if not session.counts else ""
        self.say(f"{session.entry} on {session.board}: session {session.number} is over{why}", "phase")

    def say(self, text: str, kind: Literal["phase", "trial", "note"] = "note") -> None:
        with self._saying:
            needed: dict[str, float] = {}
            for station in self._stations:
                needed[station.machine] = needed.get(station.machine, 0.0) + station.needed_s
            eta_s = min(max(needed.values(), default=0.0), max(0.0, self.budget_left_s()))
            self._observer(Event(kind, text, self._done, self._total, eta_s))

    # -- the course of a night

    def _begin(self) -> list[Pair]:
        pairs = pairs_of(self._lab.spec, self.journal, self.night)
        self.journal.add(self.night, [key for pair in pairs for key in keys_of(pair)])
        rows: dict[tuple[str, str], list[JobRow]] = {}
        for row in self.journal.jobs(self.night):
            rows.setdefault((row.key.entry, row.key.board), []).append(row)
        todo: list[Pair] = []
        for pair in pairs:
            own = rows[pair.entry, pair.board]
            left = sum(row.state != DONE for row in own)
            todo.append(replace(pair, sessions=left, suspected=len(own) > SESSIONS))
            self._done += len(own) - left
            self._total += len(own)
        todo = [pair for pair in todo if pair.sessions or self._undecided(rows[pair.entry, pair.board])]
        for table in self._lab.spec.boards:
            own_pairs = [pair for pair in todo if pair.board == table.name]
            self._stations.append(Station(table, own_pairs, self))
        return pairs

    def _undecided(self, rows: Sequence[JobRow]) -> bool:
        """A kill came after a pair's last session: before its verdict, or before two more sessions were asked for."""
        kept = self._judge.kept(rows[0].key.entry, rows[0].key.board)
        return kept is None or not kept.key or is_suspect(kept)

    def _work(self, idle: Callable[[Callable[[str], bool]], None]) -> None:
        threads = [
            threading.Thread(target=self._serve, args=(station,), name=f"{THREAD_NAME} {station.name}", daemon=True)
            for station in self._stations
            if station.pairs
        ]
        self._at_work = {*threads}
        try:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads) and self.left_s() > 0:
                idle(self.is_free)
                for thread in threads:
                    thread.join(_LOOK_S / len(threads))
        finally:
            self._stop.set()
            with self._leaving:
                for thread in self._at_work:
                    interrupt(thread)
            give_up_s = time.monotonic() + LEAVE_S
            for thread in threads:
                thread.join(max(0.0, give_up_s - time.monotonic()))
        if self._broken is not None:
            raise self._broken

    def _serve(self, station: Station) -> None:
        try:
            station.serve()
            with self._leaving:  # an interrupt that came after this would end the thread anywhere
                self._at_work.discard(threading.current_thread())
        except KeyboardInterrupt:
            return
        except EdgeDeployError as exc:  # this host's: the disk, the journal, or another process has the night
            self._lost = self._lost or exc
            self._stop.set()
        except BaseException as exc:
            self._broken = self._broken or exc
            self._stop.set()

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """The lease is renewed as long as this process is at work."""
        over = threading.Event()

        def renew() -> None:
            while not over.wait(LEASE_S / 4):
                try:
                    self.journal.heard(self.night)
                except EdgeDeployError as exc:
                    self._lost = self._lost or exc
                    self._stop.set()
                    return

        thread = threading.Thread(target=renew, name="lease", daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            with suppress(EdgeDeployError):
                self.journal.let_go(self.night)
            raise
        finally:
            over.set()
            thread.join()

    def _end(self, pairs: Sequence[Pair]) -> Night:
        """Verdicts on everything, and the end of the night in the journal."""
        left_s = max(0.0, self.left_s())
        stations = {station.name: station for station in self._stations}
        rows: dict[tuple[str, str], list[JobRow]] = {}
        for row in self.journal.jobs(self.night):
            rows.setdefault((row.key.entry, row.key.board), []).append(row)
        reasons = {}
        verdicts = []
        for pair in pairs:
            key = (pair.entry, pair.board)
            sessions = [row.session for row in rows[key] if row.session is not None]
            reasons[key] = next((row.reason for row in rows[key] if row.state == NOT_RUN), "") or does_not_fit(
                replace(pair, sessions=len(rows[key]) - len(sessions)), left_s
            )
            verdicts.append(self._last_word(pair, sessions, len(rows[key]), stations[pair.board].error, reasons[key]))
        ended = self.journal.end(
            self.night, lambda key: reasons.get((key.entry, key.board), "the lab file does not have it any more")
        )
        moved = [one for one in self.journal.acceptances() if one.number > 1]
        return night_of(self._lab.spec, ended, verdicts, self._stations, rows, moved)

    def _last_word(
        self, pair: Pair, sessions: Sequence[Session], asked: int, error: EdgeDeployError | None, reason: str
    ) -> Verdict:
        subject = self._subjects.get(pair.entry)
        if subject is None and sessions and not self._judge.holds(pair, len(sessions)):
            with suppress(EdgeDeployError):
                self.subject(pair.entry)
            subject = self._subjects.get(pair.entry)
        return self._judge.at_the_end(pair, sessions, subject, error, reason, asked)

    def _rows(self, pair: Pair) -> list[JobRow]:
        return self.journal.jobs_of(self.night, pair.entry, pair.board)
