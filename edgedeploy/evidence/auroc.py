"""How sure a difference of two AUROCs on the same cases is: DeLong's paired variance, and Obuchowski's where cases belong
together.

Without groups the second is the first. DeLong, DeLong & Clarke-Pearson 1988 (Biometrics 44, 837); placements by mid-ranks as
in Sun & Xu 2014 (IEEE Signal Process. Lett. 21, 1389); Obuchowski 1997 (Biometrics 53, 567).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgedeploy.evidence.noninferiority import MIN_UNITS
from edgedeploy.records.placements import Placements

Floats = npt.NDArray[np.float64]


def placements(sides: Sequence[bool], scores: Sequence[float], ids: Sequence[str]) -> Placements | None:
    """Of the cases with these ``ids``: ``sides`` are True for positives. None without cases of both kinds."""
    from scipy.stats import rankdata

    positive, values = np.asarray(sides, dtype=bool), np.asarray(scores, dtype=np.float64)
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return None
    ranks = rankdata(values)
    above = (ranks[positive] - rankdata(values[positive])) / negatives
    below = 1.0 - (ranks[~positive] - rankdata(values[~positive])) / positives
    names = np.asarray(ids, dtype=object)
    return Placements(
        dict(zip(names[positive].tolist(), above.tolist(), strict=True)),
        dict(zip(names[~positive].tolist(), below.tolist(), strict=True)),
    )


def auroc_of(found: Placements) -> float:
    return math.fsum(found.positive.values()) / len(found.positive)


def difference_error(
    ours: Placements, theirs: Placements, groups: Mapping[str, int] | None = None
) -> tuple[float, int] | None:
    """Standard error of the difference of two AUROCs, and its degrees of freedom (Welch-Satterthwaite over both sides; with
    ``groups``, which have to name every case, at most their number less one). None when the cases differ, or either side
    has fewer than ``MIN_UNITS`` cases or groups."""
    if ours.positive.keys() != theirs.positive.keys() or ours.negative.keys() != theirs.negative.keys():
        return None
    pairs = ((ours.positive, theirs.positive), (ours.negative, theirs.negative))
    sums = [_sums(mine, _shares(mine, other), groups or {}) for mine, other in pairs]
    counts = [len(side) for side in sums]
    if min(counts) < MIN_UNITS:
        return None
    parts = [count / (count - 1) * sum(v * v for v in side.values()) for count, side in zip(counts, sums, strict=True)]
    everyone = len({*sums[0], *sums[1]})
    both = sum(value * sums[1].get(owner, 0.0) for owner, value in sums[0].items())
    variance = max(0.0, sum(parts) + 2 * everyone / (everyone - 1) * both)
    return math.sqrt(variance), min(_welch(parts, counts), everyone - 1)


def _shares(mine: Mapping[str, float], other: Mapping[str, float]) -> list[float]:
    """What each case adds to the difference of the AUROCs, about their mean; in the order of ``mine``."""
    gains = np.array([value - other[case] for case, value in mine.items()])
    shares: list[float] = ((gains - gains.mean()) / gains.size).tolist()
    return shares


def _sums(cases: Iterable[str], shares: Iterable[float], groups: Mapping[str, int]) -> dict[str | int, float]:
    """Of each group, or of each case that is in none."""
    found: dict[str | int, float] = {}
    for case, share in zip(cases, shares, strict=True):
        owner = groups.get(case, case)
        found[owner] = found.get(owner, 0.0) + share
    return found


def _welch(parts: Sequence[float], counts: Sequence[int]) -> int:
    below = sum(part**2 / (count - 1) for part, count in zip(parts, counts, strict=True))
    return max(1, math.floor(sum(parts) ** 2 / below + 1e-9)) if below > 0 else sum(counts) - 2
