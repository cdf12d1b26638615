"""The Gaussian processes of a search, one for each objective and each constraint, at every candidate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgedeploy.search.outcomes import Scored
from edgedeploy.search.scales import scale_of
from edgedeploy.search.seen import Observations
from edgedeploy.search.surrogate import Features, Floats, Process, fit

MOST_OBSERVATIONS: Final = 300
"""Observations of a surrogate, at most: the best, and the rest evenly over the history."""

MOST_FITTED: Final = 150
"""Observations that a kernel's settings are fitted to, at most."""

_DOUBT: Final = 2.0
"""How many times wider than predicted a value is taken to scatter before goals are given up: of a Gaussian process's own
90 % intervals on public tables, at worst 64 % held the value, which a spread 1.8 times as wide would mend."""


class Processes:
    """``features`` are those of all candidates, without the parameters that cannot change what is predicted."""

    def __init__(self, features: Callable[[frozenset[str]], Features]) -> None:
        self._features = features
        self._settings: dict[tuple[str, int], Floats] = {}

    def predicted(
        self,
        name: str,
        without: frozenset[str],
        observed: Callable[[int], Observations],
        count: int,
        pending: Sequence[int] = (),
    ) -> tuple[Floats, Floats]:
        """Mean and standard deviation at every candidate of what is called ``name``, after ``count`` of them were scored;
        ``observed`` says what was told of the first so many. What is under way is taken to be what it is predicted to be."""
        features = self._features(without)
        fitted = _fitted_at(count)
        if (name, fitted) not in self._settings:
            some = observed(fitted).at_most(MOST_FITTED)
            self._settings[name, fitted] = fit(features, some.rows, some.targets, some.variances)
        some = observed(count).at_most(MOST_OBSERVATIONS)
        process = Process(features, some.rows, some.targets, some.variances, self._settings[name, fitted])
        mean, spread = process.predict()
        return process.also(pending, mean[list(pending)]).predict() if len(pending) else (mean, spread)

    def meets(self, name: str, rows: NDArray[np.intp], outcomes: Sequence[Scored]) -> Floats:
        """Probability that a candidate meets the constraint."""
        from scipy.special import ndtr

        values = np.array([outcome.constraints.get(name, 0.0) for outcome in outcomes], dtype=float)

        def observed(count: int) -> Observations:
            targets = -scale_of(values[:count], -1.0).of(values[:count])
            return Observations(rows[:count], targets, np.zeros(count))

        mean, spread = self.predicted(f"constraint {name}", frozenset(), observed, len(values))
        limit = -float(scale_of(values, -1.0).of(np.zeros(1))[0])
        return np.asarray(ndtr((limit - mean) / spread), dtype=float)

    def hope(self, name: str, rows: NDArray[np.intp], outcomes: Sequence[Scored]) -> Floats:
        """Probability that a candidate meets a constraint that nobody met, by the logarithm of value over limit: where
        values span decades, differences near the limit are lost. The spread is taken to be wider than predicted."""
        from scipy.special import ndtr

        missed = np.log1p([max(0.0, outcome.constraints.get(name, 0.0)) for outcome in outcomes])

        def observed(count: int) -> Observations:
            return Observations(rows[:count], missed[:count], np.zeros(count))

        mean, spread = self.predicted(f"hope {name}", frozenset(), observed, len(missed))
        return np.asarray(ndtr(-mean / (_DOUBT * spread)), dtype=float)


def _fitted_at(count: int) -> int:
    """How many of ``count`` observations the settings are fitted to: all at first, later all that there were at the last
    round number."""
    step = 1 if count <= 30 else 5 if count <= 100 else 25
    return count // step * step
