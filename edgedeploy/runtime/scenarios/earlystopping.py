"""MLPerf LoadGen's early-stopping rule: how many queries a percentile needs, and its bound from given queries.

The rule (MLPerf inference rules, appendix on early stopping; ``loadgen/early_stopping.cc``): a system meets a latency
in ``percent`` % of its queries, at 99 % confidence, if a system that only just misses it would show so few slower
queries with a probability below 1 %. That probability is a binomial sum; the tolerance is zero, as in LoadGen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

CONFIDENCE = 0.99
"""LoadGen's confidence. The comparison is strict: the probability must be below ``1 - CONFIDENCE``."""

_NEGLIGIBLE = 1e-17


def chance_of_few(slow: int, queries: int, percent: float) -> float:
    """Probability of at most ``slow`` slow queries among ``queries``, each slow with probability ``1 - percent / 100``."""
    return binomial_cdf(slow, queries, 1 - percent / 100)


def binomial_cdf(count: int, trials: int, chance: float) -> float:
    """Probability of at most ``count`` hits in ``trials`` of probability ``chance``, 0 < ``chance`` < 1.

    Terms are summed from ``count`` down, each computed from the one before. Above the mean, where all of these terms
    may underflow, the result is one minus the upper tail.
    """
    if count < 0:
        return 0.0
    if count >= trials:
        return 1.0
    if count > trials * chance:
        return 1.0 - binomial_cdf(trials - count - 1, trials, 1 - chance)
    term = total = math.exp(
        math.lgamma(trials + 1)
        - math.lgamma(count + 1)
        - math.lgamma(trials - count + 1)
        + count * math.log(chance)
        + (trials - count) * math.log(1 - chance)
    )
    for hits in range(count, 0, -1):
        term *= hits / (trials - hits + 1) * (1 - chance) / chance
        total += term
        if term <= total * _NEGLIGIBLE:
            break
    return total


def slow_allowed(queries: int, percent: float) -> int:
    """How many of ``queries`` may be slow while the percentile is still met; -1 when even 0 slow queries are not
    enough."""
    low, high = -1, int(queries * (1 - percent / 100))
    while low < high:
        middle = (low + high + 1) // 2
        if chance_of_few(middle, queries, percent) < 1 - CONFIDENCE:
            low = middle
        else:
            high = middle - 1
    return low


def queries_needed(percent: float, slow: int = 1) -> int:
    """The smallest number of queries of which ``slow`` may be slow. An estimate needs at least one slow query: 64
    queries for the 90th percentile, 662 for the 99th, 6636 for the 99.9th."""
    low, high = slow + 1, 2 * (slow + 1)
    while chance_of_few(slow, high, percent) >= 1 - CONFIDENCE:
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        if chance_of_few(slow, middle, percent) < 1 - CONFIDENCE:
            high = middle
        else:
            low = middle + 1
    return low


def percentile_bound(ordered: Sequence[float], percent: float) -> float | None:
    """LoadGen's early-stopping estimate of a percentile: at 99 % confidence, ``percent`` % of queries are no slower.

    ``ordered`` is ascending. The ``t - 1`` slowest queries are discarded, where ``t`` is the number allowed, and the
    slowest of the rest is the estimate. None when there are too few queries.
    """
    allowed = slow_allowed(len(ordered), percent)
    return ordered[len(ordered) - allowed] if allowed >= 1 else None
