"""What a night measures, and in which order, when its budget is not enough for everything. Pure.

A pair is one entry on one board, measured by two sessions, one after the other. Of the pairs that still fit into the time
that is left, a board takes the one of the highest priority::

    priority = importance x nights since it was last measured

A pair that was never measured counts as :data:`NEVER_NIGHTS` nights. What is left out tonight rises tomorrow, so every pair
has its turn, and one that matters twice as much has it twice as often. Of equal ones the one goes first that was measured in
fewer nights, then the lab file's first. A pair with a suspicion is not left half measured: it goes before all others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

SESSIONS: Final = 2
"""Of a pair, each night."""

MORE_SESSIONS: Final = 2
"""After a suspicion."""

NEVER_NIGHTS: Final = 30.0
DEFAULT_SESSION_S: Final = 120.0
"""How long a session is expected to take where nothing was measured yet."""

LATEST: Final = 5
"""So many of the latest sessions say how long the next one takes."""


@dataclass(frozen=True)
class Pair:
    """One entry on one board. ``nights`` since it was last measured: None for never; ``times`` is in how many it was. One
    session is expected to take ``session_s``, and ``sessions`` are missing tonight. Boards of one ``machine`` take turns."""

    entry: str
    board: str
    importance: float = 1.0
    nights: float | None = None
    session_s: float = DEFAULT_SESSION_S
    sessions: int = SESSIONS
    times: int = 0
    machine: str = ""
    suspected: bool = False

    @property
    def priority(self) -> float:
        return self.importance * (NEVER_NIGHTS if self.nights is None else max(1.0, self.nights))

    @property
    def expected_s(self) -> float:
        return self.session_s * self.sessions


@dataclass(frozen=True)
class Turn:
    """A pair that fits, and when it would begin, in seconds from now."""

    pair: Pair
    begins_s: float


@dataclass(frozen=True)
class Planned:
    """``left_out`` are pairs that do not fit, each with the reason."""

    turns: tuple[Turn, ...] = ()
    left_out: Mapping[Pair, str] = field(default_factory=dict)

    @property
    def ends_s(self) -> float:
        return max((turn.begins_s + turn.pair.expected_s for turn in self.turns), default=0.0)


def in_order(pairs: Iterable[Pair]) -> list[Pair]:
    """The highest priority first; equal ones stay in their order."""
    return sorted(pairs, key=lambda pair: (not pair.suspected, -pair.priority, pair.times))


def next_pair(pairs: Iterable[Pair], left_s: float) -> Pair | None:
    """What a free board takes: the first that fits into the time that is left."""
    return next((pair for pair in in_order(pairs) if pair.expected_s <= left_s), None)


def plan(pairs: Sequence[Pair], left_s: float) -> Planned:
    """What all boards would do, each machine by itself, if every session took as long as expected and nothing failed."""
    turns: list[Turn] = []
    left_out: dict[Pair, str] = {}
    of_machine: dict[str, list[Pair]] = {}
    for pair in pairs:
        of_machine.setdefault(pair.machine or pair.board, []).append(pair)
    for waiting in of_machine.values():
        begins_s = 0.0
        for pair in in_order(waiting):
            if pair.expected_s > left_s - begins_s:  # nor later: ever less is left
                left_out[pair] = does_not_fit(pair, left_s - begins_s)
                continue
            turns.append(Turn(pair, begins_s))
            begins_s += pair.expected_s
    return Planned(tuple(turns), left_out)


def does_not_fit(pair: Pair, left_s: float) -> str:
    """Why a pair is not run."""
    asked = f"{pair.sessions} session{'s' * (pair.sessions != 1)} of about {math.ceil(pair.session_s)} s"
    return f"{asked} did not fit into the {max(0, math.floor(left_s))} s that were left of the budget"


def expected_session_s(
    own: Sequence[float], of_entry: Sequence[float] = (), of_board: Sequence[float] = (), default_s: float = 0.0
) -> float:
    """How long a session takes: the median of the latest ones of this pair, else of the entry on other boards, else of other
    entries on the board, else ``default_s``. Each is oldest first."""
    for spent in (own, of_entry, of_board):
        if spent:
            return median(spent[-LATEST:])
    return default_s or DEFAULT_SESSION_S
