"""Disturbances of a known strength, and the extra loss that is counted from them."""

from __future__ import annotations

import numpy as np
import pytest

from edgedeploy.audit.intervals import bootstrap, wilson
from edgedeploy.audit.robustness import STRENGTHS, disturbed

IMAGES = np.full((4, 1, 64, 64), 0.5, np.float32)


@pytest.mark.parametrize("name", sorted(STRENGTHS))
def test_disturbed_images_keep_range_shape_and_type(name: str) -> None:
    images = np.random.default_rng(0).random((2, 1, 16, 16)).astype(np.float32)
    for strength in STRENGTHS[name]:
        found = disturbed(images, name, strength, 0.0, 1.0, np.random.default_rng(1))
        assert found.shape == images.shape
        assert found.dtype == np.float32
        assert found.min() >= 0
        assert found.max() <= 1
        assert not np.array_equal(found, images)


def test_strengths_are_what_they_say() -> None:
    rng = np.random.default_rng(0)
    assert disturbed(IMAGES, "noise", 0.05, 0.0, 1.0, rng).std() == pytest.approx(0.05, rel=0.05)
    assert disturbed(IMAGES, "gain", 0.7, 0.0, 1.0, rng).mean() == pytest.approx(0.35)
    speckle = disturbed(IMAGES, "speckle", 0.2, 0.0, 1.0, rng)
    assert speckle.mean() == pytest.approx(0.5, rel=0.02)
    assert speckle.std() == pytest.approx(0.1, rel=0.05)
    point = np.zeros((1, 1, 33, 33), np.float32)
    point[0, 0, 16, 16] = 1
    blurred = disturbed(point, "blur", 2.0, 0.0, 1.0, rng)[0, 0]
    rows = np.arange(33) - 16
    assert np.sqrt((blurred.sum(axis=1) * rows**2).sum() / blurred.sum()) == pytest.approx(2.0, rel=0.05)


def test_intervals_are_those_of_textbooks() -> None:
    found = wilson(0.9, 100)
    assert (found.low, found.high) == (pytest.approx(0.8256, abs=1e-3), pytest.approx(0.9448, abs=1e-3))
    assert str(wilson(0.0, 12)).startswith("0 to 0.24") and str(wilson(1.0, 12)).endswith(" to 1")
    assert wilson(0.0, 0) == wilson(1.0, 0)
    values = np.random.default_rng(0).normal(1.0, 1.0, 400)
    interval = bootstrap(400, lambda rows: float(values[rows].mean()), 0, "test")
    assert interval.high - interval.low == pytest.approx(2 * 1.96 / 20, rel=0.15)
