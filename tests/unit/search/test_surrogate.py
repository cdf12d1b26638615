"""The Gaussian process of the search: its gradient, what it learns, and what it does not look at."""

from __future__ import annotations

import numpy as np
from scipy.optimize import check_grad

from edgedeploy.search import surrogate
from edgedeploy.search.candidates import Column
from edgedeploy.search.scales import scale_of
from edgedeploy.search.surrogate import Features, Process, fit

COLUMNS = (Column("target", ("a", "b", "c"), None), Column("width", (1, 2, 3, 4), (0.0, 1 / 3, 2 / 3, 1.0)))


def features() -> Features:
    codes = np.array([(target, width) for target in range(3) for width in range(4)])
    return Features.of(COLUMNS, codes, np.log(1.0 + codes[:, 1:]))


def seen(codes: np.ndarray) -> np.ndarray:
    return np.asarray(codes[:, 0] * 2.0 + 1.0 / (1 + codes[:, 1]), dtype=float)


def test_the_gradient_of_the_likelihood_is_its_slope() -> None:
    found = features()
    rows = np.array([0, 2, 3, 5, 8, 11])
    values = seen(found.codes)[rows]
    settings = surrogate._Settings(2, 1)
    blocks = surrogate._Blocks.of(found, rows)
    arguments = (settings, blocks, values - values.mean(), np.full(6, 0.01))
    rng = np.random.default_rng(0)
    for _ in range(3):
        at = settings.prior[0] + rng.normal(0, 0.5, settings.size)
        error = check_grad(
            lambda vector: surrogate._loss(vector, *arguments)[0],
            lambda vector: surrogate._loss(vector, *arguments)[1],
            at,
        )
        assert error < 1e-4


def test_what_was_observed_is_kept_to_and_what_was_not_is_predicted_from_it() -> None:
    """Neither is certain: a candidate's value has a part of its own that nothing explains."""
    found = features()
    rows = np.array([0, 1, 3, 4, 6, 7, 8, 10])
    values = seen(found.codes)
    process = Process(found, rows, values[rows], np.zeros(8), fit(found, rows, values[rows], np.zeros(8)))
    mean, deviation = process.predict()
    others = np.setdiff1d(np.arange(12), rows)
    assert np.abs(mean[rows] - values[rows]).max() < 0.05
    assert np.abs(mean[others] - values[others]).max() < 0.35, "the values span 4.75"
    assert deviation[rows].max() < 0.1 < deviation[others].min()


def test_noise_is_not_believed() -> None:
    found = features()
    rows = np.arange(12)
    settings = fit(found, rows, seen(found.codes), np.zeros(12))
    values = seen(found.codes)
    values[5] += 3.0
    noise = np.where(rows == 5, 100.0, 0.0)
    mean, _ = Process(found, rows, values, noise, settings).predict()
    assert abs(mean[5] - seen(found.codes)[5]) < 1.0
    believed, _ = Process(found, rows, values, np.zeros(12), settings).predict()
    assert abs(believed[5] - values[5]) < 0.6


def test_columns_with_one_value_are_left_out() -> None:
    codes = np.array([(1, width) for width in range(4)])
    found = Features.of(COLUMNS, codes, np.full((4, 2), np.nan))
    assert [column.name for column in found.columns] == ["width"]
    assert found.statics.shape == (4, 0)


def test_a_bad_tail_takes_little_room_and_keeps_its_order() -> None:
    accuracies = np.array([0.90, 0.89, 0.88, 0.87, 0.60, 0.01])
    scale = scale_of(accuracies, -1.0)
    found = scale.of(accuracies)
    assert np.all(np.diff(found) > 0)
    assert found[-1] - found[3] < 0.5 * (accuracies[3] - accuracies[-1])
    latencies = np.array([1e3, 2e3, 4e3])
    assert np.allclose(np.diff(scale_of(latencies, 1.0).of(latencies)), np.log(2))
