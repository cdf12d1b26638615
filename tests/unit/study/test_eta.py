"""When a study will be done, as far as it can be told."""

from __future__ import annotations

import pytest

from edgedeploy.compress.oversight import remaining_s
from edgedeploy.study.eta import Eta, Pace, eta

LONG_S = 1e6


def test_nothing_is_told_before_anything_is_known() -> None:
    assert eta(Pace(outcomes=0, spent_s=5.0), to_do=10, budget_left_s=LONG_S) is None


def test_a_training_counts_before_the_first_outcome_and_is_the_least_that_is_left() -> None:
    pace = Pace(outcomes=0, spent_s=20.0, current_s=15.0, training_left_s=60.0)
    assert eta(pace, to_do=10, budget_left_s=LONG_S) == Eta(60.0, at_least=True)
    assert eta(pace, to_do=0, budget_left_s=LONG_S) == Eta(60.0)


def test_the_baselines_training_is_no_part_of_the_pace() -> None:
    """Of 130 s, 100 went into the baseline: an outcome takes 10 s."""
    pace = Pace(outcomes=3, spent_s=130.0, once_s=100.0)
    assert eta(pace, to_do=7, budget_left_s=LONG_S) == Eta(70.0)


def test_the_training_under_way_counts_by_what_is_left_of_it() -> None:
    """Of 70 s, 40 went into the training under way: an outcome takes 10 s, and 25 s of the training are left."""
    pace = Pace(outcomes=3, spent_s=70.0, current_s=40.0, training_left_s=25.0)
    assert eta(pace, to_do=7, budget_left_s=LONG_S) == Eta(95.0)


@pytest.mark.parametrize(
    "pace", [Pace(outcomes=2, spent_s=80.0), Pace(outcomes=0, spent_s=80.0, current_s=80.0, training_left_s=500.0)]
)
def test_no_more_than_the_budget_is_left(pace: Pace) -> None:
    found = eta(pace, to_do=9, budget_left_s=30.0)
    assert found is not None and found.seconds == 30.0
    over = eta(pace, to_do=9, budget_left_s=-3.0)
    assert over is not None and over.seconds == 0.0


def test_the_rest_of_a_training_goes_at_the_pace_of_what_was_trained() -> None:
    """Two early epochs on small images (1 unit of work each) took 2 s; two on large ones (4 units each) are left."""
    assert remaining_s([(1.0, 0.9), (1.0, 1.1)], left=8.0) == pytest.approx(8.0)
    assert remaining_s([], left=8.0) is None
    assert remaining_s([(1.0, 3.0)], left=0.0) == 0.0
