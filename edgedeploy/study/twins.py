"""Widths that leave one network: channels are kept in multiples of a few, so that narrow layers round alike."""

from __future__ import annotations

from collections.abc import Callable

from edgedeploy.records.variant import Scalar, Variant
from edgedeploy.search.outcomes import Outcome, Scored

Arch = tuple[tuple[str, Scalar], ...]
Widths = tuple[int, ...]


class Twins:
    """Hears the outcomes of a search in their order. ``widths_of`` are the channels of each layer of an architecture that is
    cut to a uniform width; empty where it cannot be. Of what else than channels is cut nothing is said."""

    def __init__(self, widths_of: Callable[[Arch, float], Widths]) -> None:
        self._widths_of = widths_of
        self._known: dict[tuple[Arch, float], Widths] = {}
        self._first: dict[tuple[Arch, Widths], float] = {}

    def told(self, variant: Variant, outcome: Outcome) -> None:
        if isinstance(outcome, Scored) and (widths := self._widths(variant)):
            self._first.setdefault((variant.arch, widths), variant.width)

    def left_out(self, variant: Variant) -> str:
        """Of which other width this variant's network is, where that one has been evaluated; empty for none."""
        if not any(arch == variant.arch for arch, _ in self._first):
            return ""
        first = self._first.get((variant.arch, self._widths(variant)), variant.width)
        return "" if first == variant.width else f"its network is that of width {first:g}"

    def _widths(self, variant: Variant) -> Widths:
        if variant.width == 1.0 or variant.allocation or variant.shrink:
            return ()
        network = variant.arch, variant.width
        if network not in self._known:
            self._known[network] = self._widths_of(*network)
        return self._known[network]
