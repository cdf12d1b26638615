"""How many layers ran in which precision, as every session says it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

FLOATS = ("float32", "float16", "bfloat16", "float64")

NOTHING = "none"
"""Stands for a precision where the runtime ran nothing on floats: a network that only looks up, or holds constants."""


def count_layers(compute: Sequence[str], others: Sequence[str]) -> dict[str, int]:
    """The precisions of compute layers, counted. Of a network without any, all ``others`` on floats count (activations,
    sums, loops); of one without these, ``{"none": 0}``."""
    floats = [precision for precision in others if precision in FLOATS]
    return dict(Counter(compute or floats)) or {NOTHING: 0}
