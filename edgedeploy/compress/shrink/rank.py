"""Layers of low rank: a linear layer becomes two thin ones, a convolution three (Tucker-2).

The factors are those that change the layer's outputs least over what it reads, not its weights: the weight is multiplied
by a square root of its inputs' second moment, cut to its largest singular values, and the root is taken out again (as in
Wang et al., "SVD-LLM", 2024; Kim et al., "Compression of Deep Convolutional Neural Networks", 2015, for Tucker-2). A bias
takes the mean.

This module needs torch: import it inside functions.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, Final

import torch
from torch import nn

from edgedeploy.compress.shrink.attention import linear_like
from edgedeploy.compress.shrink.given import Given, at_least, refused
from edgedeploy.compress.shrink.heads import with_own_heads
from edgedeploy.compress.shrink.moments import Moment, in_passes
from edgedeploy.compress.shrink.parts import calls_of

STEP: Final = 4
"""Ranks are multiples of this, as channels are (:mod:`edgedeploy.compress.prune`)."""

SWEEPS: Final = 2
"""How often the two factors of a convolution are fitted to each other."""


class LowRankLinear(nn.Module):
    """``second(first(x))`` in the place of one linear layer."""

    def __init__(self, first: nn.Linear, second: nn.Linear) -> None:
        super().__init__()
        self.first = first
        self.second = second
        self.in_features, self.out_features = first.in_features, second.out_features

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.second(self.first(values))
        return answer

    @property
    def weight(self) -> torch.Tensor:
        """The weight of the one layer: models ask theirs for its data type."""
        return self.second.weight @ self.first.weight

    @property
    def bias(self) -> torch.Tensor:
        return self.second.bias


def lower_rank(model: nn.Module, share: float, given: Given) -> None:
    """Factors of the ``share`` of its full rank in the place of every linear layer and convolution that multiplies less so.

    Layers that produce the outputs stay, and those whose weights something else uses."""
    with_own_heads(model, given)
    names = [name for name in _candidates(model, given) if _saves(model.get_submodule(name), share)]
    if not names:
        raise refused("rank", f"no layer would multiply less with {share:g} of its rank")
    for part in in_passes(model, names):
        moments = given.moments(model, part)
        for name in part:
            layer = model.get_submodule(name)
            root = None if given.feeds is None else moments[name]
            made = low_rank(layer, share, root) if isinstance(layer, nn.Linear) else tucker(layer, share, root)
            model.set_submodule(name, made)


def _candidates(model: nn.Module, given: Given) -> list[str]:
    owners = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    names = [
        name
        for name, module in model.named_modules()
        if name and isinstance(module, kinds) and name not in given.outputs and owners[id(module.weight)] == 1
    ]
    called = calls_of(model, given.inputs, names)
    return [name for name in names if name in called]


def _saves(layer: Any, share: float) -> bool:
    """Whether the factors multiply less than the layer, for each of its outputs' positions."""
    if isinstance(layer, nn.Linear):
        sides = layer.in_features, layer.out_features
        return at_least(share, min(sides), STEP) * sum(sides) < math.prod(sides)
    if layer.groups != 1 or min(layer.in_channels, layer.out_channels) < 2 * STEP:
        return False
    before, after = _ranks(layer, share)
    kernel, stride = math.prod(layer.kernel_size), math.prod(layer.stride)
    factors = stride * layer.in_channels * before + kernel * before * after + after * layer.out_channels
    return bool(factors < kernel * layer.in_channels * layer.out_channels)


def _ranks(layer: Any, share: float) -> tuple[int, int]:
    return at_least(share, layer.in_channels, STEP), at_least(share, layer.out_channels, STEP)


def low_rank(layer: nn.Linear, share: float, moment: Moment | None) -> LowRankLinear:
    """Two layers in the place of one; without a moment, the best ones for its weights alone (plain SVD)."""
    weight = layer.weight.detach().double()
    bias = None if layer.bias is None else layer.bias.detach().double()
    root, inverse = _roots(moment, weight.shape[1], centred=bias is not None)
    left, values, right = torch.linalg.svd(weight @ root, full_matrices=False)
    rank = at_least(share, min(weight.shape), STEP)
    second, first = left[:, :rank] * values[:rank].sqrt(), values[:rank].sqrt()[:, None] * right[:rank] @ inverse
    if bias is not None and moment is not None:
        bias = bias + (weight - second @ first) @ moment.mean
    return LowRankLinear(linear_like(layer, first, None), linear_like(layer, second, bias))


def _roots(moment: Moment | None, width: int, centred: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """A square root of the second moment, and its inverse; the identity without one."""
    if moment is None:
        return torch.eye(width).double(), torch.eye(width).double()
    values, vectors = torch.linalg.eigh(moment.spread(centred))
    roots = values.clamp_min(torch.finfo(torch.float64).tiny).sqrt()
    return vectors * roots, (vectors / roots).T


def tucker(layer: Any, share: float, moment: Moment | None) -> nn.Sequential:
    """Three convolutions in the place of one: onto fewer channels, the kernel, and back."""
    before, after = _ranks(layer, share)
    weight = layer.weight.detach().double()
    root, inverse = _roots(moment, layer.in_channels, centred=False)
    scaled = torch.einsum("oi...,ij->oj...", weight, root)
    into = _leading(scaled.transpose(0, 1), before)
    out = _leading(scaled, after)
    for _ in range(SWEEPS):
        into = _leading(torch.einsum("oi...,or->ri...", scaled, out).transpose(0, 1), before)
        out = _leading(torch.einsum("oi...,ir->or...", scaled, into), after)
    core = torch.einsum("oi...,or,is->rs...", scaled, out, into)
    kind, point = type(layer), (1,) * (weight.ndim - 2)
    first = kind(layer.in_channels, before, 1, bias=False)
    middle = kind(
        before,
        after,
        layer.kernel_size,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        padding_mode=layer.padding_mode,
        bias=False,
    )
    last = kind(after, layer.out_channels, 1, bias=layer.bias is not None)
    with torch.no_grad():
        first.weight.copy_((into.T @ inverse).view(before, layer.in_channels, *point))
        middle.weight.copy_(core)
        last.weight.copy_(out.view(layer.out_channels, after, *point))
        if layer.bias is not None:
            last.bias.copy_(layer.bias)
    made = nn.Sequential(first, middle, last).train(layer.training)
    return made.requires_grad_(layer.weight.requires_grad)


def _leading(values: torch.Tensor, rank: int) -> torch.Tensor:
    """The ``rank`` leading left singular vectors of the matrix of the first axis against all others."""
    flat = values.flatten(1)
    vectors: torch.Tensor = torch.linalg.eigh(flat @ flat.T)[1]
    return vectors.flip(1)[:, :rank]
