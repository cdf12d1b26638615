"""On which scale an objective is modelled: smaller is better, and a bad tail takes no more room than it deserves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from edgedeploy.search.improvement import Below, Floats, below_exponential, below_lognormal, below_normal

_LEAST: Final = 1e-300

_SHARES: Final = (0.25, 0.5, 0.75)
"""Shares of all different values, from the best, whose width is looked at: neither a few that lie close together nor a few
that lie far apart say much."""

_OF_USE: Final = 0.5
"""Share of the way from the best to the worst value seen that is of use."""

_TAIL: Final = 4.0
"""Units beyond the knee that are of use, too, unless a gap lies before them."""

_GAP: Final = 1 / 3
_BEHIND_GAP: Final = 3
"""So many values behind a gap of that share of the range are at chance level, however far apart the others lie."""


@dataclass(frozen=True)
class Scale:
    """``logarithmic``: of positive values to be made small. Else values worse than ``knee`` count by the logarithm of how
    far they lie beyond it, in units of ``unit``; the order of values stays."""

    sign: float
    logarithmic: bool
    knee: float = 0.0
    unit: float = 1.0

    def of(self, values: Floats) -> Floats:
        """Values as they are modelled; NaN stays NaN."""
        if self.logarithmic:
            return np.log(np.maximum(values, _LEAST))
        signed = self.sign * values
        beyond = np.maximum(signed - self.knee, 0) / self.unit
        return np.asarray(np.minimum(signed, self.knee) + self.unit * np.log1p(beyond), dtype=float)

    def back(self, modelled: Floats) -> Floats:
        """The values that are modelled so: the inverse of :meth:`of`."""
        if self.logarithmic:
            return np.exp(modelled)
        beyond = np.expm1(np.maximum(modelled - self.knee, 0) / self.unit)
        return np.asarray(self.sign * (np.minimum(modelled, self.knee) + self.unit * beyond), dtype=float)

    def below(self, mean: Floats, spread: Floats, in_units: bool) -> Below:
        """Of what is modelled with this mean and spread: on the scale of :attr:`units`, or as it is modelled."""
        if not in_units or not (self.logarithmic or np.isfinite(self.knee)):
            return below_normal(mean, spread)
        if self.logarithmic:
            return below_lognormal(mean, spread)
        return below_exponential(mean, spread, self.knee, self.unit)

    @property
    def units(self) -> Scale:
        """The values themselves, small ones better."""
        return Scale(self.sign, False, np.inf)

    def worst_of_use(self, values: Floats) -> float:
        """As it is modelled, after ``values`` were seen: a network at chance level is of no use, however fast it is."""
        if self.logarithmic or np.isinf(self.knee):
            return np.inf
        signed = np.sort(self.sign * values)
        half = signed[0] + _OF_USE * np.ptp(signed)
        worst = max(half, self.knee + _TAIL * self.unit)
        gaps = (np.diff(signed) > _GAP * np.ptp(signed)) & (signed[1:] > half)
        before = np.flatnonzero(gaps[: max(len(gaps) + 1 - _BEHIND_GAP, 0)])
        if len(before):  # one more value among the others must not decide whether the rest is tried again and again
            worst = min(worst, max(half, float(signed[before[0]])))
        return float(self.of(self.sign * np.array([worst]))[0])

    def variance(self, variances: Floats, values: Floats) -> Floats:
        """Variances of ``values`` as they are modelled, to first order."""
        if self.logarithmic:
            return np.asarray(variances / np.maximum(values, _LEAST) ** 2, dtype=float)
        beyond = np.maximum(self.sign * values - self.knee, 0) / self.unit
        return np.asarray(variances / (1 + beyond) ** 2, dtype=float)


def scale_of(values: Floats, sign: float) -> Scale:
    """For values that were seen; ``sign`` is -1 where larger ones are better.

    The unit is the median of the widths of the best quarter of all different values and of a quarter of more of them; the
    knee lies two units behind the best.
    """
    if sign > 0 and np.all(values > 0):
        return Scale(sign, True, np.inf)
    distinct = np.unique(sign * values)
    best = float(distinct[0])
    unit = float(np.median([_SHARES[0] / share * (np.quantile(distinct, share) - best) for share in _SHARES]))
    return Scale(sign, False, best + 2 * unit, unit) if unit > 0 else Scale(sign, False, np.inf, 1.0)
