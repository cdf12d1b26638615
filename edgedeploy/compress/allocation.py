"""How one budget of channels is spread over a network's layers: the least sensitive channels per unit of cost go first.

In a U-Net the multiplications sit in the shallow levels and the bytes in the deep ones. One share of channels for all
layers saves both alike; a budget of one of the two is met with less loss where that one sits. A budget of time is spent by
what the layers of the whole network took on a board (:mod:`edgedeploy.records.layer_times`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from edgedeploy.errors import Unsupported
from edgedeploy.records.layer_times import LayerTimes
from edgedeploy.records.variant import Allocation

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Sensitivity:
    """What the channels are weighed by: the ``cost`` that the budget is of, and by layer the gradients of the gates on the
    channels that it reads: (cases, channels). A budget of time needs ``times``."""

    cost: Allocation
    gates: Mapping[str, torch.Tensor]
    times: LayerTimes | None = None


@dataclass(frozen=True)
class LayerCost:
    """A convolution or linear layer that reads ``inputs`` channels and writes ``outputs``; with all of them it costs
    ``cost``. A depthwise layer's cost grows with its outputs alone. So do multiplications and bytes; of a time it is a
    model, which leaves out what a layer takes however few its channels are."""

    inputs: int
    outputs: int
    cost: float
    depthwise: bool = False

    def at(self, inputs: float, outputs: float) -> float:
        return self.cost * outputs / self.outputs * (1.0 if self.depthwise else inputs / self.inputs)


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that go together. ``reads`` and ``writes`` say how many inputs and outputs of a layer a channel of the group
    is; ``importance`` has one number a channel, and ``least`` channels always stay."""

    channels: int
    reads: Mapping[str, float]
    writes: Mapping[str, float]
    importance: tuple[float, ...]
    least: int

    @cached_property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.reads, *self.writes)))


@dataclass(frozen=True)
class Share:
    """What stays of a group: the share ``kept`` of its channels, those of the largest ``importance``, or without one of the
    largest magnitude."""

    kept: float
    importance: tuple[float, ...]


NO_SHARES: Final[Mapping[str, Share]] = {}
NO_WIDTHS: Final[Mapping[str, int]] = {}


def share_of(kept: int, channels: int, importance: tuple[float, ...] = ()) -> Share:
    """The share whose product with ``channels``, rounded down, is ``kept``."""
    return Share(min(1.0, (kept + 0.5) / channels), importance)


def spread(
    groups: Mapping[str, ChannelGroup], layers: Mapping[str, LayerCost], uniform: Mapping[str, int], multiple: int
) -> dict[str, Share]:
    """The share of each group by its name (a layer), such that all layers together cost at most what they do at the widths
    ``uniform``, which has output channels by layer. Raises what :func:`allocate` raises."""
    limit = _Network(groups, layers, {name: uniform[name] for name in groups}).cost
    kept = allocate(groups, layers, limit, multiple)
    return {name: share_of(kept[name], group.channels, group.importance) for name, group in groups.items()}


def allocate(
    groups: Mapping[str, ChannelGroup], layers: Mapping[str, LayerCost], limit: float, multiple: int
) -> dict[str, int]:
    """How many channels each group keeps, by its name, such that all layers together cost at most ``limit``.

    From all channels on, the ``multiple`` of them with the least importance per saved cost are taken away until the cost is
    within the limit; what is left of it is given back where that is worth most. Ties go to the first name. Raises
    ``Unsupported`` when the limit is not reached with the least channels of every group.
    """
    network = _Network(groups, layers, {name: group.channels for name, group in groups.items()})
    while network.cost > limit:
        fewer = [network.changed(name, _below(network.kept[name], multiple)) for name in sorted(groups)]
        fewer = [one for one in fewer if one.kept >= groups[one.name].least and one.cost < 0]
        if not fewer:
            least = min(group.least for group in groups.values())
            found = f"the least channels of every layer ({least} or more) cost {network.cost / limit:.2f} times as much"
            raise Unsupported("a budget of channels", found, "Search a larger width, or the uniform allocation")
        network.take(min(fewer, key=lambda one: one.worth))
    while True:
        more = [network.changed(name, _above(network.kept[name], multiple)) for name in sorted(groups)]
        more = [one for one in more if one.kept <= groups[one.name].channels and network.cost + one.cost <= limit]
        if not more:
            return network.kept
        network.take(max(more, key=lambda one: one.worth))


def _below(channels: int, multiple: int) -> int:
    return (channels - 1) // multiple * multiple


def _above(channels: int, multiple: int) -> int:
    return (channels // multiple + 1) * multiple


@dataclass(frozen=True)
class _Change:
    """Another number of channels of a group: the ``cost`` that it adds, and the importance it moves per cost."""

    name: str
    kept: int
    cost: float
    worth: float


class _Network:
    """A network on its way to a budget: channels that each group has ``kept``, and the ``cost`` of all layers."""

    def __init__(
        self, groups: Mapping[str, ChannelGroup], layers: Mapping[str, LayerCost], kept: Mapping[str, int]
    ) -> None:
        self.kept = dict(kept)
        self._groups = groups
        self._layers = layers
        self._of = {name: [key for key, group in groups.items() if name in group.layers] for name in layers}
        self._ranked = {name: sorted(group.importance) for name, group in groups.items()}
        self.cost = sum(self._layer_cost(name, {}) for name in layers)

    def changed(self, name: str, kept: int) -> _Change:
        group, now = self._groups[name], self.kept[name]
        less, more = sorted((now, kept))
        moved = sum(self._ranked[name][group.channels - more : group.channels - less])
        cost = sum(self._layer_cost(layer, {name: kept}) - self._layer_cost(layer, {}) for layer in group.layers)
        return _Change(name, kept, cost, moved / abs(cost) if cost else math.inf)

    def take(self, change: _Change) -> None:
        self.kept[change.name] = change.kept
        self.cost += change.cost

    def _layer_cost(self, name: str, otherwise: Mapping[str, int]) -> float:
        layer = self._layers[name]
        inputs, outputs = float(layer.inputs), float(layer.outputs)
        for key in self._of[name]:
            group = self._groups[key]
            gone = group.channels - otherwise.get(key, self.kept[key])
            inputs -= gone * group.reads.get(name, 0.0)
            outputs -= gone * group.writes.get(name, 0.0)
        return layer.at(inputs, outputs)
