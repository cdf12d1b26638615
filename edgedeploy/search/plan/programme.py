"""The plan with the least loss within a budget, by mixed-integer linear programming (HiGHS): exact for its table.

Variables: one of 0 and 1 for each precision of a group, which sum to 1; for each noise a number that is at least each of its
members' and at most their sum, so that it is 1 as soon as one is chosen; for each border one that is at least the difference
of its two sides.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edgedeploy.search.plan.table import Plan, Table

BUDGETS: Final = tuple(step / 32 for step in range(33))
"""Shares of the way from the quickest plan to the least loss for which a front is solved."""

SCALE: Final = 1e4
"""What goals and limits are scaled to: the solver ends within 1e-6 of the optimum, and lets limits be passed by as much."""
SLACK: Final = 1e-9
"""By how much a limit may be passed, in parts of the limited quantity's sum over the table: rounding of its own sums."""
LIMIT_S: Final = 30.0
"""Time for one solution; past it the best one found so far is taken. Networks of 60 layers take less than a second."""
PREFERENCE: Final = 1e-7
"""What preferred precisions count beside the second goal: they decide between equal plans and nothing else."""


@dataclass(frozen=True)
class Ends:
    """The quickest plan, and the quickest of those with the least loss."""

    quickest: Plan
    best: Plan

    def budget_ns(self, share: float) -> float:
        """The time that ``share`` of the way between both ends allows; 0 is the quickest plan's, 1 the best one's."""
        return self.quickest.time_ns + share * (self.best.time_ns - self.quickest.time_ns)


def ends_of(table: Table) -> Ends:
    found = _ends(_Programme(table))
    assert found is not None  # without a limit every choice is allowed
    return found


def _ends(programme: _Programme) -> Ends | None:
    quickest = programme.least("time", then="loss")
    best = programme.least("loss", then="time")
    return None if quickest is None or best is None else Ends(quickest, best)


def solve(
    table: Table, *, time_ns: float | None = None, size_bytes: float | None = None, without: Sequence[Plan] = ()
) -> Plan | None:
    """The plan with the least loss that takes no more than ``time_ns`` and ``size_bytes``; of equal ones the quickest.
    Plans in ``without`` are not taken. None when no plan is within the limits."""
    return _Programme(table, without).least("loss", then="time", time=time_ns, size=size_bytes)


def front(table: Table, shares: Sequence[float] = BUDGETS, without: Sequence[Plan] = ()) -> tuple[Plan, ...]:
    """The plans of all budgets between both ends, each once, the quickest first: none is beaten in time and loss. Plans in
    ``without`` are left out, and beat none; nothing is left when those are all."""
    programme = _Programme(table, without)
    ends = _ends(programme)
    if ends is None:
        return ()
    found = [ends.best, ends.quickest]
    reached_ns = ends.best.time_ns
    for share in sorted(shares, reverse=True):
        budget_ns = ends.budget_ns(share)
        if budget_ns >= reached_ns:
            continue  # the last plan is within this budget too, and no better one is
        plan = programme.least("loss", "time", time=budget_ns)
        if plan is not None:
            found.append(plan)
            reached_ns = plan.time_ns
    kept: list[Plan] = []
    for plan in sorted(dict.fromkeys(found), key=lambda plan: (plan.time_ns, plan.loss)):
        if not kept or plan.loss < kept[-1].loss:
            kept.append(plan)
    return tuple(kept)


@contextmanager
def _silent() -> Iterator[None]:
    """HiGHS (in scipy 1.17) writes a line of its own to the process's standard output now and then, whatever is asked of
    it. Standard output is for data."""
    try:
        kept = os.dup(1)
    except OSError:  # the process has none
        yield
        return
    try:
        sys.stdout.flush()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
        yield
        ctypes.CDLL(None).fflush(None)
    finally:
        os.dup2(kept, 1)
        os.close(kept)


class _Programme:
    """The linear constraints of a table, which are the same for all budgets."""

    def __init__(self, table: Table, without: Sequence[Plan] = ()) -> None:
        self.table = table
        self.members = [(index, name) for index, group in enumerate(table.groups) for name in group.costs]
        self.place = {member: index for index, member in enumerate(self.members)}
        self.binary = len(self.members)
        self.size = self.binary + len(table.noises) + len(table.borders)
        self.one, self.above = self._rows()
        taken = [{self.place[member]: 1.0 for member in enumerate(plan.precisions)} for plan in without]
        self.taken = np.array([self._row(row) for row in taken]).reshape(len(taken), self.size)
        costs = [table.groups[index].costs[name] for index, name in self.members]
        zeros = [0.0] * len(table.noises)
        borders = [border.time_ns for border in table.borders]
        self.rows = {
            "time": np.array([cost.time_ns for cost in costs] + zeros + borders),
            "size": np.array([cost.size_bytes for cost in costs] + zeros + [0.0] * len(borders)),
            "loss": np.array([0.0] * self.binary + [noise.loss for noise in table.noises] + [0.0] * len(borders)),
        }
        preferred = [list(table.groups[index].costs).index(name) for index, name in self.members]
        self.rows["preference"] = np.array(preferred + [0] * (self.size - self.binary), dtype=float)

    def _rows(self) -> tuple[Any, Any]:
        """Rows that equal 1 (one precision for each group), and rows that are at least 0."""
        table, equal, above = self.table, [], []
        for index, group in enumerate(table.groups):
            equal.append(self._row({self.place[index, name]: 1.0 for name in group.costs}))
        for number, noise in enumerate(table.noises):
            own = self.binary + number
            members = [self.place[member] for member in noise.members]
            above += [self._row({own: 1.0, place: -1.0}) for place in members]
            above.append(self._row({own: -1.0, **dict.fromkeys(members, 1.0)}))  # a gain has to have a cause
        for number, border in enumerate(table.borders):
            own = self.binary + len(table.noises) + number
            for name in table.groups[
                border.first
            ].costs:  # one side is enough: a precision that only the other has differs
                sides = {self.place[border.first, name]: -1.0}
                if (border.second, name) in self.place:
                    sides[self.place[border.second, name]] = 1.0
                above.append(self._row({own: 1.0, **sides}))
        return np.array(equal), np.array(above).reshape(len(above), self.size)

    def _row(self, values: dict[int, float]) -> Any:
        row = np.zeros(self.size)
        for place, value in values.items():
            row[place] = value
        return row

    def least(self, goal: str, then: str, *, time: float | None = None, size: float | None = None) -> Plan | None:
        """The plan with the least ``goal`` within the limits; of those the least of ``then``, and of those one with
        preferred precisions."""
        limits = {name: value for name, value in (("time", time), ("size", size)) if value is not None}
        first = self._solved(self._part(goal), limits)
        if first is None:
            return None
        limits[goal] = {"time": first.time_ns, "loss": first.loss}[goal]
        return self._solved(self._part(then) + PREFERENCE * self._part("preference"), limits) or first

    def _part(self, name: str) -> Any:
        return self.rows[name] / self._whole(name)

    def _solved(self, goal: Any, limits: dict[str, float]) -> Plan | None:
        from scipy.optimize import Bounds, LinearConstraint, milp

        constraints = [LinearConstraint(self.one, 1, 1)]
        if len(self.above):
            constraints.append(LinearConstraint(self.above, 0, np.inf))
        if len(self.taken):  # at least one group differs
            constraints.append(LinearConstraint(self.taken, -np.inf, len(self.table.groups) - 1))
        for name, limit in limits.items():
            bound = limit / self._whole(name) + SLACK
            constraints.append(LinearConstraint(SCALE * self._part(name)[None], -np.inf, SCALE * bound))
        with _silent():
            found = milp(
                goal * SCALE,
                integrality=(np.arange(self.size) < self.binary).astype(np.int64),
                bounds=Bounds(0, 1),
                constraints=constraints,
                options={"mip_rel_gap": 0.0, "time_limit": LIMIT_S},
            )
        if found.x is None:
            return None
        chosen = [self.members[place] for place in np.flatnonzero(found.x[: self.binary] > 0.5)]
        return self.table.plan([name for _, name in chosen])

    def _whole(self, name: str) -> float:
        return float(np.abs(self.rows[name]).sum()) or 1.0
