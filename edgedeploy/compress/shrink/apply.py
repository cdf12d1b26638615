"""Makes a network smaller by all that a variant leaves out of it, one way after the other.

This module needs torch: import it inside functions.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

import torch
from torch import nn

from edgedeploy.compress.prune import output_layers
from edgedeploy.compress.shrink.depth import fewer_blocks
from edgedeploy.compress.shrink.given import Given, Way
from edgedeploy.compress.shrink.heads import fewer_heads
from edgedeploy.compress.shrink.mlp import narrower_mlps
from edgedeploy.compress.shrink.moments import Feeds
from edgedeploy.compress.shrink.parts import stacks_of
from edgedeploy.compress.shrink.rank import lower_rank
from edgedeploy.compress.shrink.tokens import fewer_tokens
from edgedeploy.errors import EdgeDeployError, Unsupported
from edgedeploy.records.shrink import Shrink
from edgedeploy.reference.calling import call, flat_tensors, plain_model
from edgedeploy.reference.copies import baked, copied
from edgedeploy.reference.translate import first_line

WAYS: Final[Mapping[str, Way]] = {
    "depth": fewer_blocks,
    "heads": fewer_heads,
    "mlp": narrower_mlps,
    "rank": lower_rank,
    "tokens": fewer_tokens,
}
"""In the order in which they are applied: what goes altogether first, factors of what is left after it."""


def shrunk(
    model: nn.Module, shrink: Shrink, inputs: Any, feeds: Feeds | None, names: Collection[str] = ()
) -> nn.Module:
    """A copy of ``model`` in evaluation mode that keeps the shares of ``shrink``; it answers in the same shapes.

    ``inputs`` are one case's, by position or by name; ``feeds`` gives those of the calibration cases, which decide what
    goes and fit what stays. Without ``feeds`` the shapes alone are right, for weights of a file with these ``names``.

    Raises ``Unsupported`` where the network has nothing that a share below 1 is of, or no longer runs.
    """
    smaller: nn.Module = baked(copied(plain_model(model)).eval())
    shapes = _shapes(smaller, inputs)
    stacks = stacks_of(smaller, inputs) if shrink.depth < 1.0 or shrink.tokens < 1.0 else ()
    given = Given(inputs, feeds, output_layers(smaller, inputs), [_as_unmerged(name) for name in names], stacks)
    for name, way in WAYS.items():
        share = float(getattr(shrink, name))
        if share == 1.0:
            continue
        try:
            way(smaller, share, given)
            found = _shapes(smaller, inputs)
        except EdgeDeployError:
            raise
        except Exception as exc:  # a foreign forward may raise anything about modules that are no longer its own
            raise _no_longer_runs(name, share, f"{type(exc).__name__}: {first_line(exc)}") from exc
        if found != shapes:
            raise _no_longer_runs(name, share, f"its outputs have the shapes {found}, not {shapes}")
    return smaller.eval()


def _no_longer_runs(name: str, share: float, found: str) -> Unsupported:
    remedy = f"Leave `{name}` out of the space for this network"
    return Unsupported(f"the network with {name} = {share:g}", f"it no longer runs: {found}", remedy)


def _as_unmerged(name: str) -> str:
    """A tensor's name without the place of :class:`MergedBlocks` in it: ``blocks.4.merged_blocks.2.`` is block 6."""
    place = r"(^|\.)(\d+)\.merged_blocks\.(\d+)\."
    return re.sub(place, lambda found: f"{found[1]}{int(found[2]) + int(found[3])}.", name, count=1)


def _shapes(model: nn.Module, inputs: Any) -> list[tuple[int, ...]]:
    with torch.no_grad():
        return [tuple(tensor.shape) for tensor in flat_tensors(call(model, inputs))]
