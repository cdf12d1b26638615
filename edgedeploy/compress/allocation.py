"""How one budget of channels is spread over a network's layers: the least sensitive channels per unit of cost go first.

In a U-Net the multiplications sit in the shallow levels and the bytes in the deep ones. One share of channels for all
layers saves both alike; a budget of one of the two is met with less loss where that one sits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgedeploy.errors import Unsupported
from edgedeploy.records.variant import Allocation

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Sensitivity:
    """What the channels are weighed by: the ``cost`` that the budget is of, and by layer the gradients of the gates on the
    channels that it reads: (cases, channels)."""

    cost: Allocation
    gates: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class LayerCost:
    """A convolution or linear layer that reads ``inputs`` channels and writes ``outputs``; with all of them it costs
    ``cost``. A depthwise layer's cost grows with its outputs alone."""

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

    def layers(self) -> list[str]:
        return list(dict.fromkeys((*self.reads, *self.writes)))


@dataclass(frozen=True)
class Share:
    """What stays of a group: the share ``kept`` of its channels, those of the largest ``importance``, or without one of the
    largest magnitude."""

    kept: float
    importance: tuple[float, ...]


NO_SHARES: Final[Mapping[str, Share]] = {}


def share_of(kept: int, channels: int, importance: tuple[float, ...] = ()) -> Share:
    """The share whose product with ``channels``, rounded down, is ``kept``."""
    return Share(min(1.0, (kept + 0.5) / channels), importance)


def spread(
    groups: Mapping[str, ChannelGroup], layers: Mapping[str, LayerCost], uniform: Mapping[str, int], multiple: int
) -> dict[str, Share]:
    """The share of each group by its name (a layer), such that all layers together cost at most what they do at the widths
    ``uniform``, which has output channels by layer. Raises what :func:`allocate` raises."""
    limit = _cost(groups, layers, {name: uniform[name] for name in groups}, layers)
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
    kept = {name: group.channels for name, group in groups.items()}
    orders = {name: sorted(group.importance) for name, group in groups.items()}
    total = _cost(groups, layers, kept, layers)

    def step(name: str, way: int) -> tuple[int, float, float]:
        """Channels after a step, the importance it moves and the cost it saves (negative: adds)."""
        now = kept[name]
        after = now + way * multiple if now % multiple == 0 else (now // multiple + (way > 0)) * multiple
        after = min(after, groups[name].channels)
        moved = sum(orders[name][groups[name].channels - max(now, after) : groups[name].channels - min(now, after)])
        touched = groups[name].layers()
        before = _cost(groups, layers, kept, touched)
        return after, moved, before - _cost(groups, layers, {**kept, name: after}, touched)

    while total > limit:
        offers = [(name, *step(name, -1)) for name in sorted(groups)]
        offers = [one for one in offers if one[1] >= groups[one[0]].least and one[3] > 0]
        if not offers:
            found = f"the least channels of every layer cost {total / limit:.2f} times as much"
            raise Unsupported("a budget of channels", found, "Search a larger width, or the uniform allocation")
        name, after, _, saved = min(offers, key=lambda one: one[2] / one[3])
        kept[name], total = after, total - saved
    while True:
        offers = [(name, *step(name, +1)) for name in sorted(groups) if kept[name] < groups[name].channels]
        offers = [one for one in offers if total - one[3] <= limit]
        if not offers:
            return kept
        name, after, _, saved = max(offers, key=lambda one: one[2] / max(-one[3], 1e-12))
        kept[name], total = after, total - saved


def _cost(
    groups: Mapping[str, ChannelGroup],
    layers: Mapping[str, LayerCost],
    kept: Mapping[str, int],
    names: Sequence[str] | Mapping[str, LayerCost],
) -> float:
    total = 0.0
    for name in names:
        layer = layers[name]
        inputs, outputs = float(layer.inputs), float(layer.outputs)
        for key, group in groups.items():
            gone = group.channels - kept[key]
            inputs -= gone * group.reads.get(name, 0)
            outputs -= gone * group.writes.get(name, 0)
        total += layer.at(inputs, outputs)
    return total
