"""The queue before a server: who waits, who is turned away, which batch leaves when; and what that comes to, simulated.

One set of rules serves real requests (``server.py``) and predicts them: :func:`simulated` is a discrete-event simulation
of the same queue, whose only other input are service times. All times are integer nanoseconds after the load's start.
"""

from __future__ import annotations

import heapq
import typing
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Tuple

from edgedeploy.runtime.scenarios.earlystopping import slow_allowed

GAP_UNIT = 1_000_000
"""Gaps between requests are whole numbers whose mean is this: what they take is decided by the number of users."""

STEP = 1.25
"""A load that holds is raised by this factor, then by its square and so on, until one does not; and the other way round."""

TRIES = 2
"""A load that was lost is tried once more: what disturbed it was perhaps no request."""

RESOLUTION = 0.02
"""The search ends when the load that failed is at most this share above the one that held (or one user)."""


@dataclass(frozen=True)
class Rules:
    """A batch leaves when ``max_batch`` requests wait, or the oldest has waited for ``max_wait_ns``, as in Triton's dynamic
    batcher; ``instances`` take batches. A request that finds ``capacity`` waiting is turned away."""

    max_batch: int
    max_wait_ns: int
    capacity: int
    instances: int


@dataclass
class Level:
    """What became of one load. Of the ``sent`` requests, the first ones of all, those in ``shed`` were turned away, those in
    ``pending`` had no answer when the load was lost, and all others have their latency in ``latencies_ns``, from their
    scheduled arrival. ``late`` of these came after the deadline."""

    users: int
    sent: int = 0
    held: bool = False
    late: int = 0
    batches: int = 0
    shed: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    latencies_ns: list[int] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return dict(vars(self))


def arrivals_ns(gaps: Sequence[int], users: int, every_ns: int) -> list[int]:
    """When the requests of ``users`` arrive, who each ask once in ``every_ns`` on average; ``gaps`` in ``GAP_UNIT``."""
    found, total = [], 0
    for gap in gaps:
        total += gap
        found.append(total * every_ns // (users * GAP_UNIT))
    return found


class Line:
    """The requests of one load that have arrived and not left. ``now_ns`` never goes back from call to call."""

    def __init__(self, arrivals: Sequence[int], rules: Rules) -> None:
        self._arrivals = arrivals
        self._rules = rules
        self._waiting: deque[int] = deque()
        self.came = 0
        self.shed: list[int] = []

    @property
    def waiting(self) -> list[int]:
        return list(self._waiting)

    def admit(self, now_ns: int) -> None:
        """Let everybody in who has arrived by now. Nobody leaves between two calls, so it does not matter when it is called:
        whoever finds the line full would have found it full on arrival."""
        while self.came < len(self._arrivals) and self._arrivals[self.came] <= now_ns:
            if len(self._waiting) < self._rules.capacity:
                self._waiting.append(self.came)
            else:
                self.shed.append(self.came)
            self.came += 1

    def look_ns(self, now_ns: int) -> int | None:
        """When an idle instance looks again: now where a batch may leave, None when all requests have left."""
        coming = self._arrivals[self.came] if self.came < len(self._arrivals) else None
        if not self._waiting:
            return coming
        due_ns = self._arrivals[self._waiting[0]] + self._rules.max_wait_ns
        if len(self._waiting) >= self._rules.max_batch or due_ns <= now_ns:
            return now_ns
        return due_ns if coming is None else min(due_ns, coming)

    def take(self) -> list[int]:
        return [self._waiting.popleft() for _ in range(min(self._rules.max_batch, len(self._waiting)))]


class Account:
    """Counts what becomes of one load. With ``allowed``, it is lost once more requests than that have missed the
    deadline."""

    def __init__(
        self, arrivals: Sequence[int], rules: Rules, users: int, deadline_ns: int, allowed: int | None
    ) -> None:
        self.line = Line(arrivals, rules)
        self._arrivals = arrivals
        self._deadline_ns = deadline_ns
        self._allowed = allowed
        self._latencies: dict[int, int] = {}
        self._level = Level(users)

    @property
    def lost(self) -> bool:
        return self._allowed is not None and self._level.late + len(self.line.shed) > self._allowed

    def answered(self, batch: Sequence[int], end_ns: int) -> None:
        self._level.batches += 1
        for request in batch:
            self._latencies[request] = end_ns - self._arrivals[request]
            self._level.late += self._latencies[request] > self._deadline_ns

    def close(self, allowed: int) -> Level:
        """Call it when no batch is being run any more; ``allowed`` requests may miss the deadline of a load that holds."""
        level = self._level
        level.sent, level.shed, level.pending = self.line.came, self.line.shed, self.line.waiting
        level.latencies_ns = [self._latencies[request] for request in sorted(self._latencies)]
        level.held = not level.pending and level.sent == len(self._arrivals) and level.late + len(level.shed) <= allowed
        return level


Cells = typing.Mapping[
    Tuple[int, int], typing.Sequence[int]
]  # before Python 3.9 those of collections.abc take no types
"""Times in ns by (batch, busy instances)."""


class Services:
    """Service times that were measured, drawn in the order in which they were measured, so that a disturbance that lasted
    lasts here too. ``cells`` maps (batch, busy instances) to times in ns of batches that followed another one, ``rested`` to
    those of batches after a rest, where there are some; ``wakes_ns`` is how late an idle instance wakes. ``start`` is the
    share of each series at which drawing begins."""

    def __init__(
        self, cells: Cells, wakes_ns: Sequence[int], start: float, rested: Cells = MappingProxyType({})
    ) -> None:
        self._cells = {**{(*cell, False): times for cell, times in cells.items()}, **_rested(cells, rested)}
        self._batches = sorted({batch for batch, _ in cells})
        self._busy = max(busy for _, busy in cells)
        self._wakes_ns = wakes_ns
        self._next = {cell: int(start * len(times)) for cell, times in self._cells.items()}
        self._wake = int(start * len(wakes_ns))

    def wake_ns(self) -> int:
        if not self._wakes_ns:
            return 0
        self._wake += 1
        return self._wakes_ns[self._wake % len(self._wakes_ns)]

    def service_ns(self, batch: int, busy: int, *, rested: bool = False) -> int:
        """A batch size between two that were measured takes what lies between their times."""
        busy = min(busy, self._busy)
        above = next(size for size in self._batches if size >= batch)
        if above == batch:
            return self._draw((batch, busy, rested))
        below = max(size for size in self._batches if size < batch)
        low, high = self._draw((below, busy, rested)), self._draw((above, busy, rested))
        return low + (high - low) * (batch - below) // (above - below)

    def _draw(self, cell: tuple[int, int, bool]) -> int:
        if cell not in self._cells:
            cell = (*cell[:2], False)
        self._next[cell] += 1
        return self._cells[cell][self._next[cell] % len(self._cells[cell])]


def _rested(cells: Cells, rested: Cells) -> dict[tuple[int, int, bool], Sequence[int]]:
    return {(*cell, True): times for cell, times in rested.items() if cell in cells and times}


def simulated(account: Account, rules: Rules, services: Services) -> None:
    """Run one load without a server: discrete events, each batch takes a service time."""
    idle_at = [(0, True)] * rules.instances  # when, and whether after a rest
    ends: list[tuple[int, list[int]]] = []
    while not account.lost:
        now_ns, rested = heapq.heappop(idle_at)
        while ends and ends[0][0] <= now_ns:
            end_ns, batch = heapq.heappop(ends)
            account.answered(batch, end_ns)
        account.line.admit(now_ns)
        when_ns = account.line.look_ns(now_ns)
        if when_ns is None:
            break
        if when_ns > now_ns:
            heapq.heappush(idle_at, (when_ns + services.wake_ns(), True))
            continue
        batch = account.line.take()
        end_ns = now_ns + services.service_ns(len(batch), 1 + len(ends), rested=rested)
        heapq.heappush(ends, (end_ns, batch))
        heapq.heappush(idle_at, (end_ns, False))
    for end_ns, batch in sorted(ends):
        account.answered(batch, end_ns)


@dataclass(frozen=True)
class Load:
    """What a server is asked: requests with these ``gaps``, answers to ``percent`` % of them within ``deadline_ns``."""

    gaps: Sequence[int]
    every_ns: int
    deadline_ns: int
    percent: float
    rules: Rules

    @property
    def allowed(self) -> int:
        """How many requests may miss the deadline: LoadGen's early stopping at 99 % confidence."""
        return slow_allowed(len(self.gaps), self.percent)

    def account(self, users: int, *, to_the_end: bool = False) -> Account:
        arrivals = arrivals_ns(self.gaps, users, self.every_ns)
        return Account(arrivals, self.rules, users, self.deadline_ns, None if to_the_end else self.allowed)

    def predicted(self, users: int, services: Services, *, to_the_end: bool = False) -> Level:
        account = self.account(users, to_the_end=to_the_end)
        simulated(account, self.rules, services)
        return account.close(self.allowed)

    def predicted_users(self, services: Callable[[float], Services], first: int, most: int, start: float = 0.0) -> int:
        """The most users whose load holds by the rules of the measured search. ``services`` makes service times that are
        drawn from the share ``start`` on, and each try draws from another place."""

        def holds(users: int) -> bool:
            places = ((start + attempt / TRIES) % 1.0 for attempt in range(TRIES))
            return any(self.predicted(users, services(place)).held for place in places)

        return most_users(holds, first, most)


def most_users(holds: Callable[[int], bool], first: int, most: int) -> int:
    """The most users whose load holds, within ``RESOLUTION``; 0 when that of one does not. ``first`` is tried first. Assumes
    that more users never hold more easily."""
    users = min(max(1, first), most)
    good, bad, step = 0, most + 1, STEP
    while bad - good > max(1, int(RESOLUTION * good)):
        if holds(users):
            good = users
            users = min(max(users + 1, int(users * step)), most) if bad > most else (good + bad) // 2
        else:
            bad = users
            users = max(1, min(users - 1, int(users / step))) if not good else (good + bad) // 2
        step *= STEP
    return good
