"""Where each case stands among those of the other side: what an AUROC is the mean of, as it is kept with a measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Placements:
    """By case id. ``positive``: the share of negatives that a positive case is ranked above; ``negative``: the share of
    positives that are ranked above a negative one; ties count half. The mean of either is the AUROC (DeLong et al. 1988's
    structural components)."""

    positive: Mapping[str, float]
    negative: Mapping[str, float]

    def __post_init__(self) -> None:
        for side in (self.positive, self.negative):
            for case, share in side.items():
                if not 0.0 <= share <= 1.0:
                    raise ValueError(f"placements are shares, 0 to 1, but case {case} has {share}")
