"""The search parameters that leave something out of a network besides channels, and their values."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from edgedeploy.records.shrink import SHARES, SHRINK_KEYS
from edgedeploy.records.variant import UNIFORM, Scalar
from edgedeploy.spec.source import SpecSource

LEAST_TOKENS: Final = 0.5
"""Half of the tokens can join the other half, and no more."""

SHRINK_TEXTS: Final[Mapping[str, str]] = {
    "heads": "Shares of attention heads that stay, above 0 and at most 1. For transformers in PyTorch.",
    "mlp": "Shares of the features inside each MLP that stay, above 0 and at most 1. For transformers in PyTorch.",
    "depth": "Shares of the blocks that stay, above 0 and at most 1. For transformers in PyTorch.",
    "rank": "Shares of its rank that each linear layer and convolution keeps, where that multiplies less, above 0 and at "
    "most 1. For tasks in PyTorch.",
    "tokens": "Shares of the tokens that all blocks but the first third work on, from 0.5 to 1. For transformers in "
    "PyTorch.",
    "student": 'Names of networks in the task\'s `students` that are trained in the place of its own, and "none".',
}
"""The texts of these keys; a keyword of the task's ``build`` of the same name is meant where there is one."""


def check_shrink(
    source: SpecSource, space: Mapping[str, Sequence[Scalar]], architecture: Collection[str], elastic: bool
) -> None:
    """Refuse shares that are none, and what cannot stand beside them. ``elastic``: depths are cut out of one network."""
    ours = [key for key in SHRINK_KEYS if key in space and key not in architecture]
    for key in ours:
        least = LEAST_TOKENS if key == "tokens" else 0.0
        for value in space[key]:
            if key not in SHARES:
                if not isinstance(value, str) or not value:
                    raise source.error(f"space.{key}", f"expected names of students, but got {value!r}")
            elif isinstance(value, (bool, str)) or not least <= value <= 1.0 or value == 0.0:
                found = f"expected shares {f'from {least:g}' if least else 'above 0'} to 1, but got {value!r}"
                raise source.error(f"space.{key}", found, "It is the share that stays")
    apart = [key for key in ours if not (elastic and key == "depth")]
    if apart and {*space.get("allocation", ())} - {UNIFORM}:
        found = f"a width spread by sensitivity reads its layers' widths from their names, which {apart[0]!r} changes"
        remedy = f"Search {apart[0]!r} and the allocation in studies of their own"
        if apart == ["depth"]:
            found = "a width is spread over all blocks, unless one network is trained at all depths at once"
            remedy += ", or add elastic_epochs to [recovery]"
        raise source.error("space.allocation", found, remedy)
