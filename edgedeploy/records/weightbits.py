"""How many bits the int8 weights of an artifact use, and why.

Int8 kernels of x86 processors without VNNI or AMX add pairs of products in 16 bits and saturate
(:func:`edgedeploy.interfaces.ability.sums_int8_exactly`). Weights of 7 bits cannot saturate but round twice as
coarsely. It depends on the model which of the two is nearer to the float model, so both are run on the board.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

WEIGHT_BITS: Final = (8, 7)
"""Bits that the weights of int8 layers may use."""

LARGEST_WEIGHT: Final[Mapping[int, int]] = {8: 127, 7: 64}
"""Largest quantized weight by number of bits. With 7 bits, the sum of two products with 8-bit activations is at most
2 * 255 * 64 = 32640, which fits the 16 bits in which x86 CPUs without VNNI add them."""

SATURATES: Final = "int8 sums of this processor saturate (16 bits, no VNNI or AMX)"


@dataclass(frozen=True)
class WeightBits:
    """``bits`` of an artifact's weights, and the ``reason`` as a sentence.

    ``distances`` maps each number of bits that was compared on the board to the largest relative L2 distance of any
    output in any case from the float model (infinity: an output is broken). ``cases`` and ``split`` describe the cases.
    All three are empty if nothing was compared.
    """

    bits: int
    reason: str
    distances: Mapping[int, float] = field(default_factory=dict)
    cases: int = 0
    split: str = ""

    @property
    def text(self) -> str:
        """One line for people."""
        if not self.distances:
            return f"{self.bits} bits: {self.reason}"
        found = ", ".join(f"{bits} bits {_size(value)}" for bits, value in sorted(self.distances.items()))
        where = f"largest distance from the float model over {self.cases} {self.split}"
        return f"{self.bits} bits: {self.reason}; {where}: {found}"

    def as_json(self) -> dict[str, Any]:
        """JSON has no infinity: a broken output is null."""
        return {
            "bits": self.bits,
            "reason": self.reason,
            "distances": {str(bits): None if value == _BROKEN else value for bits, value in self.distances.items()},
            "cases": self.cases,
            "split": self.split,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WeightBits:
        """Raises ``ValueError``, ``KeyError`` or ``TypeError`` for data that :meth:`as_json` cannot have written."""
        if data["bits"] not in WEIGHT_BITS:
            raise ValueError(f"weights of {data['bits']!r} bits")
        found = {int(bits): _BROKEN if value is None else float(value) for bits, value in data["distances"].items()}
        return cls(int(data["bits"]), str(data["reason"]), found, int(data["cases"]), str(data["split"]))


_BROKEN: Final = float("inf")


def nearer(distances: Mapping[int, float], *, cases: int, split: str) -> WeightBits:
    """The number of bits with the smaller distance; 7 if both are equal, because 7 bits cannot saturate on other cases
    either."""
    bits = min(distances, key=lambda bits: (distances[bits], bits))
    reason = f"{SATURATES}; the nearer of both is kept"
    return WeightBits(bits, reason, dict(distances), cases, split)


TRAINED_FOR_BOARD: Final = WeightBits(7, f"{SATURATES}; the model was trained with 7-bit weights")


def _size(value: float) -> str:
    return "a broken output" if value == _BROKEN else f"{value:.3g}"
