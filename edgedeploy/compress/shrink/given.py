"""What every way of making a network smaller is given besides the network and a share.

This module needs torch: import it inside functions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from torch import nn

from edgedeploy.compress.shrink.moments import Feeds, Moment, moments_of
from edgedeploy.compress.shrink.parts import LEAST_LINEARS, Stack
from edgedeploy.errors import Unsupported

NO_BLOCKS: Final = (
    f"the network has no list of two or more blocks of {LEAST_LINEARS} or more linear layers each that give tokens of the "
    "shape they take"
)


@dataclass(frozen=True)
class Given:
    """``inputs`` are one case's; ``feeds`` gives those of the calibration cases, or is None where the shapes alone matter
    because weights are read from a file: ``names`` are then those of its tensors. ``outputs`` are the layers that
    produce the network's outputs, ``stacks`` its lists of blocks before anything was changed."""

    inputs: Any
    feeds: Feeds | None
    outputs: tuple[str, ...] = ()
    names: Collection[str] = ()
    stacks: tuple[Stack, ...] = ()

    def moments(self, model: nn.Module, layers: Iterable[str]) -> dict[str, Moment]:
        """What these layers read; nothing where the shapes alone matter."""
        return {} if self.feeds is None else moments_of(model, list(layers), self.feeds)


class Way(Protocol):
    """One way of making a network smaller: a function of a module of this folder."""

    def __call__(self, model: nn.Module, share: float, given: Given, /) -> None:
        """Change ``model`` in place, so that the ``share`` of it stays. Raises ``Unsupported`` where nothing changes."""


def refused(parameter: str, found: str) -> Unsupported:
    """A network that has nothing of what a parameter is a share of."""
    return Unsupported(f"a smaller share of {parameter}", found, f"Leave `{parameter}` out of the space, or at 1")


def at_least(share: float, whole: int, step: int = 1) -> int:
    """``share`` of ``whole`` in multiples of ``step``, rounded down, but at least one of them."""
    return min(whole, max(step, int(share * whole / step + 1e-9) * step))
