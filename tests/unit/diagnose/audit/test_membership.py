"""LiRA on signals whose law is known: a leak is found as large as it is, no leak is none, little data is told as little."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import scipy

from edgedeploy.diagnose.audit.membership import FEWEST_OUTSIDERS, attack, auc, confidence, ratios, true_positives
from edgedeploy.diagnose.audit.shadows import attacks

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def simulated(
    leak: float, models: int = 2, shadows: int = 64, cases: int = 400, seed: int = 0, joint: float = 0.0
) -> tuple[dict[str, tuple[Floats, Floats]], Bools, Bools]:
    """Signals of two artifacts: a level of each case, ``leak`` more where it was trained on, and noise of variance 1, of
    which the share ``joint`` is common to both."""
    rng = np.random.default_rng(seed)
    level = rng.normal(0, 3, cases)
    sides = []
    for count in (models, shadows):
        had = rng.random((count, cases)) < 0.5
        common = rng.standard_normal((count, cases))
        noises = [np.sqrt(joint) * common + np.sqrt(1 - joint) * rng.standard_normal((count, cases)) for _ in range(2)]
        sides.append((had, [level + leak * had + noise for noise in noises]))
    (audited_on, own), (trained_on, theirs) = sides
    return {"float": (own[0], theirs[0]), "int8": (own[1], theirs[1])}, audited_on, trained_on


def test_a_leak_is_found_as_large_as_theory_says() -> None:
    signals, audited_on, trained_on = simulated(leak=1.0)
    found = attack({"int8": signals["int8"]}, audited_on, trained_on)
    theory = scipy.stats.norm.cdf(1 / np.sqrt(2))  # two normal laws one standard deviation apart
    assert found.auc == pytest.approx(theory, abs=0.03)
    assert found.auc_interval.low < theory < found.auc_interval.high
    assert found.tpr is not None and found.tpr_interval is not None
    assert found.tpr_interval.low <= found.tpr <= found.tpr_interval.high
    assert (found.models, found.shadows) == (2, 64)


def test_without_a_leak_the_interval_holds_one_half() -> None:
    inside = 0
    for seed in range(6):
        signals, audited_on, trained_on = simulated(leak=0.0, models=1, seed=seed)
        interval = attack({"int8": signals["int8"]}, audited_on, trained_on).auc_interval
        inside += interval.low <= 0.5 <= interval.high
    assert inside >= 5


def test_two_artifacts_tell_more_where_their_noise_is_their_own_and_no_more_where_it_is_shared() -> None:
    alone_float, alone_int8, both = (item.auc for item in attacks(*simulated(leak=0.7, models=4)))
    assert both > max(alone_float, alone_int8) + 0.03
    shared = [item.auc for item in attacks(*simulated(leak=0.7, models=4, joint=0.999))]
    assert shared[2] == pytest.approx(max(shared[:2]), abs=0.02)


def test_cases_that_every_shadow_had_are_left_out() -> None:
    signals, _, trained_on = simulated(leak=1.0)
    trained_on[:, 0] = True
    own, theirs = signals["int8"]
    scores = ratios(own[:1], theirs[:, None], trained_on)
    assert np.isnan(scores[0])
    assert np.isfinite(scores[1:]).all()


def test_few_outsiders_give_no_rate_at_one_percent() -> None:
    signals, audited_on, trained_on = simulated(leak=1.0, models=1, cases=FEWEST_OUTSIDERS)
    found = attack(signals, audited_on, trained_on)
    assert found.tpr is None
    assert found.tpr_interval is None
    with pytest.raises(ValueError, match="no model has members"):
        attack(signals, np.ones_like(audited_on), trained_on)


def test_the_curve_is_that_of_textbooks() -> None:
    inside, outside = np.array([3.0, 2.0, 1.0]), np.array([2.0, 0.0])
    assert auc(inside, outside) == pytest.approx((2 + 1.5 + 1) / 6)
    assert true_positives(np.array([2.0, 0.5]), np.linspace(0, 1, 100)) == 0.5
    assert confidence(np.array([0.5]))[0] == pytest.approx(0.0)
    assert np.isfinite(confidence(np.array([0.0, 1.0]))).all()
