"""Ranges with differential privacy: how much one image changes what leaves, the noise, and what the ranges are worth."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import numpy as np
import onnx
import pytest
from small_onnx import convolutional

from edgedeploy.errors import DataError, SpecError
from edgedeploy.federated.grid import LocalGrid
from edgedeploy.federated.histograms import BINS, Histograms
from edgedeploy.federated.privacy import (
    CLIP,
    Centres,
    PrivacySettings,
    discrete_gaussian,
    ends_of,
    most_units,
    private_plane,
    private_ranges,
    sensitivity,
    sigma2,
)
from edgedeploy.federated.secure_sum import Summed, SumSettings, secure_sum, sum_app

TENSORS = tuple(f"t{number}" for number in range(20))
ENDS = tuple((name, 0) for name in TENSORS)


def unit(log2: np.ndarray) -> Histograms:
    extremes = np.stack([2.0**log2, np.zeros(len(log2))], axis=1)
    return Histograms(TENSORS, np.zeros((len(TENSORS), 2, BINS), np.int64), extremes, 1, "m")


def units(count: int, seed: int, shift: float = 0.0) -> list[Histograms]:
    rng = np.random.default_rng(seed)
    return [unit(shift + rng.normal(1.0, 0.3, len(TENSORS))) for _ in range(count)]


CENTRES = Centres.of(units(16, 99), ENDS)


def plain(given: list[Histograms], settings: PrivacySettings, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    from edgedeploy.federated import privacy

    monkeypatch.setattr(privacy, "discrete_gaussian", lambda *_: 0)
    return private_plane(given, CENTRES, settings)[0]


@pytest.mark.parametrize("shift", [0.0, 0.5, 3.0, -12.0])
@pytest.mark.parametrize("reach", [0.3, 1.0, 2.5])
def test_one_unit_more_changes_the_vector_by_no_more_than_the_sensitivity(
    shift: float, reach: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = PrivacySettings(1.0, reach_octaves=reach)
    some = units(5, 1)
    without = plain(some, settings, monkeypatch)
    for more in units(10, 2, shift):
        change = plain([*some, more], settings, monkeypatch) - without
        assert np.linalg.norm(change) <= sensitivity(len(ENDS), settings)
    assert np.linalg.norm(change) > 0.3 * sensitivity(len(ENDS), settings), "the bound is not idle"


def test_the_noise_is_the_discrete_gaussian() -> None:
    source = random.Random(0)
    variance = Fraction(40)
    drawn = np.array([discrete_gaussian(variance, source.randrange) for _ in range(6000)])
    assert abs(drawn.mean()) < 4 * math.sqrt(40 / 6000)
    assert abs(drawn.var() / 40 - 1) < 0.12
    chances = np.exp(-(np.arange(-60, 61) ** 2) / 80.0)
    for value in (0, 5, -9):
        expected = chances[value + 60] / chances.sum()
        assert abs((drawn == value).mean() - expected) < 5 * math.sqrt(expected / 6000)


@pytest.mark.parametrize(("epsilon", "delta"), [(1.0, 1e-5), (8.0, 1e-6), (0.2, 1e-3)])
def test_the_noise_holds_the_epsilon_that_is_stated(epsilon: float, delta: float) -> None:
    """By the exact condition of a Gaussian mechanism (Balle & Wang 2018, arXiv 1805.06530), which the bound has to meet."""
    from scipy.stats import norm

    settings = PrivacySettings(epsilon, delta)
    ratio = sensitivity(30, settings) / math.sqrt(sigma2(30, settings))
    exact = norm.cdf(ratio / 2 - epsilon / ratio) - math.exp(epsilon) * norm.cdf(-ratio / 2 - epsilon / ratio)
    assert exact <= delta
    assert exact > delta * 1e-4, "and not by much more noise than is needed"


def test_many_units_give_ranges_near_the_true_ones_and_few_do_not() -> None:
    shift, source = 0.4, random.Random(1)
    truth = CENTRES.log2 + shift + CENTRES.headroom

    def errors(count: int, epsilon: float) -> np.ndarray:
        settings = PrivacySettings(epsilon)
        given = [unit(CENTRES.log2 + shift) for _ in range(count)]
        sites = {n: given[n - 1 :: 3] for n in (1, 2, 3)}
        apps = {
            n: sum_app(lambda _, n=n: private_plane(sites[n], CENTRES, settings, source.randrange), CLIP) for n in sites
        }
        found = private_ranges(secure_sum(LocalGrid(apps), SumSettings(clip=CLIP)), CENTRES, settings, "image")
        assert (found.epsilon, found.delta, found.unit) == (epsilon, 1e-5, "image")
        return np.log2([found.ranges[name][1] for name in TENSORS]) - truth

    assert np.abs(errors(600, 8.0)).max() < 0.2
    assert np.abs(errors(90, 1.0)).max() > 0.5


def test_without_enough_units_nothing_is_made_of_noise() -> None:
    nothing = Summed((np.zeros(len(ENDS) + 1),), 3, {}, 1.0)
    with pytest.raises(DataError, match="after noise for epsilon 1"):
        private_ranges(nothing, CENTRES, PrivacySettings(1.0), "image")
    with pytest.raises(SpecError, match="epsilon 0"):
        PrivacySettings(0.0)


def test_ends_that_a_graph_rules_out_cost_no_privacy(tmp_path: object) -> None:
    model = onnx.load(str(convolutional(tmp_path / "m.onnx")))  # type: ignore[operator]
    ends = ends_of(model, ["image", "c1", "n1", "r1", "out"])
    assert ends == (("image", 0), ("image", 1), ("c1", 0), ("c1", 1), ("r1", 0), ("out", 0), ("out", 1))


def test_more_units_than_the_sum_has_room_for_are_refused_and_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their count divides all ranges: cut at the clip, it made each of them wider without a word."""
    settings = PrivacySettings(1.0)
    most = most_units(len(ENDS), settings)
    one = units(1, 1)
    found = plain(one * most, settings, monkeypatch)
    assert found[-1] / plain(one, settings, monkeypatch)[-1] == most, "all of them count"
    with pytest.raises(DataError, match=f"at most {most}"):
        private_plane(one * (most + 1), CENTRES, settings)
    with pytest.raises(SpecError):
        PrivacySettings(1.0, reach_octaves=math.inf)
