"""P(on front): in how many of the bootstrap's draws a variant is on the front.

Each draw takes other cases and other blocks of queries of those that were measured, the same cases for every variant, and so
has a front of its own. What no draw takes anew is as it was measured: sizes, and which variants meet the limits.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgedeploy.evidence.bootstrap import MIN_UNITS, Resampler, drawn_units
from edgedeploy.evidence.statistics import Floats
from edgedeploy.records.goals import Objective
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metric_table import BOARD_METRICS

_AT_ONCE: Final = 32
"""Rivals that are held against a variant at once."""


def chances_on_front(
    feasible: Sequence[Measurement],
    wanted: Collection[str],
    objectives: Sequence[Objective],
    resampler: Resampler,
    *,
    of_times: bool = False,
) -> dict[str, float]:
    """By digest, the share of draws in which none of ``feasible`` dominates the variant. ``feasible`` has the ``wanted``
    digests, is of one provenance, and has a value for every objective.

    With ``of_times`` the cases are held: what is left is what another run could settle. A variant whose value of some
    objective cannot be drawn has no share; beside others it keeps that value in every draw.
    """
    if not wanted:
        return {}
    drawn = [_drawn(feasible, goal.metric, resampler, of_times) for goal in objectives]
    goals = list(zip(objectives, drawn, strict=True))
    gains = [
        [
            goal.sign * (np.array([item.metrics[goal.metric]]) if values is None else values)
            for goal, values in ((goal, column[row]) for goal, column in goals)
        ]
        for row, item in enumerate(feasible)
    ]
    low, high = _bounds(gains)
    kept = _ever_on_front(gains, low, high)
    draws = _Draws([gains[row] for row in kept], low[kept], high[kept], resampler.resamples)
    places = {row: place for place, row in enumerate(kept.tolist())}
    return {
        item.digest: draws.share_undominated(places[row]) if row in places else 0.0
        for row, item in enumerate(feasible)
        if item.digest in wanted and all(column[row] is not None for column in drawn)
    }


class _Draws:
    """Of each variant its rank among all in each draw, by objective; more is better, and equals have one rank. Whole numbers
    of 16 bits are compared many times faster than the values."""

    def __init__(self, gains: Sequence[Sequence[Floats]], low: Floats, high: Floats, resamples: int) -> None:
        self._low, self._high = low, high
        self._ranks = [
            _ranks(np.stack([np.broadcast_to(values, resamples) for values in column]))
            for column in zip(*gains, strict=True)
        ]
        self._sums: NDArray[np.int32] = np.stack(self._ranks).sum(axis=0, dtype=np.int32)
        self._best_first = np.argsort(-self._sums.sum(axis=1), kind="stable")

    def share_undominated(self, row: int) -> float:
        """Over the draws in which the variant has every value. Rivals are asked a few at a time, only for what is left."""
        could = (self._high >= self._low[row]).all(axis=1)
        rivals = self._best_first[could[self._best_first]]
        defined = np.flatnonzero(np.logical_and.reduce([ranks[row] >= 0 for ranks in self._ranks]))
        left = defined
        for start in range(0, len(rivals), _AT_ONCE):
            here = np.ix_(rivals[start : start + _AT_ONCE], left)
            dominates = self._sums[here] > self._sums[row, left]  # and nowhere below it: better somewhere
            for ranks in self._ranks:
                dominates &= ranks[here] >= ranks[row, left]
            left = left[~dominates.any(axis=0)]
        return len(left) / len(defined)


def _ranks(values: Floats) -> NDArray[np.signedinteger]:
    """Dense ranks within each draw, worst first; -1 for a value that a draw left undefined. Shape (variants, draws)."""
    kind = np.int16 if len(values) <= np.iinfo(np.int16).max else np.int32
    order = np.argsort(values, axis=0, kind="stable")
    ordered = np.take_along_axis(values, order, axis=0)
    above = np.zeros(values.shape, kind)
    np.cumsum(ordered[1:] > ordered[:-1], axis=0, out=above[1:])
    ranks = np.empty_like(above)
    np.put_along_axis(ranks, order, above, axis=0)
    ranks[np.isnan(values)] = -1
    return ranks


def _bounds(gains: Sequence[Sequence[Floats]]) -> tuple[Floats, Floats]:
    """The least and the largest of each variant's draws, by objective; shape (variants, objectives)."""
    low = np.array([[np.nanmin(values) for values in row] for row in gains])
    high = np.array([[np.nanmax(values) for values in row] for row in gains])
    return low, high


def _ever_on_front(gains: Sequence[Sequence[Floats]], low: Floats, high: Floats) -> NDArray[np.intp]:
    """Without the variants whose best draws are worse than another one's worst: these are dominated in all of them, and
    what they dominate, that other one does too."""
    whole = np.array([[not np.isnan(values).any() for values in row] for row in gains])
    worst = np.where(whole, low, -np.inf)
    beaten = [bool(((worst >= best).all(axis=1) & (worst > best).any(axis=1)).any()) for best in high]
    return np.flatnonzero(~np.array(beaten))


def _drawn(items: Sequence[Measurement], metric: str, resampler: Resampler, of_times: bool) -> list[Floats | None]:
    """The draws of each measurement, shape (resamples,), or (1,) for a metric without a spread, or with one that is held;
    None for too few units."""
    row = BOARD_METRICS.get(metric)
    if (row is None and of_times) or (row is not None and not row.source.has_spread):
        return [np.array([item.metrics[metric]]) for item in items]
    if row is None and not any(metric in item.draws for item in items):
        return _drawn_cases(items, metric, resampler)
    found = []
    for item in items:
        draws = resampler.draws_of(item, metric)
        if draws is not None and metric in item.draws:  # with those that it leaves undefined: draws stay in pairs
            draws = np.resize(item.draws[metric].values, resampler.resamples)
        found.append(draws)
    return found


def _drawn_cases(items: Sequence[Measurement], metric: str, resampler: Resampler) -> list[Floats | None]:
    """Means over the cases of each draw in which the metric is defined. All variants share the draws, also those whose
    metric is defined for other cases: their undefined ones are left out."""
    defined = [resampler.values_of(item, metric)[0] for item in items]
    cases = sorted({case for by_case in defined for case in by_case})
    groups = {case: group for item in items for case, group in item.groups.items()}
    whole = all(case in groups for case in cases)
    _, owners = np.unique([groups[case] for case in cases] if whole else range(len(cases)), return_inverse=True)
    units = int(owners.max()) + 1 if cases else 0
    owner = dict(zip(cases, owners.tolist(), strict=True))
    found: list[Floats | None] = []
    for item, by_case in zip(items, defined, strict=True):
        draws = resampler.draws_of(item, metric)
        if draws is not None and len(by_case) < len(cases) and units >= MIN_UNITS:
            at = np.array([owner[case] for case in by_case])
            sums = np.bincount(at, weights=list(by_case.values()), minlength=units)
            places = drawn_units(resampler.seed, units, resampler.resamples)
            with np.errstate(invalid="ignore"):
                draws = sums[places].sum(axis=1) / np.bincount(at, minlength=units)[places].sum(axis=1)
        found.append(draws)
    return found
