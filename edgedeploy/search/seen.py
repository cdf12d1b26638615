"""What a search has seen of its objectives, and what of it a surrogate learns from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgedeploy.search.scales import Scale, scale_of

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

_FAR: Final = 0.25
"""How far before all that is of use a value is an outlier: as a share of the range of what is of use."""


@dataclass(frozen=True)
class Observations:
    """For one surrogate: ``targets``, small ones better, with their ``variances``, at candidates' ``rows``; shape (n,)."""

    rows: Rows
    targets: Floats
    variances: Floats

    def at_most(self, most: int) -> Observations:
        """The better half of them the best, the others evenly over the history."""
        if len(self.rows) <= most:
            return self
        best = np.argsort(self.targets, kind="stable")[: most // 2]
        rest = np.setdiff1d(np.arange(len(self.rows)), best)
        evenly = rest[np.linspace(0, len(rest) - 1, most - len(best)).astype(np.intp)]
        some = np.sort(np.concatenate([best, evenly]))
        return Observations(self.rows[some], self.targets[some], self.variances[some])


@dataclass(frozen=True)
class Seen:
    """Scored candidates in the order in which they were told: their ``rows``, shape (n,), their ``values`` in the
    objectives' units and the variances of these, shape (n, objectives). ``signs`` are -1 where larger values are better."""

    rows: Rows
    values: Floats
    variances: Floats
    signs: Floats

    def first(self, count: int) -> Seen:
        return Seen(self.rows[:count], self.values[:count], self.variances[:count], self.signs)

    def scale(self, index: int) -> Scale:
        return scale_of(self.values[:, index], self.signs[index])

    def useless(self, index: int) -> NDArray[np.bool_]:
        """Whether each value of the objective is so bad that no other one makes the candidate worth anything."""
        scale, values = self.scale(index), self.values[:, index]
        return np.asarray(scale.of(values) > scale.worst_of_use(values))

    def observations(self, index: int) -> Observations:
        """Of one objective, on its scale. A network that computes nothing may take a thousandth of the time of any that
        does; such outliers of no use are left out, because a model that bends to them says little of all others."""
        scale, values = self.scale(index), self.values[:, index]
        targets = scale.of(values)
        kept = np.ones(len(targets), dtype=bool)
        if scale.logarithmic:
            others = [self.useless(other) for other in range(len(self.signs)) if other != index]
            kept = ~np.any(others, axis=0) if others else kept
            of_use = targets[kept] if kept.any() else targets
            kept |= targets >= of_use.min() - _FAR * np.ptp(of_use)
        variances = scale.variance(self.variances[:, index], values)
        return Observations(self.rows[kept], targets[kept], variances[kept])
