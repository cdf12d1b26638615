"""What a surrogate learns of what a search has seen."""

from __future__ import annotations

import numpy as np

from edgedeploy.search.seen import Observations, Seen

ACCURACIES = np.array([71.1, 67.9, 67.7, 58.6, 57.7, 40.8, 1.0, 1.0])
TIMES = np.array([33.0, 20.0, 12.0, 3.0, 1.5, 1.2, 0.003, 14.0])


def seen(times: np.ndarray = TIMES) -> Seen:
    values = np.column_stack([ACCURACIES, times])
    return Seen(np.arange(8), values, np.full(values.shape, 1e-4), np.array([-1.0, 1.0]))


def test_the_time_of_a_network_that_computes_nothing_is_not_learned_from() -> None:
    """One at chance level that takes as long as others is as telling as these; the accuracy of all is."""
    assert seen().useless(0).tolist() == [False] * 6 + [True] * 2
    found = seen().observations(1)
    assert found.rows.tolist() == [0, 1, 2, 3, 4, 5, 7]
    assert np.allclose(found.targets, np.log(TIMES[found.rows]))
    assert np.allclose(found.variances, 1e-4 / TIMES[found.rows] ** 2)
    assert seen().observations(0).rows.tolist() == list(range(8))


def test_a_fast_variant_of_little_accuracy_is_learned_from() -> None:
    times = TIMES.copy()
    times[6] = 1.0
    assert seen(times).observations(1).rows.tolist() == list(range(8))


def test_what_was_seen_first_hangs_on_nothing_that_came_later() -> None:
    early = seen().first(6).observations(1)
    assert early.rows.tolist() == list(range(6))


def test_the_best_and_an_even_share_of_the_rest_are_kept() -> None:
    targets = np.random.default_rng(0).permutation(100).astype(float)
    whole = Observations(np.arange(100), targets, np.zeros(100))
    kept = whole.at_most(20)
    assert len(kept.rows) == 20 and set(range(10)) <= set(kept.targets)
    assert np.array_equal(kept.targets, targets[kept.rows]) and np.all(np.diff(kept.rows) > 0)
    assert whole.at_most(100) is whole
