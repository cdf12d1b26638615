"""The early-stopping bound against what LoadGen itself printed, and against an exact binomial."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest
import scipy

from edgedeploy.records.metrics import QUERIES_FOR_PERCENTILE
from edgedeploy.runtime.scenarios.earlystopping import chance_of_few, percentile_bound, queries_needed, slow_allowed


@pytest.mark.parametrize(
    ("percent", "slow", "needed"),
    [
        (90, 1, 64),  # "Need to process at least 64 queries for early stopping."
        (99, 1, 662),  # "would need to process at least 662 total queries"
        (99, 0, 459),  # ceil(log(0.01) / log(0.99))
        (90, 0, 44),
        (99, 2, 838),  # mlcommons/inference issue 1788: 33 processed, "at least 805 more"
    ],
)
def test_fewest_queries_are_loadgens(percent: float, slow: int, needed: int) -> None:
    assert queries_needed(percent, slow) == needed
    assert slow_allowed(needed, percent) == slow
    assert slow_allowed(needed - 1, percent) == slow - 1


@pytest.mark.parametrize(
    ("queries", "discarded"), [(100, 2), (201, 9), (659, 47), (708, 51), (7914, 728), (79944, 7796)]
)
def test_discards_as_many_queries_as_published_loadgen_logs_do(queries: int, discarded: int) -> None:
    """Single-stream summaries at the 90th percentile: "Would discard N highest latency queries."""
    ordered = list(range(queries))
    assert percentile_bound(ordered, 90) == queries - 1 - discarded


def test_the_table_of_the_nouns_is_the_bound() -> None:
    assert {p: queries_needed(p) for p in (90, 99, 99.9)} == {p: QUERIES_FOR_PERCENTILE[p] for p in (90, 99, 99.9)}


@pytest.mark.parametrize("percent", [50, 90, 99, 99.9])
@pytest.mark.parametrize("queries", [1, 5, 63, 64, 662, 6636, 100_000])
def test_chance_is_the_binomial_distribution(percent: float, queries: int) -> None:
    mean = int(queries * (1 - percent / 100))
    for slow in {0, 1, mean // 2, mean, min(queries, mean + 3), queries // 2, queries}:
        expected = scipy.stats.binom.cdf(slow, queries, 1 - percent / 100)
        assert chance_of_few(slow, queries, percent) == pytest.approx(expected, rel=1e-8, abs=1e-250)


@pytest.mark.parametrize(("percent", "slow"), [(90, 1), (90, 30), (99, 1), (99, 7)])
def test_the_edge_is_right_in_whole_numbers(percent: int, slow: int) -> None:
    def exact(queries: int) -> Fraction:
        p = Fraction(percent, 100)
        return sum((comb(queries, k) * (1 - p) ** k * p ** (queries - k) for k in range(slow + 1)), start=Fraction(0))

    needed = queries_needed(percent, slow)
    assert exact(needed) < Fraction(1, 100) <= exact(needed - 1)


def test_too_few_queries_give_no_estimate() -> None:
    assert percentile_bound(list(range(63)), 90) is None
    assert percentile_bound(list(range(64)), 90) == 63
    assert percentile_bound([], 99) is None
    assert slow_allowed(43, 90) == -1
