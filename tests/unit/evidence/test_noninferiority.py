"""Bounds and p-values of what a variant loses, and of lost cases."""

from __future__ import annotations

import numpy as np
import pytest
import scipy

from edgedeploy.evidence.noninferiority import (
    Differences,
    Floats,
    holm_levels,
    lost_cases,
    share_units_wanted,
    share_upper,
)

MARGIN = 0.02


def held(gains: Floats, groups: list[int] | None = None, seed: int = 0) -> Differences:
    """With draws of cases, which are no draws of groups: the bound of groups has to come from t."""
    rng = np.random.default_rng(seed)
    draws = gains[rng.integers(0, gains.size, (2000, gains.size))].mean(axis=1)
    found = Differences.of_cases(gains, draws, groups)
    assert found is not None
    return found


@pytest.mark.parametrize("seed", range(6))
def test_the_bound_is_the_lower_of_students_t_and_the_draws(seed: int) -> None:
    gains = np.random.default_rng(seed).standard_t(3, 25) * 0.03
    found = held(gains, seed=seed)
    t = scipy.stats.ttest_1samp(gains, 0, alternative="greater").confidence_interval(0.95).low
    percentile = np.quantile(found.draws, 0.05, method="inverted_cdf")
    assert found.lower() <= t + 1e-12 and found.lower() <= percentile + 1e-3
    assert found.lower() == pytest.approx(min(t, percentile), abs=2e-4)
    assert found.upper() >= scipy.stats.ttest_1samp(gains, 0, alternative="less").confidence_interval(0.95).high - 1e-12


@pytest.mark.parametrize("level", [0.95, 0.99, 1 - 0.05 / 37])
def test_a_p_value_and_the_bound_of_its_level_say_the_same(level: float) -> None:
    rng = np.random.default_rng(4)
    for seed in range(40):
        found = held(rng.normal(-0.008, 0.03, 30), seed=seed)
        assert (found.p_value(MARGIN) <= 1 - level + 1e-12) == (found.lower(level) >= -MARGIN)


def test_with_groups_it_is_t_of_their_means() -> None:
    groups = [place // 5 for place in range(40)]
    rng = np.random.default_rng(2)
    gains = np.repeat(rng.normal(0, 0.03, 8), 5) + rng.normal(0, 0.003, 40)
    found = held(gains, groups)
    means = gains.reshape(8, 5).mean(axis=1)
    t = scipy.stats.ttest_1samp(means, 0, alternative="greater").confidence_interval(0.95).low
    assert found.lower() == pytest.approx(t) and found.freedom == 7
    assert held(gains).lower() > t, "cases of a group counted as independent promise too much"


def test_fewer_than_five_groups_bound_nothing() -> None:
    gains = np.random.default_rng(0).normal(0, 0.03, 40)
    assert Differences.of_cases(gains, gains, [place % 4 for place in range(40)]) is None
    assert Differences.of_cases(gains[:4], gains) is None
    assert Differences.of_cases(gains, gains, [place % 5 for place in range(40)]) is not None


def test_what_does_not_differ_is_shown_at_any_level() -> None:
    found = held(np.zeros(12))
    assert (found.lower(0.9999), found.upper(0.9999), found.p_value(0.0)) == (0, 0, 0)


def test_a_metric_of_the_split_is_bounded_by_its_draws_and_by_their_spread() -> None:
    draws = np.random.default_rng(1).normal(-0.004, 0.01, 1000)
    found = Differences(-0.004, draws, None, 39, 40)
    assert found.lower() <= np.quantile(draws, 0.05) + 1e-4
    assert found.lower() <= -0.004 - scipy.stats.t(39).ppf(0.95) * draws.std(ddof=1) + 1e-12
    assert found.p_value(0.1) < 1e-9, "draws alone cannot say less than one in a thousand"


def test_about_so_many_cases_would_show_it() -> None:
    rng = np.random.default_rng(3)
    gains = rng.normal(0, 0.03, 40)
    gains += -0.012 - gains.mean()
    found = held(gains)
    assert found.lower() < -MARGIN
    wanted = found.cases_wanted(MARGIN)
    assert wanted is not None and 40 < wanted < 80
    more = held(np.tile(gains, wanted // 40 + 1), seed=9)
    assert more.lower() >= -MARGIN
    assert held(gains - 0.02).cases_wanted(MARGIN) is None, "the loss itself is larger than the margin"


@pytest.mark.parametrize(("lost", "cases"), [(0, 40), (0, 60), (1, 60), (3, 28), (7, 200)])
def test_the_bound_on_lost_cases_is_exact(lost: int, cases: int) -> None:
    assert share_upper(lost, cases) == pytest.approx(scipy.stats.binomtest(lost, cases).proportion_ci(0.90).high)


def test_so_many_cases_show_that_few_are_lost() -> None:
    assert share_units_wanted(0, 28, 0.05) == 59 and share_upper(0, 59) <= 0.05 < share_upper(0, 58)
    assert share_units_wanted(2, 28, 0.05) is None, "2 of 28 are more than 5 %"


def test_holm_goes_on_until_the_first_that_is_not_shown() -> None:
    found = holm_levels({"a": 0.001, "b": 0.02, "c": 0.03, "d": 0.2})
    assert [found[name][0] for name in "abcd"] == [True, False, False, False]
    assert [round(1 - found[name][1], 4) for name in "abcd"] == [0.0125, 0.0167, 0.0167, 0.0167]
    shown, level = holm_levels({"a": 0.001, "b": 0.012, "c": 0.024, "d": 0.05})["d"]
    assert shown and level == pytest.approx(0.95)
    assert holm_levels({}) == {}


def test_lost_cases_are_named_worst_first_with_what_that_leaves_open() -> None:
    gains = {f"case-{place:02d}": -0.01 * place for place in range(20)}
    found = lost_cases(gains, ["gone"], metric="dice", more_than=0.17, allowed=0.5)
    assert found is not None
    assert found.lost == ("gone", "case-19", "case-18"), "just the limit is not more; no value is worse than any"
    assert (found.cases, found.units, found.units_lost, found.worst_case) == (21, 21, 3, "case-19")
    assert found.worst == pytest.approx(-0.19) and found.low == pytest.approx(np.percentile(list(gains.values()), 5))
    assert found.upper == pytest.approx(share_upper(3, 21)) and found.shown
    strict = lost_cases(gains, ["gone"], metric="dice", more_than=0.17, allowed=None)
    assert strict is not None and not strict.shown and strict.cases_wanted() is None


def test_a_group_is_lost_as_soon_as_one_of_its_cases_is() -> None:
    groups = {f"case-{place:02d}": place // 4 for place in range(40)}
    gains = {name: -0.3 if name in ("case-08", "case-09") else 0.0 for name in groups}
    found = lost_cases(gains, (), metric="dice", more_than=0.1, allowed=0.3, groups=groups)
    assert found is not None and (found.units, found.units_lost, len(found.lost)) == (10, 1, 2)
    assert found.upper == share_upper(1, 10) > share_upper(2, 40)
    assert found.worst_group is not None and (found.worst_group[0], found.worst_group[2]) == ("case-08", 4)
    assert found.worst_group[1] == pytest.approx(-0.15)
    assert not found.shown and found.cases_wanted() == 4 * (share_units_wanted(1, 10, 0.3) or 0)


def test_a_metric_of_yes_or_no_is_bounded_exactly_where_few_cases_change() -> None:
    """Twenty cases without a failure say little of failures that come once in twenty."""
    for count, margin, shown in ((20, 0.01, False), (20, 0.15, True), (300, 0.01, True)):
        gains = np.zeros(count)
        found = Differences.of_cases(gains, np.zeros(200), yes_or_no=True)
        assert found is not None and (found.strict_lower() >= -margin) is shown
        assert (found.p_value(margin) <= 0.05) is shown
        assert found.lower() == 0.0, "what neither t nor draws can know"
    few = Differences.of_cases(np.zeros(20), np.zeros(200), yes_or_no=True)
    assert few is not None and few.cases_wanted(0.01) == pytest.approx(299, abs=2)


def test_a_metric_of_which_many_cases_change_keeps_its_bound() -> None:
    gains = np.repeat([1.0, -1.0, 0.0], [15, 15, 170])
    found = Differences.of_cases(gains, np.linspace(-0.1, 0.1, 200), yes_or_no=True)
    assert found is not None and found.worse is None and found.strict_lower() == found.lower()
