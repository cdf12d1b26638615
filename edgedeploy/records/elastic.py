"""What an elastic network is trained for: all the cuts that a study makes of an architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, order=True)
class Elastic:
    """``epochs`` of training at once at each of ``widths``, the narrowest first, by each of ``allocations``. They share
    their weights: with other widths, the model of one width is another model. Without epochs there is no such network."""

    epochs: int = 0
    widths: tuple[float, ...] = ()
    allocations: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.epochs > 0

    @property
    def cuts(self) -> tuple[tuple[float, str], ...]:
        """Each width with each allocation, the narrowest first."""
        return tuple((width, allocation) for width in self.widths for allocation in self.allocations)

    def as_json(self) -> dict[str, Any]:
        return {"epochs": self.epochs, "widths": list(self.widths), "allocations": list(self.allocations)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Elastic:
        """Raises ``ValueError``, ``KeyError`` or ``TypeError`` for data that :meth:`as_json` cannot have written."""
        widths = tuple(float(width) for width in data["widths"])
        return cls(int(data["epochs"]), widths, tuple(str(name) for name in data["allocations"]))


NO_ELASTIC: Final = Elastic()
