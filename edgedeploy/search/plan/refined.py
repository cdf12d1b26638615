"""A table whose losses fit what whole plans lose, as far as plans were looked at.

A table adds up what one rounding at a time loses. Two roundings lose more or less than their sum where their errors point
the same way or against each other: for a metric of squares by twice the product of both errors, which is of the order of the
square root of both noises' product. So each pair of groups gets a term of its own, whose prior is zero with that standard
deviation, and what no term explains has a variance: Bayesian linear regression on the losses of the plans that were looked
at, with the likeliest of some variances. The programme stays exact for the terms: what two groups lose beside their sum when
both are narrow is taken off a noise that counts once for both.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgedeploy.search.plan.programme import front
from edgedeploy.search.plan.table import Member, Noise, Plan, Table

Floats = NDArray[np.float64]
Precisions = tuple[str, ...]

SHARES: Final = tuple(step / 10 for step in range(11))
"""Budgets whose plans are looked at."""
MORE: Final = 20
"""Plans that are looked at on the fronts, at most, beside two for each group."""
PAIRS: Final = 66
"""Pairs of groups with a term of their own, at most: those with the most noise. That is all of 12 groups."""
_RESTS: Final = (1e-6, 1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
"""Variances of what no term explains, as shares of the plans' own: the likeliest is taken."""


@dataclass(frozen=True)
class Refined:
    """``table`` with corrected losses, the ``powers`` of its noises, and the ``losses`` of the plans that were looked at."""

    table: Table
    powers: tuple[float, ...]
    losses: Mapping[Precisions, float]

    def best(self, time_ns: float) -> Plan | None:
        """Of the plans that were looked at and take no more than ``time_ns`` the one that loses least, and of those the
        quickest; its loss is the one that was seen. None where there is none."""
        plans = [replace(self.table.plan(chosen), loss=loss) for chosen, loss in self.losses.items()]
        within = [plan for plan in plans if plan.time_ns <= time_ns * (1 + 1e-9)]
        return min(within, key=lambda plan: (plan.loss, plan.time_ns), default=None)


def refined(
    table: Table,
    powers: Sequence[float],
    loss_of: Callable[[Precisions], float],
    *,
    shares: Sequence[float] = SHARES,
    more: int = MORE,
    first: Sequence[Precisions] = (),
) -> Refined:
    """``powers`` are the noises of ``table.noises`` as shares of the outputs' power, whatever its losses are of; ``loss_of``
    says what a whole plan loses, in the unit of the table's losses, and 0 for one without any rounding. ``first`` are the
    plans that are looked at first, those in which one group alone is narrow or alone is not when left out; then at most
    ``more`` of the fronts. What comes out may be refined again, by losses that are known better."""
    terms = _Terms(table, powers)
    seen: dict[Precisions, float] = {plan: loss_of(plan) for plan in dict.fromkeys(first or terms.first())}
    most = len(seen) + more
    while True:
        corrected = terms.corrected(seen)
        new = [plan.precisions for plan in front(corrected, shares) if plan.precisions not in seen]
        if not new or len(seen) >= most:
            added = len(corrected.noises) - len(powers)
            return Refined(corrected, (*powers, *[0.0] * added), seen)
        seen |= {plan: loss_of(plan) for plan in new[: most - len(seen)]}


class _Terms:
    """The features of plans: which noises they have, and which pairs of groups are narrow together."""

    def __init__(self, table: Table, powers: Sequence[float]) -> None:
        self.table = table
        powers = _scaled(powers)
        noise: dict[Member, float] = {}
        for item, power in zip(table.noises, powers, strict=True):
            for member in item.members:
                noise[member] = noise.get(member, 0.0) + power
        self.narrow = noise
        pairs = [pair for pair in itertools.combinations(sorted(noise), 2) if pair[0][0] != pair[1][0]]
        pairs.sort(key=lambda pair: -noise[pair[0]] * noise[pair[1]])
        self.pairs = pairs[:PAIRS]
        both = [noise[first] * noise[second] for first, second in self.pairs]
        self.prior = np.array([item.loss for item in table.noises] + [0.0] * len(self.pairs))
        self.variances = np.array([*np.square(powers), *both])

    def first(self) -> Iterator[Precisions]:
        groups = self.table.groups
        narrow = [next((name for name in g.costs if (i, name) in self.narrow), "") for i, g in enumerate(groups)]
        wide = [next((name for name in g.costs if (i, name) not in self.narrow), "") for i, g in enumerate(groups)]
        usual = {
            True: [own or other for own, other in zip(narrow, wide, strict=True)],
            False: [own or other for own, other in zip(wide, narrow, strict=True)],
        }
        yield tuple(usual[True])
        for most, one in ((True, wide), (False, narrow)):
            for place, name in enumerate(one):
                if name:
                    yield (*usual[most][:place], name, *usual[most][place + 1 :])

    def rows(self, plans: Sequence[Precisions]) -> Floats:
        """Shape (plans, noises and pairs): 1 where a plan has it."""
        chosen = [set(enumerate(precisions)) for precisions in plans]
        found = [
            [not own.isdisjoint(item.members) for item in self.table.noises] + [own.issuperset(p) for p in self.pairs]
            for own in chosen
        ]
        return np.array(found, dtype=np.float64).reshape(len(plans), len(self.prior))

    def corrected(self, seen: Mapping[Precisions, float]) -> Table:
        rows = self.rows(list(seen))
        away = np.array(list(seen.values())) - rows @ self.prior
        weighted = rows * self.variances
        between = weighted @ rows.T
        unit = float(np.trace(between)) / len(rows)
        if not unit:  # nothing is rounded
            return self.table
        solved = min(
            (_solved(between + rest * unit * np.eye(len(rows)), away) for rest in _RESTS), key=lambda item: item[0]
        )
        found = self.prior + weighted.T @ solved[1]
        return self._with(found.tolist())

    def _with(self, losses: Sequence[float]) -> Table:
        known = len(self.table.noises)
        noises = [replace(noise, loss=loss) for noise, loss in zip(self.table.noises, losses[:known], strict=True)]
        alone: dict[Member, float] = {}
        for pair, loss in zip(self.pairs, losses[known:], strict=True):
            noises.append(Noise("a pair", -loss, pair))
            for member in pair:
                alone[member] = alone.get(member, 0.0) + loss
        noises += [Noise("pairs", loss, (member,)) for member, loss in alone.items()]
        return replace(self.table, noises=tuple(noises))


def _scaled(powers: Sequence[float]) -> list[float]:
    """As shares of the largest, for only their ratios count and squares of small ones are 0. All are equal where no noise is
    known: answers in whole numbers have none, and a metric of theirs may lose all the same."""
    largest = max(powers, default=0.0)
    return [power / largest for power in powers] if largest else [1.0] * len(powers)


def _solved(covariance: Floats, away: Floats) -> tuple[float, Floats]:
    """How surprising ``away`` is of a normal distribution with ``covariance``, whose scale is free, and the solution."""
    weights = np.asarray(np.linalg.solve(covariance, away), dtype=np.float64)
    power = max(float(away @ weights), np.finfo(np.float64).tiny)
    return len(away) * float(np.log(power)) + float(np.linalg.slogdet(covariance)[1]), weights
