"""What the pages keep of all nights: one pass over them, one night in memory at a time."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Final, NamedTuple

from edgedeploy.records.night import Acceptance, BoardHealth, BoardState, Night, SeriesVerdict, Verdict

VARYING: Final = ("key", "cpu_mhz", "temperature_c")
"""Of a board's state: the key names the rest, the others vary by themselves."""

STATUSES: Final = ("ok", "young", "suspect", "regression", "missing")


class Pair(NamedTuple):
    """An entry on a board."""

    entry: str
    board: str


class Mark(NamedTuple):
    """Something that happened before or in a night: ``night`` is its place among all."""

    night: int
    text: str


@dataclass
class Line:
    """One metric of a pair over the nights that have it. ``at`` are places of nights, ``loss`` and ``limit`` NaN where there
    is none, ``status`` places in :data:`STATUSES`."""

    at: array[int] = field(default_factory=lambda: array("H"))
    loss: array[float] = field(default_factory=lambda: array("d"))
    limit: array[float] = field(default_factory=lambda: array("d"))
    status: bytearray = field(default_factory=bytearray)
    last: SeriesVerdict | None = None

    def add(self, night: int, series: SeriesVerdict) -> None:
        self.at.append(night)
        self.loss.append(math.nan if series.loss is None else series.loss)
        self.limit.append(math.nan if series.limit is None else series.limit)
        self.status.append(STATUSES.index(series.status))
        self.last = series


@dataclass
class OfPair:
    """``keys`` are the board's keys, each from a night on; ``measured`` is the place of the last night with a session."""

    lines: dict[str, Line] = field(default_factory=dict)
    keys: list[Mark] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    measured: int | None = None
    runtime: str = ""
    artifact: tuple[str, ...] = ()


@dataclass
class OfBoard:
    """``state`` is the latest, of the night ``seen``; it is what it is since the night ``since``. ``answered`` is the last
    night on which it did, ``busy`` the share of each night's budget. Nights are places among all."""

    state: BoardState | None = None
    seen: int | None = None
    since: int = 0
    answered: int | None = None
    busy: dict[int, float] = field(default_factory=dict)
    unwell: dict[int, str] = field(default_factory=dict)
    marks: list[Mark] = field(default_factory=list)


@dataclass
class History:
    """Add the nights oldest first, tonight last."""

    nights: list[str] = field(default_factory=list)
    pairs: dict[Pair, OfPair] = field(default_factory=dict)
    boards: dict[str, OfBoard] = field(default_factory=dict)
    marks: list[Mark] = field(default_factory=list)
    accepted: dict[str, list[Mark]] = field(default_factory=dict)
    moved: set[Acceptance] = field(default_factory=set)
    tools: dict[str, str] = field(default_factory=dict)

    def add(self, night: Night) -> None:
        place = len(self.nights)
        self.nights.append(night.night)
        self.marks += [Mark(place, text) for text in _changed_tools(self.tools, dict(night.tools))]
        self.tools = dict(night.tools) or self.tools
        self._add_accepted(place, night)
        for health in night.boards:
            self._add_health(place, health, night.budget_s)
        for verdict in night.verdicts:
            self._add_verdict(place, verdict)

    def _add_accepted(self, place: int, night: Night) -> None:
        """A night names all moves so far: each is marked at the first night after it; older ones are not."""
        for one in night.accepted:
            if one in self.moved:
                continue
            self.moved.add(one)
            if place or one.at_utc >= night.started_utc:
                self.accepted.setdefault(one.entry, []).append(Mark(place, f"baseline accepted: {one.why}"))

    def _add_health(self, place: int, health: BoardHealth, budget_s: float) -> None:
        board = self.boards.setdefault(health.name, OfBoard())
        board.busy[place] = health.busy_s / budget_s if budget_s > 0 else 0.0
        if health.answered:
            board.answered = place
        trouble = f"quarantined: {health.quarantined}" if health.quarantined else health.error
        if trouble or not health.answered:
            board.unwell[place] = trouble or "no answer"
        if health.answered and health.state is not None:
            self._see(place, health.name, health.state)

    def _add_verdict(self, place: int, verdict: Verdict) -> None:
        pair = self.pairs.setdefault(Pair(verdict.entry, verdict.board), OfPair())
        for series in verdict.series:
            pair.lines.setdefault(series.metric, Line()).add(place, series)
        if any(series.sessions for series in verdict.series):
            pair.measured = place
        if verdict.artifact_changes != pair.artifact:
            pair.marks += [Mark(place, f"artifact: {text}") for text in verdict.artifact_changes]
            pair.artifact = verdict.artifact_changes
        state = verdict.state
        if state is not None:
            self._see(place, verdict.board, state)
            if pair.runtime not in ("", state.runtime):
                pair.marks.append(Mark(place, f"runtime {state.runtime}, before {pair.runtime}"))
            pair.runtime = state.runtime
        self._key(place, pair, verdict)

    def _key(self, place: int, pair: OfPair, verdict: Verdict) -> None:
        """A key that is not told begins where the verdict says that a history did."""
        known = pair.keys[-1].text if pair.keys else None
        told = verdict.key or (verdict.state.key if verdict.state is not None else "")
        key = told or known
        if verdict.new_history and not told:
            key = f"since {verdict.night}"
        if key != known or (known is None and verdict.series):
            pair.keys.append(Mark(place, key or ""))
            if known is not None:
                pair.marks.append(Mark(place, "a new history of this board began"))

    def _see(self, place: int, name: str, state: BoardState) -> None:
        """The first of a night: a board has a state for each target, which differ in the runtime and so in the key."""
        board = self.boards.setdefault(name, OfBoard())
        if board.seen == place:
            return
        changes = _changed_state(board.state, state) if board.state is not None else []
        board.marks += [Mark(place, text) for text in changes]
        if changes or board.state is None:
            board.since = place
        board.state, board.seen = state, place

    def lines(self) -> Iterator[tuple[Pair, str, Line]]:
        for pair, found in self.pairs.items():
            for metric, line in found.lines.items():
                yield pair, metric, line


def _changed_tools(before: dict[str, str], now: dict[str, str]) -> list[str]:
    if not before or not now:
        return []
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    return [f"{name} {now.get(name, 'gone')}, before {before.get(name, 'none')}" for name in names]


def _changed_state(before: BoardState, now: BoardState) -> list[str]:
    """Sentences. The runtime is that of an entry's target: pairs know when it changes."""
    names = [item.name for item in fields(BoardState) if item.name not in (*VARYING, "runtime")]
    return [
        f"{name.replace('_', ' ')} {getattr(now, name) or 'unknown'}, before {getattr(before, name) or 'unknown'}"
        for name in names
        if getattr(now, name) != getattr(before, name)
    ]
