"""Which plans to verify, and what their measured losses say of the table that they were made from.

A table's losses are of one rounding at a time on few cases. Each verified plan says what several of them lose together: the
losses are corrected by Bayesian linear regression, whose prior are the table's, the programme is solved again for the
corrected ones and for draws from what is believed of them, and the next plan is the one with the largest expected
improvement of the front. So it is exact for what is believed, whatever the number of layers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgedeploy.search.improvement import expected_improvement
from edgedeploy.search.plan.programme import front, solve
from edgedeploy.search.plan.table import Plan, Table

Floats = NDArray[np.float64]
Precisions = tuple[str, ...]

MOST: Final = 20
"""Plans that are verified, at most."""
FIRST: Final = 6
"""Plans of the table's own front that are verified before anything is corrected, its ends among them."""
DRAWS: Final = 3
"""Tables that are drawn from what is believed, whose fronts are looked at for each plan."""
SHARES: Final = tuple(step / 8 for step in range(9))
"""Budgets of those fronts."""

_DOUBTS: Final = (0.1, 0.3, 1.0, 3.0)
"""Standard deviations of a loss that are tried, as shares of the usual loss and of its own."""
_REST: Final = (0.02, 0.1, 0.3)
"""Standard deviations of what does not add up, as shares of the verified losses' own."""
_REACHES: Final = (0.5, 2.0)
"""In how many groups two plans may differ until what does not add up has little in common."""
_MARGIN: Final = 0.1


@dataclass(frozen=True)
class _Fitted:
    """Variances of each noise's loss and of what does not add up, over how many groups that reaches, the inverse of the
    covariance of the verified losses, and what they are away from the table's."""

    own: Floats
    variance: float
    reach: float
    inverse: Floats
    away: Floats


@dataclass(frozen=True)
class Believed:
    """Losses of a table after ``losses`` of plans, shape (plans,), were measured: 0 for the one without any rounding.
    ``table``'s losses may be in another unit; they are scaled to fit."""

    table: Table
    plans: tuple[Precisions, ...]
    losses: Floats

    @cached_property
    def _prior(self) -> Floats:
        """The table's losses in the unit of those that were measured."""
        own = np.array([noise.loss for noise in self.table.noises])
        expected = self.rows(self.plans) @ own
        power = float(expected @ expected)
        factor = float(expected @ self.losses) / power if power > 0 else 1.0
        return own * (factor if factor > 0 else 1.0)

    @cached_property
    def _fitted(self) -> _Fitted:
        """Of all doubts the likeliest."""
        rows, usual = self.rows(self.plans), float(np.sqrt(np.mean(np.square(self._prior))))
        away, unit = self.losses - rows @ self._prior, float(self.losses.std())
        apart = _apart(self.plans, self.plans)
        tried = []
        for doubt, rest, reach in itertools.product(_DOUBTS, _REST, _REACHES):
            own = np.square(doubt) * (np.square(self._prior) + np.square(usual)) + 1e-30
            variance = float(np.square(rest * unit)) + 1e-30
            between = (rows * own) @ rows.T + variance * np.exp(-apart / reach)
            inverse = np.linalg.inv(between + 1e-6 * float(np.trace(between)) / len(rows) * np.eye(len(rows)))
            surprise = float(away @ inverse @ away) - float(np.linalg.slogdet(inverse)[1])
            tried.append((surprise, _Fitted(own, variance, reach, inverse, away)))
        return min(tried, key=lambda item: item[0])[1]

    def rows(self, plans: Sequence[Precisions]) -> Floats:
        """Shape (plans, noises): 1 where a plan has the noise."""
        chosen = [set(enumerate(precisions)) for precisions in plans]
        found = [[not own.isdisjoint(noise.members) for noise in self.table.noises] for own in chosen]
        return np.array(found, dtype=np.float64).reshape(len(plans), len(self.table.noises))

    def predict(self, plans: Sequence[Precisions]) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the loss of each plan."""
        own, variance, reach, inverse, away = vars(self._fitted).values()
        rows = self.rows(plans)
        between = (rows * own) @ self.rows(self.plans).T + variance * np.exp(-_apart(plans, self.plans) / reach)
        left = (np.square(rows) * own).sum(axis=1) + variance - np.einsum("ij,jk,ik->i", between, inverse, between)
        return rows @ self._prior + between @ inverse @ away, np.sqrt(np.maximum(left, 0))

    def tables(self, rng: np.random.Generator, drawn: int) -> Iterator[Table]:
        """The table with the losses that are expected, then with losses as they may be."""
        fitted, rows = self._fitted, self.rows(self.plans)
        weights = fitted.inverse @ (rows * fitted.own)
        mean = self._prior + weights.T @ fitted.away
        yield self._with(mean)
        covariance = np.diag(fitted.own) - (rows * fitted.own).T @ weights
        for _ in range(drawn):
            yield self._with(rng.multivariate_normal(mean, covariance, method="eigh"))

    def _with(self, losses: Floats) -> Table:
        noises = [replace(noise, loss=float(own)) for noise, own in zip(self.table.noises, losses, strict=True)]
        return replace(self.table, noises=tuple(noises))


def verified(
    table: Table, loss_of: Callable[[Precisions], float], *, most: int = MOST, seed: int = 0
) -> dict[Precisions, float]:
    """Measured losses of at most ``most`` plans, in the order in which ``loss_of`` was asked for them: the same for the same
    answers."""
    own = front(table)
    places = np.unique(np.linspace(0, len(own) - 1, min(FIRST, most)).round().astype(int))
    found = {own[place].precisions: loss_of(own[place].precisions) for place in places}
    rng = np.random.default_rng(seed)
    while len(found) < most:
        plan = _next(table, found, rng)
        if plan is None:
            break
        found[plan.precisions] = loss_of(plan.precisions)
    return found


def _next(table: Table, found: dict[Precisions, float], rng: np.random.Generator) -> Plan | None:
    """The plan of the fronts that may be, with the largest expected improvement; None when all plans are verified."""
    believed = Believed(table, tuple(found), np.array(list(found.values())))
    tables = list(believed.tables(rng, DRAWS))
    asked = [plan.precisions for item in tables for plan in front(item, SHARES)]
    asked += [near for precisions in found for near in _beside(table, precisions)]
    plans = {precisions: table.plan(precisions) for precisions in asked if precisions not in found}
    if not plans:
        return solve(tables[0], without=[table.plan(precisions) for precisions in found])
    listed = list(plans.values())
    mean, spread = believed.predict(list(plans))
    known = np.array([[loss, table.plan(precisions).time_ns] for precisions, loss in found.items()])
    reference = known.max(axis=0) + _MARGIN * np.ptp(known, axis=0) + 1e-12
    times = np.array([plan.time_ns for plan in listed])
    means, spreads = np.column_stack([mean, times]), np.column_stack([spread, np.zeros(len(times))])
    gains = expected_improvement(*_scaled(means, spreads, known, reference))
    return listed[int(np.argmax(gains))]


def _beside(table: Table, precisions: Precisions) -> Iterator[Precisions]:
    """Plans in which one group has another precision."""
    for place, group in enumerate(table.groups):
        for other in group.costs:
            yield (*precisions[:place], other, *precisions[place + 1 :])


def _apart(plans: Sequence[Precisions], others: Sequence[Precisions]) -> Floats:
    """In how many groups they differ: shape (plans, others)."""
    return np.array([[sum(map(str.__ne__, one, other)) for other in others] for one in plans], dtype=np.float64)


def _scaled(means: Floats, spreads: Floats, known: Floats, reference: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """In parts of what the verified plans span, so that neither objective's unit counts."""
    unit = np.where(np.ptp(known, axis=0) > 0, np.ptp(known, axis=0), 1.0)
    low = known.min(axis=0)
    return (means - low) / unit, spreads / unit, (known - low) / unit, (reference - low) / unit
