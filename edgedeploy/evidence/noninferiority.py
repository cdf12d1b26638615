"""Whether a variant loses no more than is allowed: bounds and p-values of paired differences, and of lost cases.

Pure functions over arrays. A difference is new minus baseline of one case, signed so that more is better.

- The mean is bounded below by the lower of two bounds. Student's t (Student 1908) over independent units: cases, or the
  means of whole groups where the task names groups (all images of a patient), which holds its level from five groups on
  where drawing groups does not (Cameron, Gelbach & Miller 2008, Rev. Econ. Stat. 90, 414). And the percentile of the
  bootstrap's draws (Efron & Tibshirani 1993, ch. 13), which sees a skew that t does not. Both hold: the level is at
  most that of either.
- No bound on a mean sees failures that the sample has few of, so the share of lost cases is bounded too: exactly, by
  Clopper & Pearson 1934 (Biometrika 26, 404). Where there are groups, a group is lost as soon as one of its cases is:
  cases of one patient are not independent.
- Of several variants that are compared at once, Holm's steps (Holm 1979, Scand. J. Stat. 6, 65) keep the chance that
  any is called non-inferior wrongly. A variant has to show each of its endpoints (intersection-union: Berger 1982,
  Technometrics 24, 295), so its p-value is the largest of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEVEL: Final = 0.95
"""Of one-sided bounds."""

MIN_UNITS: Final = 5
"""Fewer cases, or groups of them, say nothing about their own spread: no bound, no verdict."""

LOW_PERCENT: Final = 5.0
"""The percentile of the differences that stands beside their worst."""

MANY_CHANGED: Final = 10
"""Units of a metric of yes or no that change, from which on t and draws are taken to hold: a common rule of thumb for the
normal approximation of a share."""

_DECIDING: Final = 1_000_000
"""More cases than this are not asked for."""


@dataclass(frozen=True, eq=False)
class Differences:
    """Paired differences whose mean is in question. ``units`` are what is independent: cases, or means of groups; shape
    (units,). ``draws`` are means of resampled cases or groups, shape (draws,). ``cases`` counts the pairs.

    Of a metric of the whole split there is one difference, ``value``, and no units: their number is ``freedom`` + 1,
    and the spread of the draws stands for the standard error (Efron & Tibshirani 1993, ch. 12), or what is ``known`` of
    it: of an AUROC by its ranks (``evidence/auroc.py``).

    ``worse`` counts the units that lose something by a metric of yes or no of which few units change. Neither t nor draws
    know of failures that the sample has none of, so the share of units that lose is bounded exactly (Clopper & Pearson
    1934); one unit loses 1 at most, so no more than that share is lost on average.
    """

    value: float
    draws: Floats
    units: Floats | None
    freedom: int
    cases: int
    known: float | None = None
    worse: int | None = None

    @classmethod
    def of_cases(
        cls, gains: Floats, draws: Floats, groups: Sequence[int] | None = None, *, yes_or_no: bool = False
    ) -> Differences | None:
        """None for fewer than :data:`MIN_UNITS` cases or groups. ``yes_or_no``: the metric is 0 or 1 in every case."""
        units = group_means(gains, groups) if groups is not None else gains
        if units.size < MIN_UNITS:
            return None
        rare = yes_or_no and np.count_nonzero(units) < MANY_CHANGED
        worse = int(np.count_nonzero(units < 0)) if rare else None
        return cls(float(gains.mean()), draws, units, units.size - 1, gains.size, worse=worse)

    @cached_property
    def centre(self) -> float:
        """What t is about: the mean over units, which weighs groups alike."""
        return self.value if self.units is None else float(self.units.mean())

    @cached_property
    def error(self) -> float:
        """Standard error of :attr:`centre`."""
        if self.units is None:
            return float(self.draws.std(ddof=1)) if self.known is None else self.known
        return float(self.units.std(ddof=1)) / math.sqrt(self.units.size)

    @cached_property
    def _ordered(self) -> Floats:
        return np.sort(self.draws)

    def lower(self, level: float = LEVEL) -> float:
        """One-sided lower bound: the lower of Student's t and the percentile of the draws."""
        place = math.floor(_tail(level) * self._ordered.size)
        return min(self.centre - t_quantile(self.freedom, level) * self.error, float(self._ordered[place]))

    def strict_lower(self, level: float = LEVEL) -> float:
        """What a variant is held to: :meth:`lower`, or the exact bound where that is lower."""
        return self.lower(level) if self.worse is None else min(self.lower(level), -self._share_upper(level))

    def _share_upper(self, level: float) -> float:
        assert self.worse is not None
        return share_upper(self.worse, self.freedom + 1, level)

    def upper(self, level: float = LEVEL) -> float:
        """One-sided upper bound: the higher of the two."""
        place = self._ordered.size - 1 - math.floor(_tail(level) * self._ordered.size)
        return max(self.centre + t_quantile(self.freedom, level) * self.error, float(self._ordered[place]))

    def p_value(self, margin: float) -> float:
        """Of the hypothesis that more than ``margin`` is lost. No larger than 1 - level exactly where :meth:`strict_lower`
        of that level is at least ``-margin``."""
        below = int(np.searchsorted(self._ordered, -margin)) / self._ordered.size
        exact = 0.0 if self.worse is None else _at_most(self.worse, self.freedom + 1, margin)
        return max(below, exact, _t_tail(self.freedom, self.centre + margin, self.error))

    def cases_wanted(self, margin: float, level: float = LEVEL) -> int | None:
        """About how many cases would show a loss of at most ``margin`` if mean and spread stay as they are; None where
        more cases will not: the loss itself is larger."""
        if self.worse is not None and self.strict_lower(level) < self.lower(level):
            units = share_units_wanted(self.worse, self.freedom + 1, margin, level)
            return None if units is None else math.ceil(self.cases * units / (self.freedom + 1))
        room = min(self.value, self.centre) + margin
        if room <= 0:
            return None
        wanted = self.cases * ((self.value - self.lower(level)) / room) ** 2
        return max(self.cases, math.ceil(wanted)) if wanted < _DECIDING else None


def group_means(values: Floats, groups: Sequence[int]) -> Floats:
    """The mean of each group's values; shape (groups,)."""
    _, owners = np.unique(np.asarray(groups), return_inverse=True)
    return np.asarray(np.bincount(owners, weights=values) / np.bincount(owners))


@lru_cache(maxsize=4096)
def t_quantile(freedom: int, level: float) -> float:
    """Student's t: the value that a share ``level`` lies below."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, level))


def _t_tail(freedom: int, distance: float, error: float) -> float:
    """P-value of a mean that lies ``distance`` above what is tested."""
    from scipy.special import stdtr

    if error == 0:
        return 0.0 if distance >= 0 else 1.0
    return float(stdtr(freedom, -distance / error))


def _at_most(lost: int, units: int, share: float) -> float:
    """Probability of at most ``lost`` of ``units`` where ``share`` of all is lost."""
    from scipy.special import bdtr

    return float(bdtr(lost, units, min(share, 1.0)))


def _tail(level: float) -> float:
    return max(0.0, round(1 - level, 12))  # 1 - 0.95 is a little more than 0.05


@lru_cache(maxsize=4096)
def share_upper(lost: int, units: int, level: float = LEVEL) -> float:
    """Exact one-sided upper bound of a share of which ``lost`` of ``units`` were seen (Clopper & Pearson 1934)."""
    from scipy.special import betaincinv

    return 1.0 if lost >= units else float(betaincinv(lost + 1, units - lost, level))


def share_units_wanted(lost: int, units: int, share: float, level: float = LEVEL) -> int | None:
    """How many units would show a share of at most ``share``, if as large a part of them is lost; None where more will
    not."""
    return units_wanted_at(lost / units, share, level, units)


def units_wanted_at(rate: float, share: float, level: float = LEVEL, fewest: int = 1) -> int | None:
    """As :func:`share_units_wanted`, if the share ``rate`` of them is lost; ``fewest`` at least."""
    if rate >= share:
        return None
    for wanted in _growing(fewest):
        if share_upper(math.ceil(rate * wanted), wanted, level) <= share:
            return wanted
    return None


def _growing(start: int) -> Sequence[int]:
    """From ``start`` on: one by one at first, then by one in fifty."""
    found, count = [], start
    while count <= _DECIDING:
        found.append(count)
        count += max(1, count // 50) if count >= 500 else 1
    return found


def holm_levels(p_values: Mapping[str, float], level: float = LEVEL) -> dict[str, tuple[bool, float]]:
    """By name: whether it is shown at ``level`` for all of them together, and the level of the step that decided.

    The k-th smallest of n p-values is held against (1 - level) / (n - k + 1); the first that is larger ends it, and
    what is left is not shown at that step's level.
    """
    found: dict[str, tuple[bool, float]] = {}
    alive = True
    step = 1 - _tail(level)
    ordered = sorted(p_values, key=lambda name: (p_values[name], name))
    for place, name in enumerate(ordered):
        if alive:
            tail = _tail(level) / (len(ordered) - place)
            alive, step = p_values[name] <= tail, 1 - tail
        found[name] = (alive, step)
    return found


@dataclass(frozen=True)
class LostCases:
    """What single cases lose against the baseline, by ``metric`` in its base unit.

    ``lost`` are the ids of the cases that lose more than ``more_than``, or have no value where the baseline has one,
    worst first; of ``cases`` that were compared. ``units`` are what is independent: cases, or groups, of which
    ``units_lost`` hold a lost case; ``upper`` bounds the share of lost units. ``allowed`` is the share that may be
    lost, None: no case may be. ``worst_case`` has the largest loss; ``worst`` and ``low`` are the smallest difference
    and the 5th percentile of the differences, negative where something is lost. ``worst_group`` is the group whose mean
    difference is smallest, named by the first of its cases, with that mean and its number of cases; None without
    groups.
    """

    metric: str
    more_than: float
    allowed: float | None
    cases: int
    lost: tuple[str, ...]
    units: int
    units_lost: int
    upper: float
    worst_case: str
    worst: float
    low: float
    worst_group: tuple[str, float, int] | None = None

    @property
    def shown(self) -> bool:
        """No more cases are lost than may be."""
        return not self.lost if self.allowed is None else self.upper <= self.allowed

    @property
    def share(self) -> float:
        return len(self.lost) / self.cases

    def cases_wanted(self) -> int | None:
        """About how many cases would show it; None where more will not, as too many are lost already."""
        if self.allowed is None:
            return self.cases if not self.lost else None
        wanted = share_units_wanted(self.units_lost, self.units, self.allowed)
        return None if wanted is None else math.ceil(wanted * self.cases / self.units)

    def as_json(self) -> dict[str, object]:
        group = (
            None if self.worst_group is None else dict(zip(("case", "mean", "cases"), self.worst_group, strict=True))
        )
        return {
            "metric": self.metric,
            "more_than": self.more_than,
            "allowed": self.allowed,
            "cases": self.cases,
            "lost": list(self.lost),
            "units": self.units,
            "units_lost": self.units_lost,
            "upper": self.upper,
            "worst_case": self.worst_case,
            "worst": self.worst,
            "low": self.low,
            "worst_group": group,
            "shown": self.shown,
        }


def lost_cases(
    gains: Mapping[str, float],
    undefined: Sequence[str],
    *,
    metric: str,
    more_than: float,
    allowed: float | None,
    groups: Mapping[str, int] | None = None,
) -> LostCases | None:
    """``gains`` are differences by case; ``undefined`` the cases for which the baseline alone has a value. ``groups``
    counts where it has all of the cases. None where nothing can be compared."""
    if not gains:
        return None
    names = sorted(gains)
    values = np.array([gains[name] for name in names])
    by_loss = [names[place] for place in np.argsort(values, kind="stable")]
    limit = -more_than * (1 + 1e-9)  # a loss of just so much is not more, whatever the last bit says
    lost = (*sorted(undefined), *(name for name in by_loss if gains[name] < limit))
    everyone = [*names, *sorted(undefined)]
    grouped = bool(groups) and all(name in groups for name in everyone) if groups else False
    owner = {name: groups[name] for name in everyone} if groups and grouped else {name: name for name in everyone}
    units, units_lost = len(set(owner.values())), len({owner[name] for name in lost})
    return LostCases(
        metric=metric,
        more_than=more_than,
        allowed=allowed,
        cases=len(everyone),
        lost=lost,
        units=units,
        units_lost=units_lost,
        upper=share_upper(units_lost, units),
        worst_case=by_loss[0],
        worst=gains[by_loss[0]],
        low=float(np.percentile(values, LOW_PERCENT)),
        worst_group=_worst_group(names, values, [groups[name] for name in names]) if groups and grouped else None,
    )


def _worst_group(names: Sequence[str], values: Floats, groups: Sequence[int]) -> tuple[str, float, int]:
    kinds, firsts, owners = np.unique(np.asarray(groups), return_index=True, return_inverse=True)
    sizes = np.bincount(owners, minlength=kinds.size)
    means = np.bincount(owners, weights=values) / sizes
    worst = int(np.argmin(means))
    return names[int(firsts[worst])], float(means[worst]), int(sizes[worst])
