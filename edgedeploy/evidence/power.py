"""What a number of cases can prove: the margin, the cases and the power of a test for non-inferiority.

The test is the one that picks are made by: a one-sided Student's t on paired differences between a variant and the
baseline, of cases, or of the means of groups where cases belong together. Its power is exact for normal differences
(noncentral t; Owen 1965, Biometrika 52, 437); as a rule of thumb a loss is bounded at 80 % power by
2.49 sd / sqrt(n), and at 90 % by 2.93 sd / sqrt(n). Accuracy seldom is normal: heavy tails cost more, and a few cases that
break are seen by no bound on a mean. A metric that is 0 or 1 in each case (``yes_or_no``) is held to an exact bound as well
while few cases change, as picks are (:mod:`.noninferiority`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from edgedeploy.evidence.noninferiority import LEVEL, MANY_CHANGED, share_upper, t_quantile, units_wanted_at

POWERS: Final = (0.8, 0.9)
"""The chances to be shown non-inferior that are stated."""

MOST_CASES: Final = 10_000_000
"""No study has more: beyond it a margin counts as not provable."""


def provable_margin(
    cases: int,
    sd: float,
    *,
    power: float = POWERS[0],
    true_loss: float = 0.0,
    level: float = LEVEL,
    yes_or_no: bool = False,
) -> float | None:
    """The smallest margin that a variant with this ``true_loss`` is shown to keep with the chance ``power``. ``sd`` is the
    standard deviation of the paired differences, in the metric's unit as the margin. None for fewer than two cases."""
    _check_sd(sd)
    if cases < 2:
        return None
    by_t = true_loss + _noncentrality(cases, power, level) * sd / math.sqrt(cases)
    if not yes_or_no or _many_change(cases, sd, true_loss):
        return by_t
    return max(by_t, share_upper(math.ceil(true_loss * cases), cases, level))


def power_of(cases: int, sd: float, margin: float, *, true_loss: float = 0.0, level: float = LEVEL) -> float:
    """The chance that a variant with this ``true_loss`` is shown to lose no more than ``margin``; 0 for fewer than two
    cases."""
    from scipy.special import nctdtr

    _check_sd(sd)
    if cases < 2:
        return 0.0
    if sd == 0:
        return float(true_loss <= margin)
    shift = (margin - true_loss) * math.sqrt(cases) / sd
    return 1.0 - float(nctdtr(cases - 1, shift, t_quantile(cases - 1, level)))


def cases_needed(
    margin: float,
    sd: float,
    *,
    power: float = POWERS[0],
    true_loss: float = 0.0,
    level: float = LEVEL,
    yes_or_no: bool = False,
) -> int | None:
    """The fewest cases that show a variant with this ``true_loss`` to keep ``margin`` with the chance ``power``. None when
    no number of cases does, because the loss is as large as the margin or nearly."""
    _check_sd(sd)
    if margin <= true_loss:
        return None
    least, most = 2, 2
    while not _proves(most, margin, sd, power, true_loss, level):
        least, most = most + 1, most * 2
        if most > MOST_CASES:
            return None
    while least < most:
        middle = (least + most) // 2
        if _proves(middle, margin, sd, power, true_loss, level):
            most = middle
        else:
            least = middle + 1
    if not yes_or_no or _many_change(most, sd, true_loss):
        return most
    exact = units_wanted_at(true_loss, margin, level)
    return None if exact is None else max(most, exact)


def design_effect(group_size: float, icc: float) -> float:
    """How many times as many cases are needed because ``group_size`` of them are of one group and resemble each other;
    ``icc`` is the intraclass correlation of the paired differences, 0 to 1 (Kish 1965)."""
    if not 0.0 <= icc <= 1.0 or group_size < 1:
        raise ValueError(f"0 <= icc <= 1 and group_size >= 1 must hold, but got {icc} and {group_size}")
    return 1.0 + (group_size - 1.0) * icc


def sd_of_group_means(sd: float, group_size: float, icc: float) -> float:
    """Standard deviation of the means of groups of ``group_size`` cases whose differences have ``sd`` and ``icc``."""
    _check_sd(sd)
    return sd * math.sqrt(design_effect(group_size, icc) / group_size)


def intraclass_correlation(values: Sequence[float], groups: Sequence[int]) -> float | None:
    """ICC(1) of ``values`` in ``groups`` by one-way analysis of variance, 0 at least; None where no group has two values,
    or there is one group. Groups of unequal size count by n0 (Donner & Koval 1980, Biometrics 36, 19)."""
    import numpy as np

    found = np.asarray(values, dtype=np.float64)
    _, owner = np.unique(np.asarray(groups), return_inverse=True)
    sizes = np.bincount(owner).astype(np.float64)
    if sizes.size < 2 or found.size == sizes.size:
        return None
    means = np.bincount(owner, weights=found) / sizes
    between = float((sizes * (means - found.mean()) ** 2).sum()) / (sizes.size - 1)
    within = float(((found - means[owner]) ** 2).sum()) / (found.size - sizes.size)
    typical = (found.size - float((sizes**2).sum()) / found.size) / (sizes.size - 1)
    total = between + (typical - 1) * within
    return max(0.0, (between - within) / total) if total > 0 else 0.0


def _many_change(cases: int, sd: float, true_loss: float) -> bool:
    """Whether as many cases are expected to change as t is taken to hold from: a difference of yes or no is -1, 0 or 1, so
    the share of cases that change is its mean square."""
    return cases * (sd**2 + true_loss**2) >= MANY_CHANGED


def _proves(cases: int, margin: float, sd: float, power: float, true_loss: float, level: float) -> bool:
    found = provable_margin(cases, sd, power=power, true_loss=true_loss, level=level)
    return found is not None and found <= margin


def _noncentrality(cases: int, power: float, level: float) -> float:
    """By how many standard errors the true difference has to be away from the margin."""
    from scipy.special import nctdtrinc

    if not (0.0 < power < 1.0 and 0.5 < level < 1.0):
        raise ValueError(f"0 < power < 1 and 0.5 < level < 1 must hold, but got {power} and {level}")
    return float(nctdtrinc(cases - 1, 1.0 - power, t_quantile(cases - 1, level)))


def _check_sd(sd: float) -> None:
    if not (math.isfinite(sd) and sd >= 0):
        raise ValueError(f"a standard deviation is finite and not negative, but got {sd}")
