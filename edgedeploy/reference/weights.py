"""Layers told by their weights.

Exporters and converters keep no name of a layer, and fold batch norms and move dimensions. What stays are the numbers of a
weight tensor, in some order: two layers are the same one where their sorted weights are equal.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

TOLERANCE: Final = 1e-4
"""Relative to the largest weight: two tools that fold a batch norm into a convolution differ by 1e-6."""

Numbers = npt.NDArray[Any]


def numbers(weights: Numbers) -> Numbers:
    """What :func:`same` compares: all values in rising order."""
    return np.sort(np.asarray(weights).ravel())


def same(first: Numbers, second: Numbers) -> bool:
    """Whether two layers have the same :func:`numbers`; without any, they cannot be told."""
    if first.size != second.size or not first.size:
        return False
    return bool(np.abs(np.subtract(first, second)).max() <= TOLERANCE * np.abs(first).max())
