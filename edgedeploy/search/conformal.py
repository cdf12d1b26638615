"""Intervals of predictions by split conformal prediction: they say how far predictions missed what was measured.

Samples are split in two: a predictor learns from one part, and its errors on the other part, which it has not seen, bound
its errors on what comes. Where all samples are exchangeable with what is predicted (probes drawn at random among the
variants in question), an interval from n errors holds the value with a probability between the nominal one and that plus
1 / (n + 1), whatever the predictor is (Vovk et al. 2005; Lei et al. 2018). A Gaussian process's own intervals promise
nothing of the kind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NOMINAL: Final = 0.9
FEWEST: Final = 20
"""Fewer samples give no interval: the largest of a handful of errors would bound it, which is wide and says little."""


@dataclass(frozen=True)
class Split:
    """Which samples a predictor learns from, and on which its errors are counted."""

    learning: NDArray[np.intp]
    errors: NDArray[np.intp]


def split(samples: int, seed: int, nominal: float = NOMINAL) -> Split | None:
    """A random split of so many samples; None when they are fewer than :data:`FEWEST`.

    At most half of them count errors, and as many as make the promise exact: the ``nominal`` quantile of n errors is one of
    them where (n + 1) x ``nominal`` is whole.
    """
    if samples < FEWEST:
        return None
    step = round(1 / (1 - nominal))
    errors = samples // 2 // step * step - 1 if samples // 2 >= step else samples // 2
    order = np.random.default_rng([seed, samples]).permutation(samples)
    return Split(np.sort(order[errors:]), np.sort(order[:errors]))


def half_width(errors: Floats, nominal: float = NOMINAL) -> float:
    """How far a value may lie from its prediction: the smallest bound that ``nominal`` of n + 1 such errors keep; infinite
    when there are too few errors for any."""
    rank = math.ceil((len(errors) + 1) * nominal - 1e-9)
    if rank > len(errors):
        return math.inf
    return float(np.sort(np.abs(np.asarray(errors, dtype=np.float64)))[rank - 1])


def interval(value: Any, width: float) -> tuple[float, float]:
    """The interval around a prediction of a positive quantity whose errors are those of its logarithm."""
    return float(value) * math.exp(-width), float(value) * math.exp(width)
