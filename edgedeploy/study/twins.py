"""Widths that leave one network: channels are kept in multiples of a few, so that narrow layers round alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from edgedeploy.records.variant import Scalar, Variant
from edgedeploy.search.outcomes import Outcome, Scored

Arch = tuple[tuple[str, Scalar], ...]
Widths = tuple[int, ...]


class Twins:
    """Hears the outcomes of a search in their order. ``widths_of`` are the channels of each layer of an architecture that is
    cut to a uniform width; empty where it cannot be. It is asked only where another width has been evaluated: a network is
    built and cut for it. Of what else than channels is cut nothing is said. What is not ``offered`` is never proposed, and
    stands for nothing."""

    def __init__(self, widths_of: Callable[[Arch, float], Widths], offered: Callable[[Variant], bool]) -> None:
        self._widths_of = widths_of
        self._offered = offered
        self._known: dict[tuple[Arch, float], Widths] = {}
        self._told: dict[Arch, list[float]] = {}
        self._stands_in: dict[tuple[str, float], bool] = {}

    def told(self, variant: Variant, outcome: Outcome) -> None:
        if isinstance(outcome, Scored) and _is_cut(variant):
            widths = self._told.setdefault(variant.arch, [])
            if variant.width not in widths:
                widths.append(variant.width)

    def left_out(self, variant: Variant) -> str:
        """Of which other width this variant's network is, where that one has been evaluated and may be evaluated as this
        variant would be; empty for none."""
        if not _is_cut(variant):
            return ""
        for first in self._told.get(variant.arch, ()):
            if first == variant.width:
                return ""
            if self._are_one(variant, first):
                return f"its network is that of width {first:g}"
        return ""

    def _are_one(self, variant: Variant, width: float) -> bool:
        channels = self._channels(variant.arch, variant.width)
        if not channels or channels != self._channels(variant.arch, width):
            return False
        asked = variant.digest, width
        if asked not in self._stands_in:
            self._stands_in[asked] = self._offered(replace(variant, width=width))
        return self._stands_in[asked]

    def _channels(self, arch: Arch, width: float) -> Widths:
        if (arch, width) not in self._known:
            self._known[arch, width] = self._widths_of(arch, width)
        return self._known[arch, width]


def _is_cut(variant: Variant) -> bool:
    return not (variant.width == 1.0 or variant.allocation or variant.shrink)
