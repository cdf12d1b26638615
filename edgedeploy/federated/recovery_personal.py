"""A site's own copy of the recovered network: kept only where it is shown to be better at that site.

Better means: the one-sided 95 % lower bound of the mean paired difference over the site's held-out cases is above zero
(:mod:`edgedeploy.evidence.noninferiority`: the lower of Student's t and the bootstrap, over patients where they are known).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from edgedeploy.errors import DataError
from edgedeploy.evidence.bootstrap import drawn_units, resampled_means
from edgedeploy.evidence.noninferiority import LEVEL, MIN_UNITS, Differences, group_means

Floats = npt.NDArray[np.float64]

SEED: Final = 0


@dataclass(frozen=True)
class Personal:
    """Whether a site's own copy is kept: ``gain`` is the mean difference over ``cases``, own minus shared, and ``lower`` its
    bound at ``level``; None for too few cases, which show nothing."""

    kept: bool
    gain: float
    lower: float | None
    cases: int
    level: float = LEVEL


def judge_personal(own: Sequence[float], shared: Sequence[float], groups: Sequence[int] | None = None) -> Personal:
    """``own`` and ``shared`` are a metric of the same held-out cases, larger is better; ``groups`` says which of them belong
    to one patient. Raises ``DataError`` for values that are not paired, or no numbers."""
    if len(own) != len(shared) or not own or (groups is not None and len(groups) != len(own)):
        found = f"{len(own)} values of its own copy, {len(shared)} of the shared one"
        raise DataError("the comparison at a site", found, "Score both on the same cases")
    gains = np.asarray(own, np.float64) - np.asarray(shared, np.float64)
    if not np.all(np.isfinite(gains)):
        raise DataError("the comparison at a site", "a value is no number", "Leave out cases without the metric")
    units = gains if groups is None else group_means(gains, groups)
    gain = float(gains.mean())
    if units.size < MIN_UNITS:
        return Personal(False, gain, None, gains.size)
    draws = resampled_means(units, drawn_units(SEED, units.size))
    differences = Differences.of_cases(gains, draws, groups)
    assert differences is not None
    lower = differences.lower(LEVEL)
    return Personal(lower > 0, gain, lower, gains.size)
