"""What may mend the loss of a precision, such as a plan or another quantizer, is looked at once before it is left alone.

Plans, quantizers and methods of calibration change what a network answers in some precisions and next to nothing in others.
A surrogate that saw that a plan does nothing in bfloat16, and that int8 without a plan is bad, takes int8 with that plan for
bad too, and never looks (docs/reference/search.md).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
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
    network answers, and not on the board that runs it. ``plain`` is the variant of a target and a precision with what a
    search begins with of everything else, where that is not the target's own: a method of calibration, for one."""

    def __init__(
        self,
        directions: Sequence[Direction],
        answers: Collection[int],
        plain: Callable[[str, str], Variant | None] = lambda target, precision: None,
    ) -> None:
        self._signs = {index: -1.0 if directions[index] == "maximize" else 1.0 for index in answers}
        self._plain = plain
        self._usual: dict[tuple[str, str], frozenset[_Way]] = {}
        self._alike: dict[tuple[str, ...], list[tuple[Variant, tuple[float, ...] | None]]] = {}
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
        if isinstance(outcome, Scored):
            self._tried |= {(variant.precision, way) for way in ways}
        elif outcome.teaches:
            self._failed |= {(variant.target, variant.precision, way) for way in ways}
        if not ways and not variant.training and (isinstance(outcome, Scored) or outcome.answers_nothing):
            alike = self._alike.setdefault(_network(variant), [])
            alike.append((variant, outcome.values if isinstance(outcome, Scored) else None))
            self._losing |= self._losing_among(alike)

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
            usual = self._usual_of(variant.target, variant.precision)
            self._ways[variant.digest] = tuple(way for way in _ways(variant) if way not in usual)
        return self._ways[variant.digest]

    def _usual_of(self, target: str, precision: str) -> frozenset[_Way]:
        if (target, precision) not in self._usual:
            plain = self._plain(target, precision)
            self._usual[target, precision] = frozenset() if plain is None else frozenset(_ways(plain))
        return self._usual[target, precision]

    def _losing_among(self, alike: Sequence[tuple[Variant, tuple[float, ...] | None]]) -> set[str]:
        """Precisions of one network that lose on some target, against the first float model that answered."""
        of_float = next(
            (values for variant, values in alike if variant.precision == FLOAT and values is not None), None
        )
        if of_float is None:
            return set()
        return {
            variant.precision
            for variant, values in alike
            if variant.precision != FLOAT and self._loses(values, of_float)
        }

    def _loses(self, values: Sequence[float] | None, of_float: Sequence[float]) -> bool:
        if values is None:  # the same answer to everything, or none
            return bool(self._signs)
        return any(
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
