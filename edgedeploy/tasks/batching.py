"""Training cases in batches, in a drawn order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

_Item = TypeVar("_Item")


def in_batches(cases: Sequence[_Item], batch_size: int, rng: np.random.Generator) -> list[list[_Item]]:
    """All cases once, by so many. A last batch of one is left out: a batch norm has no variance of one value a channel."""
    order = rng.permutation(len(cases))
    batches = [[cases[place] for place in order[at : at + batch_size]] for at in range(0, len(order), batch_size)]
    return [batch for batch in batches if len(batch) > 1]
