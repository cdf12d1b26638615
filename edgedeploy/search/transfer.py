"""Times on a new board, predicted from those on another one and from a few probes.

The logarithm of the new time is a line in the other board's and in the logarithms of static figures, which begins at "in
proportion to the other board's", and a smooth function of what variants are made of on what the line leaves. Both are one
Gaussian process (Rasmussen and Williams, Gaussian Processes for Machine Learning, section 2.7), so that its deviations
count that a handful of probes leave the line open too: those of a function fitted to what a fitted line left were 2.4 to 6
times too small (docs/reference/search.md). They guide a search; people are shown intervals of
:mod:`edgedeploy.search.conformal` alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgedeploy.search.conformal import half_width, split
from edgedeploy.search.surrogate import Features

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

PULL_TO_SOURCE: Final = 0.1
PULL_TO_NOTHING: Final = 1.0
"""How strongly the slope of the other board's time is pulled to 1, and those of static figures to 0: in probes."""

LEVEL: Final = 1e4
"""Variance of how much faster or slower the whole board is: nothing is known of that."""

BY_PARAMETER: Final = 0.3
BY_FIGURES: Final = 0.6
OWN: Final = 0.1
"""Of what the line leaves of a time, the shares that parameters explain one by one, that figures and counts explain
together, and that is each variant's own. They are not fitted: a handful of probes cannot tell."""

FIRST_DEVIATION: Final = 0.2
BELIEVED: Final = 2.0
"""What the line is first thought to leave, in standard deviations of the other board's logarithms, and how many probes it
takes to doubt that as much as to believe it."""

LEAST_DEVIATION: Final = 0.03
"""Of a prediction, in the same unit."""


@dataclass(frozen=True)
class Transfer:
    """Variants whose times another board has measured. ``source`` (variants,): logarithms of these times; ``statics``
    (variants, figures): logarithms too; ``features``: their parameters as a surrogate sees them."""

    source: Floats
    statics: Floats
    features: Features

    def predict(self, rows: Rows, seen: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the logarithm on the new board, of every variant; ``seen`` are the logarithms that
        were measured there at ``rows``, one at least."""
        unit = float(self.source.std()) or 1.0
        before = _standard(self.source)
        kernel, own = self._kernel(rows)
        lower = np.linalg.cholesky(kernel[rows] + own * np.eye(len(rows)))
        left = np.linalg.solve(lower, seen / unit - before[rows])
        turned = np.linalg.solve(lower, kernel.T)
        explained = np.square(turned).sum(axis=0)
        # the scale of all is open too (inverse gamma): the prediction is a Student's t, of which this is the scale
        scale = (BELIEVED * FIRST_DEVIATION**2 + float(left @ left)) / (BELIEVED + len(rows))
        variance = np.maximum(self._variance() - explained, 0.0) * scale
        return (before + turned.T @ left) * unit, np.maximum(np.sqrt(variance), LEAST_DEVIATION) * unit

    def with_interval(self, rows: Rows, seen: Floats, seed: int = 0) -> tuple[Floats, float | None]:
        """Predicted logarithms of every variant, and the half-width of their interval (nominal 90 %): of those that the
        samples which gave the interval have not seen. None below 20 samples, where all of them make the prediction."""
        parts = split(len(rows), seed)
        if parts is None:
            return self.predict(rows, seen)[0], None
        mean, _ = self.predict(rows[parts.learning], seen[parts.learning])
        return mean, half_width(seen[parts.errors] - mean[rows[parts.errors]])

    def _line(self) -> Floats:
        """Shape (variants, slopes), so that the covariance of the line's values is its product with its transpose."""
        slopes = np.column_stack([_standard(self.source), _standards(self.statics)])
        pulls = np.array([PULL_TO_SOURCE, *[PULL_TO_NOTHING] * (slopes.shape[1] - 1)])
        return np.asarray(slopes / np.sqrt(pulls))

    def _kernel(self, rows: Rows) -> tuple[Floats, float]:
        """The covariance of every variant with ``rows``, shape (variants, rows), in units of what the line leaves; and the
        variance that is each variant's own."""
        line, own = self._line(), OWN
        kernel = LEVEL + line @ line[rows].T
        codes, figures = self.features.codes, np.column_stack([self.features.statics, self.features.counts])
        if codes.shape[1]:
            kernel = kernel + BY_PARAMETER * np.mean(codes[:, None, :] == codes[rows], axis=2)
        else:
            own += BY_PARAMETER
        if figures.shape[1]:
            apart = np.square(figures[:, None, :] - figures[rows]).mean(axis=2)
            kernel = kernel + BY_FIGURES * np.exp(-0.5 * apart)
        else:
            own += BY_FIGURES
        return kernel, own

    def _variance(self) -> Floats:
        """Of every variant before anything is seen, in the same unit."""
        return np.asarray(LEVEL + np.square(self._line()).sum(axis=1) + BY_PARAMETER + BY_FIGURES + OWN)


def _standard(values: Floats) -> Floats:
    deviation = float(values.std())
    return np.asarray((values - values.mean()) / (deviation if deviation > 1e-12 else 1.0))


def _standards(statics: Floats) -> Any:
    """Columns with one value or with missing ones say nothing and become zero."""
    if not statics.shape[1]:
        return statics
    return np.where(np.isfinite(statics).all(axis=0), np.apply_along_axis(_standard, 0, statics), 0.0)
