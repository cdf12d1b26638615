"""The test of residuals: silent where weights are as training leaves them, loud where somebody moved them in their cells."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from edgedeploy.diagnose.audit.grids import Grid
from edgedeploy.diagnose.audit.residuals import Residuals, look_at_residuals

Floats = npt.NDArray[np.float64]


def steps_of(weights: Floats, levels: float = 127.0) -> Floats:
    return np.asarray(weights * levels / np.abs(weights).max(axis=1, keepdims=True))


def looked(*layers: Floats, narrow: bool = False) -> Residuals:
    return look_at_residuals([Grid(f"layer{place}", each, "test", narrow) for place, each in enumerate(layers)])


def moved(steps: Floats, room: float, share: float = 1.0, seed: int = 0) -> Floats:
    """The same codes, a share of the residuals pushed to the edge of the cell; the largest of each channel stays."""
    rng = np.random.default_rng(seed)
    codes = np.rint(steps)
    pushed = codes + room * rng.choice([-1.0, 1.0], steps.shape)
    free = (np.abs(codes) < np.abs(codes).max(axis=1, keepdims=True)) & (rng.random(steps.shape) < share)
    return np.where(free, pushed, steps)


@pytest.mark.parametrize("seed", range(12))
def test_weights_of_any_bell_are_as_chance_leaves_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    layers = [
        steps_of(rng.standard_normal((32, 288))),
        steps_of(rng.laplace(size=(16, 72))),
        steps_of(rng.standard_normal((16, 9))),
        steps_of(rng.standard_t(2, size=(24, 144))),  # outliers: most weights are a few steps wide, most codes 0 or 1
    ]
    found = looked(*layers)
    assert not found.abstained
    assert found.flagged == ()


def test_weights_a_step_wide_are_no_finding_though_their_residuals_are_not_even() -> None:
    rng = np.random.default_rng(3)
    narrow = rng.standard_normal((32, 288)) * 0.25
    narrow[:, 0] = 127.0
    found = looked(narrow)
    residuals = narrow[:, 1:] - np.rint(narrow[:, 1:])
    assert np.mean(np.abs(residuals) > 0.45) < 0.08, "an even law would have a tenth there"
    assert found.flagged == ()


@pytest.mark.parametrize(("room", "share"), [(0.49, 1.0), (0.49, 0.3), (0.3, 1.0)])
def test_moved_weights_are_told_by_layer(room: float, share: float) -> None:
    rng = np.random.default_rng(1)
    clean, planted = (steps_of(rng.standard_normal((32, 288))) for _ in range(2))
    found = looked(clean, moved(planted, room, share))
    assert found.flagged == ("layer1",)
    assert found.found


def test_evenly_spread_residuals_are_not_seen_which_is_a_limit() -> None:
    rng = np.random.default_rng(1)
    codes = np.rint(steps_of(rng.standard_normal((32, 288))))
    free = np.abs(codes) < np.abs(codes).max(axis=1, keepdims=True)
    assert not looked(codes + free * rng.uniform(-0.5, 0.5, codes.shape)).found


def test_weights_that_were_rounded_before_say_nothing() -> None:
    codes = np.rint(steps_of(np.random.default_rng(0).standard_normal((32, 288))))
    found = looked(codes)
    assert "rounded before" in found.abstained
    assert not found.found


def test_weights_of_a_narrow_type_and_no_weights_say_nothing() -> None:
    steps = steps_of(np.random.default_rng(0).standard_normal((32, 288)))
    assert "bfloat16" in looked(steps, narrow=True).abstained
    assert "no int8 weights" in look_at_residuals([]).abstained
    assert "not found" not in look_at_residuals([]).abstained
    assert "were found in the cells" in look_at_residuals([], ["conv"]).abstained
    assert "no layer has" in looked(steps[:2, :8]).abstained
