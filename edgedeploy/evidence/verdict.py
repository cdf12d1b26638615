"""Whether a candidate is faster than the baseline that ran beside it.

On a host that others use too, two medians of the same artifact differ by chance, and a look at which is smaller calls
half of all such pairs "faster". What is judged here is the ratio of adjacent blocks, which saw the same moments:
``latency_ratio``, resampled by whole ABBA rounds, because what disturbs a round disturbs all of its blocks. "Faster" is
said only when the one-sided bound clears a margin: two processes of one artifact lie differently in memory, and may
differ truly by a little. ``scripts/bench noise`` counts how often this is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np

from edgedeploy.evidence.bootstrap import RESAMPLES, TIME_LEVEL, Places, generator, resampled_medians
from edgedeploy.evidence.statistics import block_medians, pair_ratios
from edgedeploy.records.job import MeasurePlan, RawSide

MARGIN: Final = 0.01
"""Smallest share of the baseline's latency that two processes of the same artifact are not expected to differ by."""

MIN_ROUNDS: Final = 8
"""One side wins 8 rounds of 8 by chance once in 256; with a few less no outcome could reach the level."""

Word = Literal["faster", "slower", "no difference shown", "too few rounds"]


@dataclass(frozen=True)
class Verdict:
    """``ratio`` is the candidate's latency over the baseline's; ``low`` and ``high`` are its one-sided bounds, None when
    there are too few ``rounds``, each of two blocks of either side."""

    word: Word
    ratio: float
    low: float | None
    high: float | None
    rounds: int

    @property
    def text(self) -> str:
        """The word, and of too few rounds how many there were and have to be."""
        return f"{self.word}: {self.rounds} of {MIN_ROUNDS}" if self.low is None else self.word

    @property
    def not_shown(self) -> str:
        """What a reader of a pick may take for granted and this does not show; empty where it is faster."""
        if self.word == "faster":
            return ""
        why = ""
        if self.low is None:
            queries = 2 * MIN_ROUNDS * MeasurePlan.block
            why = (
                f" ({self.rounds} rounds; {MIN_ROUNDS} are needed: {queries} queries in blocks of {MeasurePlan.block})"
            )
        return f"that it is faster than the baseline beside it{why}"

    def as_json(self) -> dict[str, Any]:
        return {
            "word": self.word,
            "ratio": self.ratio,
            "low": self.low,
            "high": self.high,
            "rounds": self.rounds,
        }


@lru_cache(maxsize=8)
def _drawn_rounds(seed: int, rounds: int, resamples: int) -> Places:
    """The places of both ratios of each round that is drawn; shape (resamples, 2 * rounds)."""
    chosen = generator(seed, "verdict").integers(0, rounds, (resamples, rounds))
    return np.asarray(2 * chosen[:, :, None] + np.arange(2)).reshape(resamples, -1)


def latency_verdict(
    candidate: RawSide, baseline: RawSide, *, seed: int = 0, margin: float = MARGIN, resamples: int = RESAMPLES
) -> Verdict | None:
    """What the interleaved blocks of one run show; None when nothing was timed.

    Raises ``MeasurementError`` for values that no clock can give.
    """
    ratios = pair_ratios(block_medians(candidate), block_medians(baseline))
    if not ratios.size:
        return None
    ratio = float(np.median(ratios))
    rounds = ratios.size // 2
    if rounds < MIN_ROUNDS:
        return Verdict("too few rounds", ratio, None, None, rounds)
    draws = resampled_medians(ratios[: 2 * rounds], _drawn_rounds(seed, rounds, resamples))
    low, high = (float(bound) for bound in np.quantile(draws, [1 - TIME_LEVEL, TIME_LEVEL]))
    word: Word = "no difference shown"
    if high < 1 - margin:
        word = "faster"
    elif low > 1 + margin:
        word = "slower"
    return Verdict(word, ratio, low, high, rounds)
