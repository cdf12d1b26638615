"""Fake quantization: float tensors rounded to values that int8 can represent, with gradients that training can follow.

Symmetric int8: ``q = clamp(round(x / s), -128, 127)`` with zero point 0, and ``s q`` replaces ``x``. Halves round to
even, as in ONNX's ``QuantizeLinear``. Rounding has no useful gradient: the straight-through estimator treats it as the
identity where ``q`` is not clamped and as a constant where it is (Bengio et al., "Estimating or Propagating Gradients
Through Stochastic Neurons", 2013).

The range of an activation is observed, or learned as a step size (Esser et al., "Learned Step Size Quantization", 2020).
This module imports torch at its top: import it inside functions that have a model.
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal, cast

import torch
from torch import nn

from edgedeploy.records.weightbits import LARGEST_WEIGHT

QMIN: Final = -128
QMAX: Final = 127
SMALLEST_BOUND: Final = 1e-6
"""Smallest bound of a range, for an activation that is always zero: a scale has to be positive."""

NARROWEST_CHANNEL: Final = 2.0**-10
"""Smallest weight bound of a channel, as a share of the layer's largest. Runtimes store a bias as int32 in units of
input scale times weight scale: the bias of a channel whose weights are all close to zero would overflow."""

SAMPLE: Final = 1 << 16
"""A percentile is computed over at most this many values of a tensor."""

Ranges = Literal["observed", "learned"]


class LearnedStep(torch.autograd.Function):
    """``fake_quantize(x, exp(log_scale))`` with a gradient for the step as well.

    d(s q)/ds is ``round(x/s) - x/s`` where nothing is clamped, -128 or 127 where it is (Esser et al., equation 3), times
    ``1 / sqrt(n * 127)`` for n values (their section 2.2). The step is held as its logarithm, so that the optimiser's
    step is relative and the scale stays positive (Jain et al., "Trained Quantization Thresholds", MLSys 2020).
    """

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
        scale = log_scale.exp()
        zero = torch.zeros_like(scale, dtype=torch.int32)
        found = torch.fake_quantize_per_tensor_affine(values, scale, zero, QMIN, QMAX)
        ctx.save_for_backward(values, found, scale)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        (gradient,) = gradients
        values, found, scale = ctx.saved_tensors
        steps = torch.round(values / scale)
        inside = (steps >= QMIN) & (steps <= QMAX)
        by_step = torch.where(inside, found - values, found) / scale
        share = 1 / math.sqrt(values.numel() * QMAX)
        return gradient * inside, (gradient * by_step).sum() * share * scale


class ActivationQuantizer(nn.Module):
    """One scale for a tensor, or for the tensors at several ``sites`` that have to share one.

    - While ``observing``, values pass unchanged. Each site's bound is an exponential moving average of the
      ``percentile`` of its absolute values (100: their maximum), and the largest bound of all sites sets the scale.
    - After :meth:`stop_observing`, values are quantized. With ``observed`` ranges the bounds keep moving during
      training; with ``learned`` ranges the step becomes a trained parameter that starts from the observed bound.
    """

    def __init__(self, ranges: Ranges, *, sites: int = 1, percentile: float, momentum: float) -> None:
        super().__init__()
        self.ranges = ranges
        self.percentile, self.momentum = percentile, momentum
        self.observing = True
        self.bounds: torch.Tensor
        self.register_buffer("bounds", torch.zeros(sites))
        self.log_scale = nn.Parameter(torch.tensor(0.0), requires_grad=ranges == "learned")

    def forward(self, values: torch.Tensor, site: int = 0) -> torch.Tensor:
        if self.observing or (self.training and self.ranges == "observed"):
            self._observe(values.detach(), site)
        if self.observing:
            return values
        if self.ranges == "learned":
            return cast(torch.Tensor, LearnedStep.apply(values, self.log_scale))  # type: ignore[no-untyped-call]
        return fake_quantize(values, self.scale)

    @property
    def scale(self) -> torch.Tensor:
        """The distance of two neighbouring values, detached."""
        if self.ranges == "learned" and not self.observing:
            return self.log_scale.detach().exp()
        return self.bounds.max().clamp(min=SMALLEST_BOUND) / QMAX

    def stop_observing(self) -> None:
        """From now on values are quantized; a learned step begins at what was observed."""
        with torch.no_grad():
            self.log_scale.copy_(self.scale.log())
        self.observing = False

    def _observe(self, values: torch.Tensor, site: int) -> None:
        seen, kept = bound_of(values, self.percentile), self.bounds[site]
        self.bounds[site] = torch.lerp(kept, seen, self.momentum) if kept > 0 else seen

    def get_extra_state(self) -> torch.Tensor:
        """``observing`` is part of the saved state, so that a resumed training continues in the same phase."""
        return torch.tensor(self.observing)

    def set_extra_state(self, state: torch.Tensor) -> None:
        self.observing = bool(state)

    def frozen(self) -> FrozenQuantizer:
        return FrozenQuantizer(self.scale)


class WeightQuantizer(nn.Module):
    """Quantizes weights to ``bits`` bits with one scale per output channel along ``axis`` (None: one scale for all).
    Scales are computed from the current weights at each pass."""

    def __init__(self, axis: int | None, bits: int = 8) -> None:
        super().__init__()
        self.axis, self.bits = axis, bits

    def forward(self, weights: torch.Tensor) -> torch.Tensor:
        return fake_quantize(weights, weight_scales(weights.detach(), self.axis, self.bits), self.axis)

    def frozen(self, weights: torch.Tensor) -> FrozenQuantizer:
        return FrozenQuantizer(weight_scales(weights.detach(), self.axis, self.bits), self.axis)


class FrozenQuantizer(nn.Module):
    """A quantizer with fixed scales, made of nothing but what exports as a QuantizeLinear/DequantizeLinear pair."""

    def __init__(self, scale: torch.Tensor, axis: int | None = None) -> None:
        super().__init__()
        self.axis = axis
        self.scale: torch.Tensor
        self.zero_point: torch.Tensor
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("zero_point", torch.zeros_like(scale, dtype=torch.int32))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if self.axis is None:
            return torch.fake_quantize_per_tensor_affine(values, self.scale, self.zero_point, QMIN, QMAX)
        return torch.fake_quantize_per_channel_affine(values, self.scale, self.zero_point, self.axis, QMIN, QMAX)


def fake_quantize(values: torch.Tensor, scale: torch.Tensor, axis: int | None = None) -> torch.Tensor:
    """``values`` rounded to int8 steps of ``scale`` (a scalar, or one per index along ``axis``), with the
    straight-through gradient."""
    zero = torch.zeros_like(scale, dtype=torch.int32)
    if axis is None:
        return torch.fake_quantize_per_tensor_affine(values, scale, zero, QMIN, QMAX)
    return torch.fake_quantize_per_channel_affine(values, scale, zero, axis, QMIN, QMAX)


def weight_scales(weights: torch.Tensor, axis: int | None, bits: int = 8) -> torch.Tensor:
    """The largest absolute weight divided by the largest step of ``bits`` bits, per index along ``axis`` (None: over
    all weights), so that no weight is clamped."""
    steps = LARGEST_WEIGHT[bits]
    if axis is None:
        return weights.abs().max().clamp(min=SMALLEST_BOUND) / steps
    largest = weights.abs().amax(dim=[dim for dim in range(weights.ndim) if dim != axis])
    return largest.clamp(min=max(SMALLEST_BOUND, float(largest.max()) * NARROWEST_CHANNEL)) / steps


def bound_of(values: torch.Tensor, percentile: float) -> torch.Tensor:
    """The ``percentile`` of the absolute values; below 100 it is computed over at most ``SAMPLE`` evenly spaced
    values."""
    size = values.abs().flatten()
    if percentile >= 100:
        return size.max()
    size = size[:: max(1, math.ceil(size.numel() / SAMPLE))]
    return size.kthvalue(max(1, math.ceil(size.numel() * percentile / 100))).values
