"""Means and second moments of what layers read, over calibration cases; and weights that fit them.

This module needs torch: import it inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import torch
from torch import nn

from edgedeploy.compress.shrink.parts import run_watched
from edgedeploy.reference.passes import passes

MOST_BYTES: Final = 256 << 20
"""Memory for the moments of the layers that are looked at in one pass."""

RIDGE: Final = 1e-3
"""Share of the mean variance that is added to every direction: few cases leave some of them unseen."""

Feeds = Callable[[], Iterable[Any]]
"""Gives the inputs of the calibration cases, one case at a time, on every call from the first one on."""


class Moment:
    """Mean and second moment of rows of features (rows, features), which are added a case at a time.

    They are summed about the mean of the first rows: where features vary little about a large mean, sums about zero would
    lose the variance to rounding.
    """

    def __init__(self) -> None:
        self.count = 0
        self._origin = self._total = self._square = torch.zeros(0).double()

    def add(self, rows: torch.Tensor) -> None:
        if not self.count:
            self._origin = rows.mean(0).double()
            self._total = torch.zeros_like(self._origin)
            self._square = torch.zeros(rows.shape[1], rows.shape[1]).double()
        off = rows - self._origin.to(rows.dtype)
        self.count += len(rows)
        self._total += off.sum(0).double()
        self._square += (off.T @ off).double()

    @property
    def mean(self) -> torch.Tensor:
        return self._origin.float().double() + self._total / self.count

    def spread(self, centred: bool) -> torch.Tensor:
        """Second moment about the mean (``centred``) or about zero, with the ridge on its diagonal."""
        off = self._total / self.count
        found = self._square / self.count - torch.outer(off, off)
        if not centred:
            found = found + torch.outer(self.mean, self.mean)
        least = RIDGE * found.diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny)
        return found + least * torch.eye(len(found), dtype=found.dtype)


def moments_of(model: nn.Module, names: Sequence[str], feeds: Feeds) -> dict[str, Moment]:
    """Moments of what linear layers read, and of the channels that convolutions read, by the layer's name. A layer that is
    never called has none."""
    found: dict[str, Moment] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(module: Any, args: tuple[Any, ...]) -> None:
            rows = rows_of(module, args[0].detach())
            found.setdefault(name, Moment()).add(rows)

        return hook

    handles = [model.get_submodule(name).register_forward_pre_hook(watch(name)) for name in names]
    run_watched(model, feeds(), handles)
    return found


def rows_of(layer: nn.Module, values: torch.Tensor) -> torch.Tensor:
    """What a layer reads as (rows, features): of a convolution, one row per position."""
    moved = values if isinstance(layer, nn.Linear) else values.movedim(1, -1)
    return moved.reshape(-1, moved.shape[-1]).float()


def in_passes(model: nn.Module, names: Sequence[str]) -> Iterator[list[str]]:
    """The layers in their order, as many at a time as the memory for their moments allows."""
    layers = {name: model.get_submodule(name) for name in names}
    features = {
        name: int(layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels)  # type: ignore[arg-type]
        for name, layer in layers.items()
    }
    return passes({name: 8 * count**2 for name, count in features.items()}, MOST_BYTES)


def weighed(layer: nn.Linear, moment: Moment) -> torch.Tensor:
    """How much each feature that ``layer`` reads moves its outputs: the feature's variance (its mean, where there is no
    bias to take it) times the squared norm of its column."""
    spread = moment.spread(layer.bias is not None).diagonal()
    return spread * layer.weight.detach().double().square().sum(0)


def refitted(layer: nn.Linear, moment: Moment | None, kept: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias of ``layer`` for the features ``kept`` alone, such that its outputs change least over the rows of the
    moment (least squares); without a moment, those that it has."""
    weight, bias = layer.weight.detach().double(), None if layer.bias is None else layer.bias.detach().double()
    at = torch.tensor(list(kept))
    if moment is None:
        return layer.weight.detach()[:, at], None if layer.bias is None else layer.bias.detach()
    spread = moment.spread(bias is not None)
    fitted = torch.linalg.solve(spread[at][:, at], (weight @ spread[:, at]).T).T
    if bias is not None:
        bias = bias + weight @ moment.mean - fitted @ moment.mean[at]
    return fitted.float(), None if bias is None else bias.float()
