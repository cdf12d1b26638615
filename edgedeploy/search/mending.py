"""What may mend the loss of a precision, such as a plan or another quantizer, is looked at once before it is left alone.

Plans, quantizers and methods of calibration change what a network answers in some precisions and next to nothing in others.
A surrogate that saw that a plan does nothing in bfloat16, and that int8 without a plan is bad, takes int8 with that plan for
bad too, and never looks (docs/reference/search.md).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import Final

from edgedeploy.records.metrics import Direction
from edgedeploy.records.precision import PrecisionPlan
from edgedeploy.records.variant import SETTINGS, Variant
from edgedeploy.search.outcomes import Outcome, Scored

FLOAT: Final = "float32"

WAYS: Final = ("plan", "quantizer", "calibration", "weight_bits")
"""Settings of a variant that may mend what its precision loses, without any training."""

LEAST_LOSS: Final = 0.01
"""Share of the float model's value from which on a loss is worth mending."""

MOST: Final = 3
"""One variant in so many, at most, is tried for what it tells of a way."""

_Way = tuple[str, Hashable]


class Mending:
    """Hears the outcomes of a search in their order. ``answers`` are the indices of the objectives that hang on what a
    network answers, and not on the board that runs it."""

    def __init__(self, directions: Sequence[Direction], answers: Collection[int]) -> None:
        self._signs = {index: -1.0 if directions[index] == "maximize" else 1.0 for index in answers}
        self._plain: dict[tuple[str, ...], dict[str, tuple[float, ...]]] = {}
        self._losing: set[str] = set()
        self._tried: set[tuple[str, _Way]] = set()
        self._failed: set[tuple[str, str, _Way]] = set()
        self._ways: dict[str, tuple[_Way, ...]] = {}
        self._told = 0
        self._explored = 0

    def told(self, variant: Variant, outcome: Outcome) -> None:
        self._told += 1
        self._explored += bool(self._new(variant))
        ways = self._ways_of(variant)
        if not isinstance(outcome, Scored):
            if outcome.teaches:
                self._failed |= {(variant.target, variant.precision, way) for way in ways}
            return
        self._tried |= {(variant.precision, way) for way in ways}
        if not ways and not variant.training:
            alike = self._plain.setdefault(_network(variant), {})
            alike.setdefault(variant.precision, outcome.values)
            self._losing |= {name for name, values in alike.items() if self._loses(values, alike.get(FLOAT))}

    def explores(self, variant: Variant) -> str:
        """What the variant tells: its precision lost something, and it has a way to mend that of which nothing was told in
        this precision. Empty for nothing, and once one in :data:`MOST` of all variants was tried for that."""
        new = self._new(variant) if self._explored * MOST < self._told else ()
        if not new:
            return ""
        return f"what of {variant.precision}'s loss is mended by {' and '.join(_named(*way) for way in new)}"

    def _new(self, variant: Variant) -> tuple[_Way, ...]:
        """Ways that nothing was told of. What one target cannot build, another one may."""
        target, precision = variant.target, variant.precision
        if precision not in self._losing:
            return ()
        return tuple(
            way
            for way in self._ways_of(variant)
            if (precision, way) not in self._tried and (target, precision, way) not in self._failed
        )

    def _ways_of(self, variant: Variant) -> tuple[_Way, ...]:
        """Kept, because every candidate is asked for them at each proposal."""
        if variant.digest not in self._ways:
            self._ways[variant.digest] = _ways(variant)
        return self._ways[variant.digest]

    def _loses(self, values: Sequence[float], of_float: Sequence[float] | None) -> bool:
        return of_float is not None and any(
            sign * (values[index] - of_float[index]) > LEAST_LOSS * abs(of_float[index])
            for index, sign in self._signs.items()
        )


def _network(variant: Variant) -> tuple[str, ...]:
    """What variants with the same model, and the same images, have in common whatever their precision is."""
    return (variant.model_digest, variant.tile, variant.overlap, variant.image_codec)


def _ways(variant: Variant) -> tuple[_Way, ...]:
    """Settings among :data:`WAYS` that are not the target's own, with their values; none of a model that was trained for its
    precision, which has a loss of its own."""
    if variant.training:
        return ()
    values: dict[str, Hashable] = {name: getattr(variant, name) for name in WAYS}
    return tuple((name, value) for name, value in values.items() if value != SETTINGS[name].default)


def _named(setting: str, value: Hashable) -> str:
    if isinstance(value, PrecisionPlan):
        return f"plan {value.label}"
    return f"weights of {value} bits" if setting == "weight_bits" else f"{setting} {value}"
