"""Identifies layers by their weights.

Exporters and converters drop layer names, fold batch norms and permute dimensions. The numbers of a weight tensor
survive in some order: two layers are the same when their sorted weights are equal.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

WEIGHTS_TOLERANCE: Final = 1e-4
"""Largest difference relative to the largest weight. Two tools that fold the same batch norm differ by 1e-6."""

Numbers = npt.NDArray[Any]


def numbers(weights: Numbers) -> Numbers:
    """All values in ascending order, as :func:`same` compares them."""
    return np.sort(np.asarray(weights).ravel())


def same(first: Numbers, second: Numbers) -> bool:
    """Whether two layers have the same :func:`numbers`; layers without weights are never the same."""
    if first.size != second.size or not first.size:
        return False
    return bool(np.abs(np.subtract(first, second)).max() <= WEIGHTS_TOLERANCE * np.abs(first).max())
