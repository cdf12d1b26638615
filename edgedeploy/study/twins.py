"""Shares that leave one network: channels are kept in multiples of a few, blocks and heads are whole, so that shares round
alike."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Final, NamedTuple

from edgedeploy.records.elastic import Elastic
from edgedeploy.records.shrink import Shrink
from edgedeploy.records.variant import Scalar, Variant
from edgedeploy.search.outcomes import Outcome, Scored

Arch = tuple[tuple[str, Scalar], ...]

WIDTH: Final = "width"


class Cut(NamedTuple):
    """The shares that a variant keeps, as far as it is known what networks they leave."""

    width: float = 1.0
    depth: float = 1.0
    heads: float = 1.0
    mlp: float = 1.0

    @property
    def shares(self) -> dict[str, float]:
        """Those that are not all, by their names in the search."""
        return {name: share for name, share in self._asdict().items() if share < 1.0}


class Whole(NamedTuple):
    """What a variant is cut from, and what it loses besides: of two variants with the same whole, equal cuts leave one
    network, whatever target and precision they are for."""

    arch: Arch
    shrink: Shrink
    elastic: Elastic


class Twins:
    """Hears the outcomes of a search in their order. ``left_of`` says what one share by its name, and no other, leaves of an
    architecture; falsy where it cannot be cut so. It is asked only where another share has been evaluated, and once: a
    network is built and cut for it. Of allocated widths nothing is said. What is not ``offered`` is never proposed, and
    stands for nothing."""

    def __init__(self, left_of: Callable[[Arch, str, float], Hashable], offered: Callable[[Variant], bool]) -> None:
        self._left_of = left_of
        self._offered = offered
        self._known: dict[tuple[Arch, str, float], Hashable] = {}
        self._told: dict[Whole, list[Cut]] = {}
        self._stands_in: dict[tuple[str, Cut], bool] = {}

    def told(self, variant: Variant, outcome: Outcome) -> None:
        if isinstance(outcome, Scored) and _is_cut(variant):
            whole, cut = _taken_apart(variant)
            cuts = self._told.setdefault(whole, [])
            if cut not in cuts:
                cuts.append(cut)

    def left_out(self, variant: Variant) -> str:
        """Of which other shares this variant's network is, where they have been evaluated and may be evaluated as this
        variant would be; empty for none."""
        if not _is_cut(variant):
            return ""
        whole, own = _taken_apart(variant)
        told = self._told.get(whole, ())
        if own in told:
            return ""
        first = next((other for other in told if self._are_one(whole.arch, own, other, variant)), None)
        return "" if first is None else f"its network is that of {_words(first, own)}"

    def _are_one(self, arch: Arch, own: Cut, other: Cut, variant: Variant) -> bool:
        if own.shares.keys() != other.shares.keys():
            return False
        for name, share in own.shares.items():
            second = other.shares[name]
            if share != second and not self._is_same(arch, name, share, second):
                return False
        asked = variant.digest, other
        if asked not in self._stands_in:
            self._stands_in[asked] = self._offered(_cut_so(variant, other))
        return self._stands_in[asked]

    def _is_same(self, arch: Arch, name: str, share: float, second: float) -> bool:
        left = self._left(arch, name, share)
        return bool(left) and left == self._left(arch, name, second)

    def _left(self, arch: Arch, name: str, share: float) -> Hashable:
        if (arch, name, share) not in self._known:
            self._known[arch, name, share] = self._left_of(arch, name, share)
        return self._known[arch, name, share]


def _is_cut(variant: Variant) -> bool:
    return not (variant.allocation or variant.shrink.student) and bool(_taken_apart(variant)[1].shares)


def _taken_apart(variant: Variant) -> tuple[Whole, Cut]:
    """Heads and MLP features of a narrower network round otherwise than those of the architecture: their shares have to be
    the same there. The blocks of both are as many."""
    shrink = variant.shrink
    if variant.width < 1.0:
        return Whole(variant.arch, replace(shrink, depth=1.0), variant.elastic), Cut(variant.width, shrink.depth)
    besides = replace(shrink, depth=1.0, heads=1.0, mlp=1.0)
    return Whole(variant.arch, besides, variant.elastic), Cut(1.0, shrink.depth, shrink.heads, shrink.mlp)


def _cut_so(variant: Variant, cut: Cut) -> Variant:
    if variant.width < 1.0:
        return replace(variant, width=cut.width, shrink=replace(variant.shrink, depth=cut.depth))
    return replace(variant, shrink=replace(variant.shrink, depth=cut.depth, heads=cut.heads, mlp=cut.mlp))


def _words(first: Cut, own: Cut) -> str:
    """The shares that differ."""
    return " and ".join(f"{name} {share:g}" for name, share in first.shares.items() if share != own.shares[name])
