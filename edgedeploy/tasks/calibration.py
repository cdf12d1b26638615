"""How far a classifier's chances are to be believed, and the threshold at which it is used.

scikit-learn has Brier's score; a test holds ours to it.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Sides = npt.NDArray[np.bool_]


def brier(chances: Floats, truth: int) -> float:
    """Brier's score of one case: squared distance of its ``chances`` (classes,) from what is true. Halved for two classes,
    as scikit-learn does, so that it is that of the one chance, 0 to 1; 0 to 2 for more."""
    told = chances.copy()
    told[truth] -= 1.0
    total = float((told**2).sum())
    return total / 2 if chances.size == 2 else total


def calibration_error(confidences: Floats, right: Sides, bins: int) -> float:
    """Expected calibration error: over ``bins`` of equal width, the distance between mean confidence and share of right
    answers, weighed by cases (Guo et al. 2017, arXiv 1706.04599). Confidences (cases,) are those of the answers."""
    gaps = np.bincount(_bin_of(confidences, bins), weights=confidences - right, minlength=bins)
    return float(np.abs(gaps).sum() / confidences.size)


def chance_calibration_error(confidences: Floats, bins: int) -> float:
    """What :func:`calibration_error` is to be expected of a model whose every confidence is true, because so few cases lie
    in each bin: the mean distance of a sum of coins from its mean, by the normal distribution that has the same variance."""
    variances = np.bincount(_bin_of(confidences, bins), weights=confidences * (1 - confidences), minlength=bins)
    return float(np.sqrt(2 * variances / math.pi).sum() / confidences.size)


def threshold_for(specificity: float, sides: Sides, values: Floats) -> float:
    """The lowest threshold that at least ``specificity`` of the negatives are below, half-way to the next value, so that
    rounding on a board moves no case across it. ``sides`` (cases,) are True for positives, of whom there may be none."""
    negatives = np.sort(values[~sides])[::-1]
    allowed = math.floor((1 - specificity) * negatives.size + 1e-9)
    if allowed >= negatives.size:
        return -math.inf
    highest = float(negatives[allowed])
    above = values[values > highest]
    return math.nextafter(highest, math.inf) if above.size == 0 else (highest + float(above.min())) / 2


def _bin_of(confidences: Floats, bins: int) -> npt.NDArray[np.int64]:
    return np.minimum((confidences * bins).astype(np.int64), bins - 1)
