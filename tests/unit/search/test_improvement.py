"""Hypervolume and its expected improvement, held against counting and against drawing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgedeploy.search.improvement import expected_improvement, front_of, hypervolume


def points(rng: np.random.Generator, count: int, objectives: int) -> np.ndarray:
    return rng.integers(0, 9, (count, objectives)).astype(float)


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_the_hypervolume_is_the_number_of_dominated_cells(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    for count in (1, 2, 7):
        found = points(rng, count, objectives)
        reference = np.full(objectives, 7.0)
        cells = np.array(list(itertools.product(range(7), repeat=objectives)))
        dominated = np.any(np.all(cells[:, None, :] >= found[None, :, :], axis=2), axis=1)
        assert hypervolume(found, reference) == pytest.approx(dominated.sum())


def test_a_front_has_each_point_that_nothing_dominates_once() -> None:
    found = front_of(np.array([[2.0, 2.0], [1.0, 3.0], [2.0, 2.0], [3.0, 3.0], [1.0, 4.0]]))
    assert found.tolist() == [[1.0, 3.0], [2.0, 2.0]]


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_what_is_certain_improves_by_exactly_what_it_adds(objectives: int) -> None:
    rng = np.random.default_rng(10 + objectives)
    reference = np.full(objectives, 7.0)
    for count in (0, 1, 5, 12):
        front, candidates = points(rng, count, objectives), points(rng, 40, objectives)
        found = expected_improvement(candidates, np.zeros_like(candidates), front, reference)
        before = hypervolume(front, reference)
        added = [hypervolume(np.vstack([front, candidate]), reference) - before for candidate in candidates]
        assert found == pytest.approx(added, abs=1e-5)


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_what_is_uncertain_improves_by_the_mean_of_what_it_may_be(objectives: int) -> None:
    rng = np.random.default_rng(20 + objectives)
    reference = np.full(objectives, 7.0)
    front, candidates = points(rng, 5, objectives), points(rng, 3, objectives)
    deviation = rng.uniform(0.5, 2, candidates.shape)
    found = expected_improvement(candidates, deviation, front, reference)
    before = hypervolume(front, reference)
    for candidate, spread, expected in zip(candidates, deviation, found, strict=True):
        drawn = rng.normal(candidate, spread, (4000, objectives))
        gains = [hypervolume(np.vstack([front, value]), reference) - before for value in drawn]
        assert expected == pytest.approx(np.mean(gains), abs=4 * np.std(gains) / np.sqrt(len(gains)) + 1e-9)
