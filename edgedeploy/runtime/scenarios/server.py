"""Server: requests of many users arrive when they like, wait in one bounded queue, and are answered in batches.

MLPerf's server scenario (Reddi et al., "MLPerf Inference Benchmark"; LoadGen's early stopping at 99 % confidence): the load
is open, so a slow server is asked no less; a latency counts from the scheduled arrival; the result is the largest load at
which the deadline holds. Two things are added: how the load was found is kept as a curve, and between the loads service
times are measured apart from any queue, so that the host can predict the result from them (``queueing.py``) and say
how far that is off.
"""

from __future__ import annotations

import os
import statistics
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.scenarios.base import Bench
from edgedeploy.runtime.scenarios.queueing import GAP_UNIT, TRIES, Account, Level, Load, Rules, Services, most_users
from edgedeploy.runtime.scenarios.schedule import Clock
from edgedeploy.runtime.sessions.open import Feeds, Session

WAKES = 4
"""An instance is woken once for this many sampled batches."""

ROUGH = 4
"""This part of the samples is taken before the others and without a rest, to see how busy a server at its limit is. The
others rest as it does, and what follows a rest is kept apart: it meets cold caches and a slower clock, and where others want
the processor too, who rests is served at once."""

BUSIEST = 0.98
IDLEST = 0.25
"""Bounds on the share of the time that sampled batches take: with fewer, sampling would wait for long."""

BETWEEN = 8
"""Service times are measured again after each load, this part of the first time's."""

SAMPLING = 0.25
"""Share of the search's time that service times may take before it, where they are slow."""

MOST_LEVELS = 80
"""Loads that a search tries at most, all tries counted: it begins near its end."""

LARGEST_DISTANCE = 0.05
"""Of an answer in a batch from the answer alone, relative L2: dynamic quantization has one range for a whole batch."""


def from_settings(settings: Mapping[str, Any]) -> Server:
    values = dict(settings)
    rules = Rules(**{name: values.pop(name) for name in ("max_batch", "max_wait_ns", "capacity", "instances")})
    load = Load(rules=rules, **{name: values.pop(name) for name in ("gaps", "every_ns", "deadline_ns", "percent")})
    return Server(load, **values)


@dataclass(frozen=True)
class Server:
    """``users`` is a load that is measured to its end, 0 for the most that holds; ``most`` is tried at most. Service
    times are measured ``samples`` times for each batch size and number of busy instances."""

    load: Load
    users: int
    most: int
    samples: int
    time_limit_ns: int

    def run(self, bench: Bench) -> dict[str, Any]:
        until_ns = bench.clock.now_ns() + self.time_limit_ns
        sampling_ns = int(SAMPLING * self.time_limit_ns)
        staff = Staff(bench, self.load.rules)
        notes = Notes()
        try:
            staff.check_batches()
            staff.sample(-(-self.samples // ROUGH), notes, sampling_ns // ROUGH)
            pace = self._pace(notes)
            staff.sample(self.samples, notes, sampling_ns, pace)
            levels: list[Level] = []

            def holds(users: int) -> bool:
                if len(levels) + TRIES > MOST_LEVELS:
                    raise _TooLongError
                for _ in range(TRIES):
                    levels.append(staff.serve(self.load, users, until_ns))
                    staff.sample(-(-self.samples // BETWEEN), notes, sampling_ns // BETWEEN, pace)
                    if levels[-1].held:
                        break
                return levels[-1].held

            found, cut = 0, False
            try:
                found = most_users(holds, self._first(notes), self.most)
            except _TooLongError:
                cut = True
            stated = None if cut else self.users or found
            at = staff.serve(self.load, stated) if stated else None
        finally:
            staff.dismiss()
        return {
            "users": found,
            "cut": cut,
            "levels": [level.as_json() for level in levels],
            "at": at.as_json() if at else None,
            **notes.as_json(),
            **self._asked(),
        }

    def _first(self, notes: Notes) -> int:
        """Where the search begins: at what the simulation of this queue expects."""
        return self._expected(notes) or 1

    def _expected(self, notes: Notes) -> int:
        rough = max(1, int(self.load.every_ns / max(1.0, self._each_ns(notes))))
        return self.load.predicted_users(notes.services, rough, self.most)

    def _each_ns(self, notes: Notes) -> float:
        """What a request takes of a server whose batches are full, median."""
        rules = self.load.rules
        times_ns = notes.cells[rules.max_batch, rules.instances]
        return float(statistics.median(times_ns)) / (rules.max_batch * rules.instances)

    def _pace(self, notes: Notes) -> Pace:
        """As busy as the server is with the users that ``notes`` let expect."""
        users = self._expected(notes)
        share = users * self._each_ns(notes) / self.load.every_ns if users else BUSIEST
        return Pace(self.load.gaps, min(max(share, IDLEST), BUSIEST))

    def _asked(self) -> dict[str, Any]:
        """What the host needs for a prediction of its own."""
        return {
            "gaps": list(self.load.gaps),
            "every_ns": self.load.every_ns,
            "deadline_ns": self.load.deadline_ns,
            "percent": self.load.percent,
            "most": self.most,
            "rules": dict(vars(self.load.rules)),
        }


class _TooLongError(Exception):
    """The search did not end within its time."""


@dataclass(frozen=True)
class Pace:
    """How sampled batches follow each other: as requests come that arrive when they like, with these ``gaps``, and take the
    ``share`` of the time. A batch that is due while another one runs waits for it."""

    gaps: Sequence[int]
    share: float

    def next_ns(self, due_ns: int, number: int, taken_ns: float) -> int:
        """When the batch after that with this ``number`` is due, where batches take ``taken_ns``."""
        return due_ns + int(self.gaps[number % len(self.gaps)] * taken_ns / (GAP_UNIT * self.share))


class Notes:
    """Service times by (batch, busy instances), those after a rest apart, and late wakes; in ns, in the order in which they
    were measured."""

    def __init__(self) -> None:
        self.cells: dict[tuple[int, int], list[int]] = {}
        self.rested: dict[tuple[int, int], list[int]] = {}
        self.wakes_ns: list[int] = []
        self.latest_ns = 0
        self._lock = threading.Lock()

    def add(self, batch: int, busy: int, taken_ns: int, *, rested: bool = False) -> None:
        with self._lock:
            (self.rested if rested else self.cells).setdefault((batch, busy), []).append(taken_ns)
            self.latest_ns = taken_ns

    def services(self, start: float) -> Services:
        return Services(self.cells, self.wakes_ns, start, self.rested)

    def as_json(self) -> dict[str, Any]:
        return {"services": _told(self.cells), "rested": _told(self.rested), "wakes_ns": self.wakes_ns}


def _told(cells: Mapping[tuple[int, int], Sequence[int]]) -> list[dict[str, Any]]:
    return [{"batch": batch, "busy": busy, "ns": list(times)} for (batch, busy), times in sorted(cells.items())]


class Staff:
    """The instances: a session each, on cores of its own while there are some. The first is the one that was measured, in
    the calling thread."""

    def __init__(self, bench: Bench, rules: Rules) -> None:
        if rules.instances > 1 and bench.another is None:
            raise RuntimeFault("bad_job", f"{rules.instances} instances of what can be opened once")
        self._bench = bench
        self._rules = rules
        self._cores = _cores()
        self._per_instance = _own_cores()
        self._sessions: dict[int, Session] = {0: bench.session}
        if rules.instances > 1:
            self._all(rules.instances, self._open)

    def dismiss(self) -> None:
        """Close the sessions that were opened here."""
        self._sessions = {0: self._bench.session}

    def _open(self, instance: int) -> None:
        # Threads that a runtime starts are bound to the cores of the thread that opens the session.
        if instance and self._bench.another is not None:
            self._sessions[instance] = self._bench.another()

    def check_batches(self) -> None:
        """Each request of a batch gets the answer that it gets alone. Raises :class:`RuntimeFault` ``unfit_batch``."""
        most = self._rules.max_batch
        if most == 1:
            return
        session = self._bench.session
        batch = [self._bench.cycle[request % len(self._bench.cycle)] for request in range(most)]
        try:
            together = session.run(stacked(batch))
        except RuntimeFault as exc:
            raise RuntimeFault("unfit_batch", f"a batch of {most}: {exc.message}") from exc
        for row, feeds in enumerate(batch[: len(self._bench.cycle)]):
            for name, alone in session.run(feeds).items():
                _check_row(name, together[name], alone, row, most)

    def sample(self, count: int, notes: Notes, for_ns: int, pace: Pace | None = None) -> None:
        """Service times of each batch size with each number of busy instances, in turn, apart from any queue: without a
        rest, or at a ``pace``. Then how late an idle instance wakes. Each of them once at least, and no more after
        ``for_ns``."""
        until_ns = self._bench.clock.now_ns() + for_ns
        for busy in range(1, self._rules.instances + 1):
            self._all(busy, partial(self._samples, busy, count, notes, until_ns, pace))
        clock, rest_ns = self._bench.clock, notes.latest_ns
        for wake in range(-(-count // WAKES)):
            if wake and clock.now_ns() >= until_ns:
                return
            due_ns = clock.now_ns() + rest_ns
            clock.sleep_until_ns(due_ns)
            notes.wakes_ns.append(clock.now_ns() - due_ns)

    def _samples(self, busy: int, count: int, notes: Notes, until_ns: int, pace: Pace | None, instance: int) -> None:
        clock = self._bench.clock
        spent_ns = dict.fromkeys(sizes(self._rules.max_batch), 0)
        due_ns, begun = clock.now_ns(), len(notes.cells.get((1, busy), ()))
        for turn in range(count):
            if turn and clock.now_ns() >= until_ns:
                return
            for size in spent_ns:
                rested = pace is not None and clock.now_ns() < due_ns
                clock.sleep_until_ns(due_ns)
                spent_ns[size] += self._timed(instance, range(turn * size, (turn + 1) * size), busy, notes, rested)
                if pace is not None:
                    due_ns = pace.next_ns(due_ns, begun + turn, spent_ns[size] / (turn + 1))

    def _timed(self, instance: int, requests: Sequence[int], busy: int, notes: Notes, rested: bool) -> int:
        clock = self._bench.clock
        start_ns = clock.now_ns()
        self._run(instance, requests)
        taken_ns = clock.now_ns() - start_ns
        notes.add(len(requests), busy, taken_ns, rested=rested)
        return taken_ns

    def _run(self, instance: int, requests: Sequence[int]) -> None:
        session, cycle = self._sessions[instance], self._bench.cycle
        feeds = [cycle[request % len(cycle)] for request in requests]
        session.run(feeds[0] if len(feeds) == 1 else stacked(feeds))

    def serve(self, load: Load, users: int, until_ns: int | None = None) -> Level:
        """Let the load of ``users`` arrive, and answer it: until it is lost, or to its end where there is no ``until_ns``.
        Raises :class:`_TooLongError` where it is neither at its end nor lost by then."""
        account = load.account(users, to_the_end=until_ns is None)
        desk = Desk(account, self._bench.clock, self._run, until_ns)
        self._all(self._rules.instances, desk.work)
        if desk.cut:
            raise _TooLongError
        return account.close(load.allowed)

    def _all(self, count: int, work: Callable[[int], None]) -> None:
        """``work`` in ``count`` instances at once. What one of them raises is raised here."""
        failures: list[BaseException] = []

        def guarded(instance: int) -> None:
            try:
                if instance:
                    self._bind(instance)
                work(instance)
            except BaseException as exc:
                failures.append(exc)

        threads = [threading.Thread(target=guarded, args=(instance,), daemon=True) for instance in range(1, count)]
        for thread in threads:
            thread.start()
        guarded(0)
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    def _bind(self, instance: int) -> None:
        """This thread to its cores: next to those of the instance before it, from the start again when all are taken."""
        first = instance * self._per_instance
        wanted = {self._cores[(first + core) % len(self._cores)] for core in range(self._per_instance)}
        with suppress(OSError):
            os.sched_setaffinity(0, wanted)


class Desk:
    """Where instances take batches. ``run`` answers requests by an instance. From ``until_ns`` of the clock on nobody takes
    any more; ``cut`` says that this ended the load."""

    def __init__(
        self,
        account: Account,
        clock: Clock,
        run: Callable[[int, Sequence[int]], None],
        until_ns: int | None = None,
    ) -> None:
        self._account = account
        self._clock = clock
        self._run = run
        self._lock = threading.Lock()
        self._start_ns = clock.now_ns()
        self._until_ns = None if until_ns is None else until_ns - self._start_ns
        self.cut = False

    def work(self, instance: int) -> None:
        """Take batches until all requests have left, the load is lost, or the time is over."""
        while True:
            with self._lock:
                if self._account.lost:
                    return
                now_ns = self._clock.now_ns() - self._start_ns
                self._account.line.admit(now_ns)
                when_ns = self._account.line.look_ns(now_ns)
                if when_ns is not None and self._until_ns is not None:
                    if now_ns >= self._until_ns:
                        self.cut = True
                        return
                    when_ns = min(when_ns, self._until_ns)
                batch = self._account.line.take() if when_ns is not None and when_ns <= now_ns else []
            if when_ns is None:
                return
            if not batch:
                self._clock.sleep_until_ns(self._start_ns + when_ns)
                continue
            self._run(instance, batch)
            with self._lock:
                self._account.answered(batch, self._clock.now_ns() - self._start_ns)


def sizes(max_batch: int) -> list[int]:
    """The batch sizes whose times are measured: powers of two, and the largest."""
    found = [1]
    while found[-1] * 2 <= max_batch:
        found.append(found[-1] * 2)
    return found if found[-1] == max_batch else [*found, max_batch]


def stacked(feeds: Sequence[Feeds]) -> dict[str, Any]:
    """One batch of single cases, along the first axis."""
    import numpy as np

    return {name: np.concatenate([item[name] for item in feeds]) for name in feeds[0]}


def _check_row(name: str, together: Any, alone: Any, row: int, batch: int) -> None:
    import numpy as np

    if together.shape != (batch * alone.shape[0], *alone.shape[1:]) or alone.shape[0] != 1:
        found = f"output {name!r} of a batch of {batch} has shape {together.shape}, alone {alone.shape}"
        raise RuntimeFault("unfit_batch", found)
    mine, wanted = together[row].astype(np.float64), alone[0].astype(np.float64)
    size = float(np.sqrt((wanted**2).sum()))
    apart = float(np.sqrt(((mine - wanted) ** 2).sum()))
    if not apart <= LARGEST_DISTANCE * size:
        raise RuntimeFault("unfit_batch", f"output {name!r}: row {row} of a batch of {batch} is not its answer alone")


def _own_cores() -> int:
    """How many cores this thread is bound to."""
    return len(os.sched_getaffinity(0))


def _cores() -> list[int]:
    """All that there are for this job: those of the process that started this one, its own last ones first."""
    own = os.sched_getaffinity(0)
    try:
        given = os.sched_getaffinity(os.getppid())
    except OSError:
        given = own
    return [*sorted(own), *sorted(given - own, reverse=True)]
