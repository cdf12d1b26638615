"""The simulations of the pick's rules, small: what they find here is decided by their seed."""

from __future__ import annotations

import pytest
from benchmarks.evidence import main
from benchmarks.evidence_kit.asked import Asked
from benchmarks.evidence_kit.pick import (
    FALSE_BAR,
    at_the_margin,
    caught_share,
    false_of_any,
    false_share,
    grouped_at_the_margin,
)
from benchmarks.shared.rows import makers_of

FEW = Asked(repeats=800)
GROUPS = [place // 5 for place in range(40)]


@pytest.mark.parametrize("cases", [20, 40])
def test_a_variant_at_the_margin_is_seldom_called_non_inferior(cases: int) -> None:
    found = false_share(at_the_margin(cases), FEW)
    assert 0.02 < found <= FALSE_BAR


def test_groups_are_what_counts() -> None:
    simulated = grouped_at_the_margin(8, 5, 0.3)
    assert 0.01 < false_share(simulated, FEW, GROUPS) <= FALSE_BAR
    assert false_share(simulated, FEW) > 0.1, "cases of a patient counted as independent"


def test_of_many_variants_hardly_any_is_called_so() -> None:
    assert false_of_any(20, 40, Asked(repeats=100)) <= 0.1


def test_broken_cases_behind_a_good_mean_are_caught() -> None:
    shown, caught = caught_share(60, 0.05, FEW)
    assert shown > 0.8 and caught >= 0.85


def test_rows_can_be_asked_for_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(makers_of("evidence_kit")) >= {"false_at_20_cases", "broken_cases_caught"}
    assert main(["--only", "broken_cases_caught", "--repeats", "200", "--check"]) == 0
    assert "refused by the second endpoint" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--repeats", "0"])
