"""The vote on whether a variant can be evaluated and is of use."""

from __future__ import annotations

import numpy as np

from edgedeploy.search.failures import success_by_figures, success_by_pace
from edgedeploy.search.scales import scale_of
from edgedeploy.search.surrogate import Features

FIGURES = np.array([[-2.0], [-1.9], [-2.1], [0.4], [0.5], [2.0]])


def features(figures: np.ndarray) -> Features:
    return Features.of((), np.zeros((len(figures), 0), dtype=np.intp), figures)


def test_what_is_as_large_as_what_failed_is_expected_to_fail() -> None:
    found = success_by_figures(features(FIGURES), np.array([0, 1, 3]), np.array([True, True, False]))
    assert found[2] < 0.3 and found[4] > 0.8 and found[5] > 0.8


def test_the_figure_that_foretells_failures_is_listened_to() -> None:
    """The second figure says it; the first one, in which all are far apart, nothing."""
    figures = np.array(
        [[-3.0, -2.0], [0.0, -2.1], [3.0, -1.9], [-2.9, 0.5], [0.1, 0.4], [3.1, 0.6], [6.0, -2.0], [6.1, 0.5]]
    )
    failed = np.array([True, True, True, False, False, False])
    found = success_by_figures(features(figures), np.arange(6), failed)
    assert found[6] < 0.4 and found[7] > 0.8


def test_without_failures_or_figures_nothing_is_expected_to_fail() -> None:
    rows, failed = np.array([0, 3]), np.array([True, False])
    assert success_by_figures(features(FIGURES), rows, np.zeros(2, dtype=bool)).tolist() == [1.0] * 6
    assert success_by_figures(features(np.zeros((6, 0))), rows, failed).tolist() == [1.0] * 6


def test_a_network_at_chance_level_is_of_no_use_however_wide_the_rest_is_spread() -> None:
    accuracies = np.array([71.1, 67.9, 67.7, 58.6, 57.7, 40.8, 39.0, 1.0, 1.0])
    scale = scale_of(accuracies, -1.0)
    useless = scale.of(accuracies) > scale.worst_of_use(accuracies)
    assert useless.tolist() == [False] * 7 + [True] * 2


def test_several_behind_a_gap_are_of_no_use_however_far_apart_the_others_lie() -> None:
    """With one or two nobody can tell chance level from what is merely worst."""
    others = np.array([0.88, 0.71, 0.7, 0.53, 0.52, 0.51])
    for standing in (1, 2, 3, 10):
        values = np.append(others, standing * [0.01])
        scale = scale_of(values, -1.0)
        assert scale.knee + 4 * scale.unit > -0.01, "they are within the tail"
        useless = scale.of(values) > scale.worst_of_use(values)
        assert useless.tolist() == [False] * 6 + [standing >= 3] * standing


PACES = np.log([2.0, 2.5, 3.0, 2.2, 30.0, 40.0, 45.0, 800.0, np.nan])
"""Of the first four what was tried was of use, of the next two it was not."""


def test_who_computes_faster_than_anything_of_use_is_not_expected_to_compute() -> None:
    rows, failed = np.arange(6), np.array([False] * 4 + [True] * 2)
    found = success_by_pace(PACES, rows, failed)
    assert found[:4].min() > 0.9
    assert found[4:8].max() < 0.15, "whatever is as fast as what failed, or faster"
    assert found[8] == 1, "who has no pace has no vote against it"
    assert success_by_pace(PACES, rows[:5], failed[:5])[7] > found[7], "two failures speak louder than one"


def test_failures_at_the_paces_of_what_is_of_use_say_nothing_of_paces() -> None:
    rows = np.arange(6)
    assert success_by_pace(PACES, rows, np.array([True, False, True, False, False, False])).tolist() == [1.0] * 9
    assert success_by_pace(PACES, rows, np.ones(6, dtype=bool)).tolist() == [1.0] * 9
    assert success_by_pace(PACES, rows, np.zeros(6, dtype=bool)).tolist() == [1.0] * 9
