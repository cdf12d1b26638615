"""Fake quantization by itself: what it computes, and what gradients it gives."""

from __future__ import annotations

import math

import pytest
import torch

from edgedeploy.compress.qat.fakequant import (
    ActivationQuantizer,
    LearnedStep,
    Ranges,
    WeightQuantizer,
    bound_of,
    weight_scales,
)

RANGES: tuple[Ranges, ...] = ("observed", "learned")
OBSERVING = {"percentile": 100.0, "momentum": 0.1}
each_way = pytest.mark.parametrize("ranges", RANGES)


def values(count: int = 4000, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    return scale * torch.randn(count, generator=torch.Generator().manual_seed(seed))


def ready(ranges: Ranges, bound: float) -> ActivationQuantizer:
    """A quantizer that has seen values up to ``bound``, in evaluation mode."""
    quantizer = ActivationQuantizer(ranges, **OBSERVING).eval()
    quantizer(torch.tensor([-bound / 2, bound]))
    quantizer.stop_observing()
    return quantizer


@each_way
def test_forward_and_gradient_are_those_of_torch(ranges: Ranges) -> None:
    """Values beyond the range included, and halves between two steps."""
    inputs = torch.cat([values(), torch.arange(-140, 140) * 0.5 * 2 / 127])
    mine, theirs = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    quantizer = ready(ranges, bound=2.0)
    assert float(quantizer.scale) == pytest.approx(2 / 127)
    found = quantizer(mine)
    wanted = torch.fake_quantize_per_tensor_affine(theirs, quantizer.scale, torch.tensor(0).int(), -128, 127)
    assert torch.equal(found, wanted)
    weight = values(len(inputs), seed=1)
    (found * weight).sum().backward()
    (wanted * weight).sum().backward()
    assert torch.equal(mine.grad, theirs.grad)
    assert (mine.grad == 0).sum() > 100, "some values were clamped"


def test_the_gradient_of_a_step_by_hand() -> None:
    """0.3 steps: round(0.3) - 0.3; clamped values: 127 and -128. Times scale (its logarithm is held) and 1/sqrt(n * 127)."""
    for steps, slope in ((0.3, -0.3), (2.6, 0.4), (500.0, 127.0), (-500.0, -128.0)):
        log_scale = torch.tensor(math.log(0.1), requires_grad=True)
        LearnedStep.apply(torch.tensor([0.1 * steps]), log_scale).backward()
        assert float(log_scale.grad) == pytest.approx(slope * 0.1 / math.sqrt(127), rel=1e-4)


def test_the_gradient_of_a_step_is_the_slope_where_there_is_one() -> None:
    """Where every value is clamped, quantization is differentiable in its step: central differences agree."""
    inputs = torch.tensor([30.0, -40.0, 55.0])
    weight = torch.tensor([1.0, -2.0, 0.5])
    log_scale = torch.tensor(math.log(0.1), requires_grad=True)
    (LearnedStep.apply(inputs, log_scale) * weight).sum().backward()

    def loss(log: float) -> float:
        found = torch.fake_quantize_per_tensor_affine(inputs.double(), math.exp(log), 0, -128, 127)
        return float((found * weight).sum())

    slope = (loss(math.log(0.1) + 1e-4) - loss(math.log(0.1) - 1e-4)) / 2e-4
    assert float(log_scale.grad) * math.sqrt(3 * 127) == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("start", [30.0, 0.2])
def test_a_learned_step_finds_a_good_range_from_a_bad_one(start: float) -> None:
    """The best bound of a normal distribution in 8 bits is about 4 deviations; both starts lose several times more."""
    inputs = values(20_000)
    quantizer = ready("learned", bound=start)
    optimiser = torch.optim.Adam(quantizer.parameters(), lr=0.05)

    def error() -> torch.Tensor:
        return (quantizer(inputs) - inputs).square().mean()

    before = float(error().detach())
    for _ in range(200):
        optimiser.zero_grad()
        error().backward()
        optimiser.step()
    assert 3.0 < float(quantizer.scale) * 127 < 5.0
    assert float(error()) < 0.2 * before


@each_way
def test_observing_changes_nothing_and_follows_the_values(ranges: Ranges) -> None:
    quantizer = ActivationQuantizer(ranges, percentile=100.0, momentum=0.5)
    for bound in (1.0, 3.0, 3.0):
        inputs = torch.linspace(-bound, bound / 3, 50)
        assert torch.equal(quantizer(inputs), inputs)
    assert float(quantizer.scale) * 127 == pytest.approx(2.5)  # 1, then half way to 3 twice


def test_only_observed_ranges_move_in_training_and_none_moves_in_evaluation() -> None:
    for ranges, moves in (("observed", True), ("learned", False)):
        quantizer = ready(ranges, bound=1.0)  # type: ignore[arg-type]
        quantizer(10 * values())
        assert float(quantizer.scale) == pytest.approx(1 / 127)
        quantizer.train()
        quantizer(10 * values())
        assert (float(quantizer.scale) > 1.1 / 127) == moves


def test_tensors_that_share_a_scale_keep_the_widest() -> None:
    quantizer = ActivationQuantizer("observed", sites=2, **OBSERVING)
    for _ in range(20):
        quantizer(torch.tensor([8.0]), 0)
        quantizer(torch.tensor([1.0]), 1)
    assert float(quantizer.scale) == pytest.approx(8 / 127)


def test_a_percentile_leaves_outliers_out() -> None:
    inputs = torch.cat([torch.linspace(0, 1, 9990), torch.full((10,), -100.0)])
    assert float(bound_of(inputs, 100.0)) == 100.0
    assert float(bound_of(inputs, 99.0)) == pytest.approx(0.99, abs=0.01)


@each_way
def test_what_was_always_zero_still_has_a_scale(ranges: Ranges) -> None:
    quantizer = ActivationQuantizer(ranges, **OBSERVING)
    quantizer(torch.zeros(8))
    quantizer.stop_observing()
    assert torch.equal(quantizer(torch.zeros(8)), torch.zeros(8))
    assert torch.equal(quantizer.frozen()(torch.zeros(8)), torch.zeros(8))


@pytest.mark.parametrize("axis", [0, 1, None])
def test_weights_are_off_by_half_a_step_of_their_channel_at_most(axis: int | None) -> None:
    weights = values(6 * 4 * 9).view(6, 4, 3, 3) * torch.logspace(-2, 1, 4).view(1, 4, 1, 1)
    quantizer = WeightQuantizer(axis)
    scales = weight_scales(weights, axis)
    assert scales.shape == (() if axis is None else (weights.shape[axis],))
    spread = scales if axis is None else scales.view([-1 if dim == axis else 1 for dim in range(4)])
    off = (quantizer(weights) - weights).abs()
    assert (off <= spread * 0.5001).all()
    assert torch.equal(quantizer.frozen(weights)(weights), quantizer(weights))
    weights.requires_grad_()
    quantizer(weights).sum().backward()
    assert torch.equal(weights.grad, torch.ones_like(weights)), "no weight is clamped"


def test_a_dead_channel_keeps_a_scale_that_its_bias_fits_into() -> None:
    """A bias is held as int32 in units of both scales together: 1 / (0.01 * scale) has to stay below 2^31."""
    weights = torch.randn(4, 3, 3, 3)
    weights[2] = 0
    scales = weight_scales(weights, 0)
    assert (scales > 0).all()
    assert 1 / (0.01 * float(scales[2])) < 2**31
