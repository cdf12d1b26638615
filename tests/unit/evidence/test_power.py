"""What a number of cases can prove, against published and simulated figures."""

import math

import numpy as np
import pytest

from edgedeploy.evidence.power import (
    cases_needed,
    design_effect,
    intraclass_correlation,
    power_of,
    provable_margin,
    sd_of_group_means,
)

TABLE = {  # cases: (sd .02, sd .03, sd .05), each at 80 and at 90 % power; noncentral t
    20: ((0.0115, 0.0136), (0.0173, 0.0204), (0.0288, 0.0340)),
    40: ((0.0080, 0.0094), (0.0120, 0.0141), (0.0200, 0.0235)),
    60: ((0.0065, 0.0076), (0.0097, 0.0115), (0.0162, 0.0191)),
    100: ((0.0050, 0.0059), (0.0075, 0.0088), (0.0125, 0.0147)),
    200: ((0.0035, 0.0042), (0.0053, 0.0062), (0.0088, 0.0104)),
}


@pytest.mark.parametrize("cases", TABLE)
def test_margins_are_those_of_the_table(cases: int) -> None:
    for sd, (at_80, at_90) in zip((0.02, 0.03, 0.05), TABLE[cases], strict=True):
        assert provable_margin(cases, sd) == pytest.approx(at_80, abs=5.1e-5)
        assert provable_margin(cases, sd, power=0.9) == pytest.approx(at_90, abs=5.1e-5)


def test_the_rule_of_thumb_is_near() -> None:
    for cases in (40, 100, 400):
        assert provable_margin(cases, 0.03) == pytest.approx(2.49 * 0.03 / math.sqrt(cases), rel=0.025)
        assert provable_margin(cases, 0.03, power=0.9) == pytest.approx(2.93 * 0.03 / math.sqrt(cases), rel=0.025)


def test_a_true_loss_adds_to_the_margin() -> None:
    for sd, margin in ((0.02, 0.010), (0.03, 0.014), (0.05, 0.022)):
        assert provable_margin(40, sd, true_loss=0.002) == pytest.approx(margin, abs=5e-4)


@pytest.mark.parametrize(
    ("margin", "true_loss", "wanted"), [(0.01, 0.002, (41, 89, 243)), (0.005, 0.0, (101, 224, 620))]
)
def test_cases_needed_are_those_of_the_table(margin: float, true_loss: float, wanted: tuple[int, ...]) -> None:
    for sd, cases in zip((0.02, 0.03, 0.05), wanted, strict=True):
        found = cases_needed(margin, sd, true_loss=true_loss)
        assert found is not None
        assert abs(found - cases) <= 1
        enough, one_less = (power_of(n, sd, margin, true_loss=true_loss) for n in (found, found - 1))
        assert one_less < 0.8 <= enough


def test_no_number_of_cases_shows_a_loss_that_is_the_margin() -> None:
    assert cases_needed(0.01, 0.02, true_loss=0.01) is None
    assert cases_needed(0.01, 0.02, true_loss=0.02) is None
    assert cases_needed(1e-9, 1.0) is None


def test_power_agrees_with_scipys_distribution_and_with_a_simulation() -> None:
    from scipy.stats import nct, t

    exact = power_of(40, 0.03, 0.012, true_loss=0.001)
    shift = 0.011 * math.sqrt(40) / 0.03
    assert exact == pytest.approx(nct.sf(t.ppf(0.95, 39), 39, shift), abs=1e-9)
    gains = np.random.default_rng(1).normal(-0.001, 0.03, (20_000, 40))
    lower = gains.mean(axis=1) - t.ppf(0.95, 39) * gains.std(axis=1, ddof=1) / math.sqrt(40)
    assert (lower >= -0.012).mean() == pytest.approx(exact, abs=0.01)


def test_a_wrongly_shown_loss_is_as_rare_as_the_level_says() -> None:
    assert power_of(40, 0.03, 0.01, true_loss=0.01) == pytest.approx(0.05)


def test_without_spread_any_margin_holds() -> None:
    assert provable_margin(10, 0.0) == 0.0
    assert cases_needed(0.01, 0.0) == 2
    assert power_of(10, 0.0, 0.01) == 1.0
    assert power_of(10, 0.0, 0.01, true_loss=0.02) == 0.0


def test_one_case_proves_nothing() -> None:
    assert provable_margin(1, 0.02) is None
    assert power_of(1, 0.02, 1.0) == 0.0


def test_cases_of_a_group_are_worth_less() -> None:
    assert design_effect(5, 0.3) == pytest.approx(2.2)
    assert design_effect(1, 0.3) == 1.0
    assert sd_of_group_means(0.03, 5, 1.0) == pytest.approx(0.03)
    assert sd_of_group_means(0.03, 5, 0.0) == pytest.approx(0.03 / math.sqrt(5))


def test_correlation_within_groups_is_found_again() -> None:
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(400), 5)
    values = math.sqrt(0.3) * rng.normal(size=400)[groups] + math.sqrt(0.7) * rng.normal(size=2000)
    found = intraclass_correlation(values.tolist(), groups.tolist())
    assert found == pytest.approx(0.3, abs=0.05)
    assert intraclass_correlation(rng.normal(size=2000).tolist(), groups.tolist()) == pytest.approx(0.0, abs=0.05)


def test_correlation_needs_groups_of_several_cases() -> None:
    assert intraclass_correlation([1.0, 2.0, 3.0], [0, 1, 2]) is None
    assert intraclass_correlation([1.0, 2.0, 3.0], [0, 0, 0]) is None
    assert intraclass_correlation([1.0, 1.0, 1.0, 1.0], [0, 0, 1, 1]) == 0.0
    assert intraclass_correlation([0.0, 0.0, 1.0, 1.0], [0, 0, 1, 1]) == pytest.approx(1.0)


@pytest.mark.parametrize("sd", [-0.1, float("nan"), float("inf")])
def test_a_spread_that_is_none_is_refused(sd: float) -> None:
    with pytest.raises(ValueError, match="standard deviation"):
        provable_margin(10, sd)
