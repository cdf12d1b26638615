"""What each layer costs and loses in each precision: all that the programme knows of a network.

A loss is a share of the outputs' power that is noise, or what a metric of the task loses: losses of several sources add up
while they are small. A tensor
between two layers is rounded once, however many of its neighbours ask for it: a :class:`Noise` counts as soon as one of its
members is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Member = tuple[int, str]
"""A group by its place in the table, and a precision that it may get."""


@dataclass(frozen=True)
class Cost:
    """``time_ns`` of an inference, ``size_bytes`` of weights."""

    time_ns: float
    size_bytes: float = 0.0


@dataclass(frozen=True)
class Group:
    """Layers that have one precision together, and what they cost in each that they may have, in order of preference: of
    plans that cost and lose the same, one with earlier precisions is taken."""

    layers: tuple[str, ...]
    costs: Mapping[str, Cost]


@dataclass(frozen=True)
class Noise:
    """Rounding that adds ``loss`` when any of ``members`` is chosen. It is negative for a rounding that happens to improve a
    metric."""

    name: str
    loss: float
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Border:
    """Two groups that pass a tensor on: where their precisions differ it is converted, which takes ``time_ns``."""

    first: int
    second: int
    time_ns: float


@dataclass(frozen=True)
class Table:
    """Raises ``ValueError`` for costs that are negative, for numbers that are not finite, and for members that do not
    exist."""

    groups: tuple[Group, ...]
    noises: tuple[Noise, ...]
    borders: tuple[Border, ...] = ()

    def __post_init__(self) -> None:
        costs = [number for group in self.groups for cost in group.costs.values() for number in vars(cost).values()]
        costs += [border.time_ns for border in self.borders]
        if not all(math.isfinite(number) and number >= 0 for number in costs):
            raise ValueError("costs must be finite and not negative")
        if not all(math.isfinite(noise.loss) for noise in self.noises):
            raise ValueError("losses must be finite")
        if not self.groups or not all(group.costs for group in self.groups):
            raise ValueError("a table has at least one group, and each group a precision")
        known = {(index, name) for index, group in enumerate(self.groups) for name in group.costs}
        asked = {member for noise in self.noises for member in noise.members}
        asked |= {(place, next(iter(self.groups[place].costs))) for b in self.borders for place in (b.first, b.second)}
        if not asked <= known:
            raise ValueError(f"no group has {sorted(asked - known)}")

    def plan(self, precisions: Sequence[str]) -> Plan:
        """What one precision for each group costs and loses."""
        chosen = set(enumerate(precisions))
        costs = [group.costs[name] for group, name in zip(self.groups, precisions, strict=True)]
        converted = [b.time_ns for b in self.borders if precisions[b.first] != precisions[b.second]]
        return Plan(
            precisions=tuple(precisions),
            time_ns=math.fsum([*(cost.time_ns for cost in costs), *converted]),
            size_bytes=math.fsum(cost.size_bytes for cost in costs),
            loss=math.fsum(noise.loss for noise in self.noises if not chosen.isdisjoint(noise.members)),
        )


@dataclass(frozen=True)
class Plan:
    """The precision of each group of a table in its order, and what the table says that they cost and lose together."""

    precisions: tuple[str, ...]
    time_ns: float
    size_bytes: float
    loss: float
