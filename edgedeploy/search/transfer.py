"""Times on a new board, predicted from those on another one and from a few probes.

The logarithm of the new time is a line in the other board's and in the logarithms of static figures (ridge regression, which
begins at "in proportion to the other board's"), and a Gaussian process over the parameters on what the line leaves. Its own
deviations guide a search; people are shown intervals of :mod:`edgedeploy.search.conformal` alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgedeploy.search.conformal import half_width, split
from edgedeploy.search.surrogate import Features, Process, fit

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

PULL_TO_SOURCE: Final = 0.1
PULL_TO_NOTHING: Final = 1.0
"""How strongly the slope of the other board's time is pulled to 1, and those of static figures to 0: in probes."""

FEWEST_FOR_PROCESS: Final = 3
"""With fewer probes the line alone predicts."""

LEAST_DEVIATION: Final = 0.03
FIRST_DEVIATION: Final = 0.1
"""Of a prediction, in standard deviations of the other board's logarithms: at least, and where the line alone predicts."""


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
        design = np.column_stack([np.ones(len(self.source)), _standard(self.source), _standards(self.statics)])
        targets = seen / unit
        line = _ridge(design, rows, targets)
        left = targets - line[rows]
        if len(rows) < FEWEST_FOR_PROCESS or float(left.std()) < 1e-9:
            deviation = max(float(np.sqrt(np.square(left).sum() / max(1, len(rows) - 2))), FIRST_DEVIATION)
            return line * unit, np.full(len(line), deviation * unit)
        exactly = np.zeros(len(rows))
        process = Process(self.features, rows, left, exactly, fit(self.features, rows, left, exactly))
        mean, spread = process.predict()
        return (line + mean) * unit, np.maximum(spread, LEAST_DEVIATION) * unit

    def with_interval(self, rows: Rows, seen: Floats, seed: int = 0) -> tuple[Floats, float | None]:
        """Predicted logarithms of every variant, and the half-width of their interval (nominal 90 %): of those that the
        samples which gave the interval have not seen. None below 20 samples, where all of them make the prediction."""
        parts = split(len(rows), seed)
        if parts is None:
            return self.predict(rows, seen)[0], None
        mean, _ = self.predict(rows[parts.learning], seen[parts.learning])
        return mean, half_width(seen[parts.errors] - mean[rows[parts.errors]])


def _ridge(design: Floats, rows: Rows, targets: Floats) -> Floats:
    """The line at every variant. Its first column is the constant, which nothing pulls; the second the source's."""
    before = np.zeros(design.shape[1])
    before[1] = 1.0
    pulls = [1e-6, PULL_TO_SOURCE, *[PULL_TO_NOTHING] * (design.shape[1] - 2)]
    some = design[rows]
    away = np.linalg.solve(some.T @ some + np.diag(pulls), some.T @ (targets - some @ before))
    return np.asarray(design @ (before + away))


def _standard(values: Floats) -> Floats:
    deviation = float(values.std())
    return np.asarray((values - values.mean()) / (deviation if deviation > 1e-12 else 1.0))


def _standards(statics: Floats) -> Any:
    """Columns with one value or with missing ones say nothing and become zero."""
    return np.where(np.isfinite(statics).all(axis=0), np.apply_along_axis(_standard, 0, statics), 0.0)
