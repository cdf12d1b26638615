"""Scores of chances, against scikit-learn, by hand, and against simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgedeploy.tasks.calibration import brier, calibration_error, chance_calibration_error, threshold_for


@pytest.mark.parametrize("classes", [2, 4])
def test_brier_is_scikit_learns(classes: int) -> None:
    from sklearn.metrics import brier_score_loss

    rng = np.random.default_rng(classes)
    truth, chances = rng.integers(0, classes, 60), rng.dirichlet(np.ones(classes), 60)
    wanted = (
        brier_score_loss(truth, chances[:, 1])
        if classes == 2
        else brier_score_loss(truth, chances, labels=list(range(classes)), scale_by_half=False)
    )
    found = [brier(row, int(label)) for row, label in zip(chances, truth, strict=True)]
    assert np.mean(found) == pytest.approx(wanted)
    assert chances.sum() == pytest.approx(60)  # what it was given is as it was


def test_calibration_error_by_hand() -> None:
    """Two bins: 0.6 and 0.8 of which one is right (|0.7 - 0.5| of 2), 1.0 which is right; 0.4 which is wrong."""
    confidences, right = np.array([0.6, 0.8, 1.0, 0.4]), np.array([True, False, True, False])
    assert calibration_error(confidences, right, 2) == pytest.approx((abs(2.4 - 2) + 0.4) / 4)
    assert calibration_error(confidences, right, 1) == pytest.approx(abs(2.8 - 2) / 4)


@pytest.mark.parametrize(
    ("cases", "bins", "about"), [(40, 5, 0.09), (40, 10, 0.11), (200, 10, 0.05), (1000, 10, 0.022)]
)
def test_a_model_that_is_calibrated_perfectly_has_an_error_too(cases: int, bins: int, about: float) -> None:
    rng = np.random.default_rng(0)
    confidences = np.clip(rng.beta(4, 1.3, (400, cases)), 0.5, 1)
    simulated = np.mean([calibration_error(row, rng.random(cases) < row, bins) for row in confidences])
    expected = np.mean([chance_calibration_error(row, bins) for row in confidences])
    assert expected == pytest.approx(simulated, rel=0.05)
    assert expected == pytest.approx(about, rel=0.1)


def test_certain_answers_have_none_by_chance() -> None:
    assert chance_calibration_error(np.ones(10), 5) == 0.0


@pytest.mark.parametrize(
    ("specificity", "threshold"), [(1.0, 0.925), (0.9, 0.825), (0.8, 0.725), (0.05, 0.025)], ids=str
)
def test_thresholds_lie_half_way_to_the_next_value(specificity: float, threshold: float) -> None:
    """Negatives at 0.0, 0.1 ... 0.9, positives at 0.05 (never found), 0.75, 0.85, 0.95."""
    values = np.concatenate([np.arange(10) / 10, [0.05, 0.75, 0.85, 0.95]])
    sides = np.array([False] * 10 + [True] * 4)
    found = threshold_for(specificity, sides, values)
    assert found == pytest.approx(threshold)
    assert (values[~sides] < found).mean() >= specificity


def test_thresholds_at_the_ends() -> None:
    above = threshold_for(0.9, np.array([False, True]), np.array([1.0, 0.5]))
    assert above > 1.0 and above == math.nextafter(1.0, math.inf)
    assert threshold_for(0.0, np.array([False, True]), np.array([0.3, 0.5])) == -math.inf
