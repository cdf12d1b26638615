"""Marks of a trend: known steps are found where they are, and calm series have none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgedeploy.errors import MeasurementError
from edgedeploy.evidence.change_points import LEAST_SEGMENT, change_points


def noise(nights: int, seed: int, sd: float = 0.01) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, sd, nights)


def test_a_step_is_found_at_its_first_night() -> None:
    series = noise(120, 1)
    series[70:] += 0.05
    (found,) = change_points(series.tolist())
    assert abs(found.index - 70) <= 1
    assert (found.before, found.after) == (pytest.approx(0, abs=0.005), pytest.approx(0.05, abs=0.005))
    assert found.p_value <= 0.01


def test_steps_up_and_down_are_found_in_the_order_of_the_nights() -> None:
    series = noise(365, 2)
    for first, last, level in ((60, 140, 0.06), (140, 250, -0.03), (250, 365, 0.03)):
        series[first:last] += level
    found = change_points(series.tolist())
    assert [point.index for point in found] == pytest.approx([60, 140, 250], abs=2)
    assert [point.after > point.before for point in found] == [True, False, True]
    assert [first.after for first in found[:-1]] == [second.before for second in found[1:]]


def test_calm_series_are_marked_about_as_seldom_as_the_level_says() -> None:
    marked = sum(bool(change_points(noise(90, 100 + seed).tolist())) for seed in range(60))
    assert marked <= 4


def test_a_single_disturbed_night_is_no_change() -> None:
    series = noise(90, 3)
    series[40] = 0.5
    assert change_points(series.tolist()) == ()


def test_the_same_nights_have_the_same_marks() -> None:
    series = noise(80, 4)
    series[50:] += 0.015
    assert change_points(series.tolist()) == change_points(series.tolist())


@pytest.mark.parametrize("nights", [0, 1, 2 * LEAST_SEGMENT - 1])
def test_a_short_series_has_no_marks(nights: int) -> None:
    assert change_points([float(night) for night in range(nights)]) == ()


def test_a_series_that_never_moves_has_none() -> None:
    assert change_points([0.25] * 50) == ()


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(MeasurementError, match="1 of 21 values are not finite"):
        change_points([0.0] * 20 + [math.nan])
    with pytest.raises(ValueError, match="at most"):
        change_points([0.0] * 5000)
