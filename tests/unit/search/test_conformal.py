"""Intervals of predictions hold what they promise, whatever the predictor is; too few samples give none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgedeploy.search.conformal import FEWEST, NOMINAL, half_width, interval, split


@pytest.mark.parametrize("samples", [20, 30, 39, 40, 77])
def test_a_split_takes_each_sample_once_and_at_most_half_of_them_for_errors(samples: int) -> None:
    parts = split(samples, seed=3)
    assert parts is not None
    assert sorted([*parts.learning, *parts.errors]) == list(range(samples))
    assert len(parts.errors) <= samples / 2
    assert ((len(parts.errors) + 1) * NOMINAL) == pytest.approx(round((len(parts.errors) + 1) * NOMINAL))
    again = split(samples, seed=3)
    assert again is not None and list(again.errors) == list(parts.errors)


def test_below_twenty_samples_there_is_no_interval() -> None:
    assert FEWEST == 20
    assert [split(samples, 0) is None for samples in (0, 1, 19, 20)] == [True, True, True, False]


def test_the_width_is_the_quantile_of_one_error_more_than_there_are() -> None:
    errors = np.array([-9.0, 1, 2, 3, 4, 5, 6, 7, 8])
    assert half_width(errors) == 9.0
    assert half_width(np.append(errors, np.linspace(0, 0.9, 10))) == 8.0
    assert half_width(errors[:8]) == math.inf
    low, high = interval(10.0, math.log(2.0))
    assert (low, high) == (pytest.approx(5.0), pytest.approx(20.0))


@pytest.mark.parametrize("samples", [20, 50])
def test_nine_in_ten_values_lie_in_their_interval_however_bad_the_predictor(samples: int) -> None:
    """A predictor that knows nothing but a wrong constant, and errors with a heavy tail."""
    held = []
    for draw in range(400):
        rng = np.random.default_rng([draw, samples])
        values = rng.standard_t(2, samples + 50) + 3
        parts = split(samples, draw)
        assert parts is not None
        width = half_width(values[parts.errors] - 1.0)
        held.append(np.mean(np.abs(values[samples:] - 1.0) <= width))
    assert 0.88 <= np.mean(held) <= 0.92
