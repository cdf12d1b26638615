"""Standard errors of differences of AUROCs, against the definitions by pairs, scikit-learn's area, and simulations."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import made_up
import numpy as np
import pytest

from edgedeploy.evidence.auroc import auroc_of, difference_error, placements
from edgedeploy.evidence.bootstrap import Resampler
from edgedeploy.evidence.split import split_draws
from edgedeploy.records.goals import Objective
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.placements import Placements


def names(count: int) -> list[str]:
    return [f"case-{number:04d}" for number in range(count)]


def made(seed: int, cases: int = 80, tied: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sides, and the scores of two models that agree much."""
    rng = np.random.default_rng(seed)
    sides = rng.random(cases) < 0.4
    shared = rng.normal(size=cases) + 1.2 * sides
    scores = [shared + 0.4 * rng.normal(size=cases) for _ in range(2)]
    return (sides, *(np.round(score) if tied else score for score in scores))


def of_pairs(sides: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """DeLong's variance of the difference, written out over all pairs as its definition has it."""

    def structural(score: np.ndarray) -> tuple[list[float], list[float]]:
        x, y = score[sides], score[~sides]
        wins = {(i, j): float(a > b) + 0.5 * float(a == b) for (i, a), (j, b) in product(enumerate(x), enumerate(y))}
        v10 = [sum(wins[i, j] for j in range(y.size)) / y.size for i in range(x.size)]
        v01 = [sum(wins[i, j] for i in range(x.size)) / x.size for j in range(y.size)]
        return v10, v01

    ours, theirs = structural(first), structural(second)
    differences = [np.array(a) - np.array(b) for a, b in zip(ours, theirs, strict=True)]
    return math.sqrt(sum(float(d.var(ddof=1)) / d.size for d in differences))


@pytest.mark.parametrize("tied", [False, True])
def test_the_mean_placement_is_scikit_learns_area(tied: bool) -> None:
    from sklearn.metrics import roc_auc_score

    sides, score, _ = made(1, tied=tied)
    found = placements(sides, score, names(sides.size))
    assert found is not None
    assert auroc_of(found) == pytest.approx(roc_auc_score(sides, score))
    assert np.mean(list(found.negative.values())) == pytest.approx(auroc_of(found))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_error_is_delongs(seed: int, tied: bool) -> None:
    sides, first, second = made(seed, tied=tied)
    pair = [placements(sides, score, names(sides.size)) for score in (first, second)]
    found = difference_error(pair[0], pair[1])
    assert found is not None
    assert found[0] == pytest.approx(of_pairs(sides, first, second))
    assert min(int(sides.sum()), int((~sides).sum())) - 1 <= found[1] <= sides.size - 2


def test_obuchowskis_error_without_clusters_is_delongs() -> None:
    sides, first, second = made(4)
    pair = [placements(sides, score, names(sides.size)) for score in (first, second)]
    alone = {name: number for number, name in enumerate(names(sides.size))}
    assert difference_error(pair[0], pair[1], alone) == difference_error(pair[0], pair[1])


def clustered(rng: np.random.Generator, groups: int, size: int, icc: float) -> tuple[np.ndarray, ...]:
    """Models of equal worth whose faults are shared within patients, each of whom is ill or not."""
    owner = np.repeat(np.arange(groups), size)
    sides = (rng.random(groups) < 0.5)[owner]
    scores = []
    shared = rng.normal(size=owner.size)
    for _ in range(2):
        own = math.sqrt(icc) * rng.normal(size=groups)[owner] + math.sqrt(1 - icc) * rng.normal(size=owner.size)
        scores.append(sides + shared + own)
    return owner, sides, scores[0], scores[1]


def test_with_clusters_it_is_as_wide_as_the_differences_are() -> None:
    rng = np.random.default_rng(8)
    differences, clustered_error, plain_error = [], [], []
    for _ in range(300):
        owner, sides, first, second = clustered(rng, 40, 6, 0.6)
        ids = names(sides.size)
        pair = [placements(sides, score, ids) for score in (first, second)]
        groups = dict(zip(ids, owner.tolist(), strict=True))
        differences.append(auroc_of(pair[0]) - auroc_of(pair[1]))
        clustered_error.append(difference_error(pair[0], pair[1], groups)[0])
        plain_error.append(difference_error(pair[0], pair[1])[0])
    true = float(np.std(differences))
    assert np.sqrt(np.mean(np.square(clustered_error))) == pytest.approx(true, rel=0.12)
    assert np.mean(plain_error) < 0.7 * true  # what it is without them


def test_too_few_cases_or_groups_of_a_side_have_none() -> None:
    sides, first, second = made(5)
    ids = names(sides.size)
    few = sides & (np.cumsum(sides) <= 4)
    kept = ~sides | few
    pair = [placements(few[kept], s[kept], np.array(ids)[kept].tolist()) for s in (first, second)]
    assert difference_error(pair[0], pair[1]) is None
    whole = [placements(sides, s, ids) for s in (first, second)]
    assert difference_error(whole[0], whole[1], {name: number % 4 for number, name in enumerate(ids)}) is None
    assert placements([True] * 8, first[:8], ids[:8]) is None


def test_other_cases_are_no_pairs() -> None:
    sides, first, second = made(6)
    ids = names(sides.size)
    one, other = placements(sides, first, ids), placements(sides, second, [f"other-{name}" for name in ids])
    assert difference_error(one, other) is None


def test_equal_ranks_have_no_error() -> None:
    sides, first, _ = made(7)
    found = placements(sides, first, names(sides.size))
    assert difference_error(found, found) == (0.0, sides.size - 2)


@pytest.mark.parametrize("share", [-0.1, 1.2, float("nan")])
def test_placements_are_shares(share: float) -> None:
    with pytest.raises(ValueError, match="shares"):
        Placements({"a": share}, {"b": 0.5})


def measured(score: np.ndarray, sides: np.ndarray, ranked: bool) -> Measurement:
    from sklearn.metrics import roc_auc_score

    ids = names(sides.size)

    def of(places: list[int]) -> dict[str, float | None]:
        both = len(set(sides[places].tolist())) == 2
        return {"auroc": float(roc_auc_score(sides[places], score[places])) if both else None}

    found = placements(sides, score, ids)
    assert found is not None
    item = made_up.measurement(
        per_case={name: {} for name in ids},
        draws=split_draws(lambda places: of(list(places)), ("auroc",), ids, resamples=200),
        placements={"auroc": found} if ranked else {},
    )
    return replace(item, metrics={**item.metrics, "auroc": auroc_of(found)})


def test_a_comparison_takes_the_error_of_ranks() -> None:
    sides, first, second = made(9)
    goal = Objective("auroc", "maximize")
    bounds = []
    for ranked in (True, False):
        pair = [measured(score, sides, ranked) for score in (first, second)]
        found = Resampler(1, 200).differences(pair[0], pair[1], goal)
        assert found is not None
        bounds.append(found)
    known = difference_error(*(placements(sides, score, names(sides.size)) for score in (first, second)))
    assert (bounds[0].error, bounds[0].freedom) == known
    assert bounds[1].error != bounds[0].error
    assert bounds[1].error == pytest.approx(bounds[0].error, rel=0.25)


def test_a_measurement_keeps_them() -> None:
    sides, first, _ = made(10)
    item = measured(first, sides, ranked=True)
    again = Measurement.from_json(item.as_json())
    assert again.placements == item.placements and again.draws == item.draws
    assert "placements" not in made_up.measurement().as_json()
