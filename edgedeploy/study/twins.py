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
    """The shares that a variant keeps, as far as it is known what networks they leave; ``allocation`` spreads the width."""

    width: float = 1.0
    allocation: str = ""
    depth: float = 1.0
    heads: float = 1.0
    mlp: float = 1.0

    @property
    def shares(self) -> dict[str, float]:
        """Those that are not all, by their names in the search."""
        named = {WIDTH: self.width, "depth": self.depth, "heads": self.heads, "mlp": self.mlp}
        return {name: share for name, share in named.items() if share < 1.0}

    def words(self, name: str) -> str:
        spread = f" by {self.allocation}" if name == WIDTH and self.allocation else ""
        return f"{name} {self.shares[name]:g}{spread}"


class Whole(NamedTuple):
    """What a variant is cut from, and what it loses besides: of two variants with the same whole, equal cuts leave one
    network, whatever target and precision they are for. Widths that are spread choose channels in another way than uniform
    ones."""

    arch: Arch
    shrink: Shrink
    elastic: Elastic
    spread: bool = False


class Twins:
    """Hears the outcomes of a search in their order.

    ``left_of`` says what one share by its name, and no other, leaves of an architecture, at a uniform width; ``channels_of``
    those of each layer of a variant whose width is spread. Both are falsy for what cannot be cut so, and are asked only
    where another share has been evaluated, and once: a network is built and cut for it. What is not ``offered`` is never
    proposed, and stands for nothing.
    """

    def __init__(
        self,
        left_of: Callable[[Arch, str, float], Hashable],
        channels_of: Callable[[Variant], Hashable],
        offered: Callable[[Variant], bool],
    ) -> None:
        self._left_of = left_of
        self._channels_of = channels_of
        self._offered = offered
        self._known: dict[tuple[Arch, str, float], Hashable] = {}
        self._channels: dict[tuple[Whole, Cut], Hashable] = {}
        self._told: dict[Whole, dict[Cut, Variant]] = {}
        self._stands_in: dict[tuple[str, Cut], bool] = {}

    def told(self, variant: Variant, outcome: Outcome) -> None:
        if isinstance(outcome, Scored) and _is_cut(variant):
            whole, cut = _taken_apart(variant)
            self._told.setdefault(whole, {}).setdefault(cut, variant)

    def left_out(self, variant: Variant) -> str:
        """Of which other shares this variant's network is, where they have been evaluated and may be evaluated as this
        variant would be; empty for none."""
        if not _is_cut(variant):
            return ""
        whole, own = _taken_apart(variant)
        told = self._told.get(whole, {})
        if own in told:
            return ""
        first = next((cut for cut, other in told.items() if self._are_one(variant, other)), None)
        if first is None:
            return ""
        words = (first.words(name) for name in first.shares if first.words(name) != own.words(name))
        return f"its network is that of {' and '.join(words)}"

    def _are_one(self, variant: Variant, other: Variant) -> bool:
        (whole, own), (_, first) = _taken_apart(variant), _taken_apart(other)
        if own.shares.keys() != first.shares.keys():
            return False
        for name, share in own.shares.items():
            if name == WIDTH and whole.spread:
                continue
            if share != first.shares[name] and not self._is_same(whole.arch, name, share, first.shares[name]):
                return False
        if whole.spread and own[:2] != first[:2] and not self._have_same_channels(variant, other):
            return False
        asked = variant.digest, first
        if asked not in self._stands_in:
            self._stands_in[asked] = self._offered(_cut_as(variant, other))
        return self._stands_in[asked]

    def _is_same(self, arch: Arch, name: str, share: float, first: float) -> bool:
        left = self._left(arch, name, share)
        return bool(left) and left == self._left(arch, name, first)

    def _left(self, arch: Arch, name: str, share: float) -> Hashable:
        if (arch, name, share) not in self._known:
            self._known[arch, name, share] = self._left_of(arch, name, share)
        return self._known[arch, name, share]

    def _have_same_channels(self, variant: Variant, other: Variant) -> bool:
        first = self._spread(other)
        return bool(first) and first == self._spread(variant)

    def _spread(self, variant: Variant) -> Hashable:
        key = _taken_apart(variant)
        if key not in self._channels:
            self._channels[key] = self._channels_of(variant)
        return self._channels[key]


def _is_cut(variant: Variant) -> bool:
    return not variant.shrink.student and bool(_taken_apart(variant)[1].shares)


def _taken_apart(variant: Variant) -> tuple[Whole, Cut]:
    """Heads and MLP features of a narrower network round otherwise than those of the architecture: their shares have to be
    the same there. The blocks of both are as many."""
    shrink, spread = variant.shrink, bool(variant.allocation)
    if variant.width < 1.0:
        whole = Whole(variant.arch, replace(shrink, depth=1.0), variant.elastic, spread)
        return whole, Cut(variant.width, variant.allocation, shrink.depth)
    whole = Whole(variant.arch, replace(shrink, depth=1.0, heads=1.0, mlp=1.0), variant.elastic)
    return whole, Cut(depth=shrink.depth, heads=shrink.heads, mlp=shrink.mlp)


def _cut_as(variant: Variant, other: Variant) -> Variant:
    """With the shares of the other one, which has the same :class:`Whole`."""
    names = ("width", "allocation", "layer_times", "shrink")
    return replace(variant, **{name: getattr(other, name) for name in names})
