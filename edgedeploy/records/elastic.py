"""What an elastic network is trained for: all the cuts that a study makes of an architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple


class Part(NamedTuple):
    """One cut: the share ``width`` of the channels, spread by ``allocation``, of the share ``depth`` of the blocks. At full
    width there is no allocation."""

    width: float = 1.0
    allocation: str = ""
    depth: float = 1.0


@dataclass(frozen=True, order=True)
class Elastic:
    """``epochs`` of training at once at each of ``widths``, the narrowest first, by each of ``allocations``, at each of
    ``depths``, the shallowest first, and at each pair of these. They share their weights: with other widths or depths, the
    model of each is another model. Without epochs there is no such network."""

    epochs: int = 0
    widths: tuple[float, ...] = ()
    allocations: tuple[str, ...] = ()
    depths: tuple[float, ...] = ()

    def __bool__(self) -> bool:
        return self.epochs > 0

    @property
    def cuts(self) -> tuple[Part, ...]:
        """The shallowest first, and of equally deep ones the narrowest."""
        found = list[Part]()
        for depth in (*self.depths, 1.0):
            found += [Part(width, allocation, depth) for width in self.widths for allocation in self.allocations]
            found += [Part(depth=depth)] if depth < 1.0 else []
        return tuple(found)

    def as_json(self) -> dict[str, Any]:
        """Without ``depths`` where there are none: studies of widths alone keep their digests."""
        depths = {"depths": list(self.depths)} if self.depths else {}
        return {"epochs": self.epochs, "widths": list(self.widths), "allocations": list(self.allocations), **depths}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Elastic:
        """Raises ``ValueError``, ``KeyError`` or ``TypeError`` for data that :meth:`as_json` cannot have written."""
        widths, depths = (tuple(map(float, shares)) for shares in (data["widths"], data.get("depths", ())))
        return cls(int(data["epochs"]), widths, tuple(str(name) for name in data["allocations"]), depths)


NO_ELASTIC: Final = Elastic()
