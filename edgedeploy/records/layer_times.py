"""What the layers of a study's baseline take on its board: the cost of a layer where a width is spread by time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

from edgedeploy.records.board import Provenance
from edgedeploy.records.units import human
from edgedeploy.records.variant import digest_of
from edgedeploy.runtime.wire.serde import from_json, to_json


@dataclass(frozen=True)
class TimedLayer:
    """The time of a layer in one inference, and its multiplications there."""

    ns: float
    multiplications: float


@dataclass(frozen=True)
class LayerTimes:
    """``layers`` by the module's name in the baseline's network, ``untimed`` those that the runtime told no time of.
    ``elsewhere_ns`` passes in what is no layer with weights (pools, concatenations, changes of layout): it is nobody's
    cost. ``variant`` and ``artifact`` are the digests of what was profiled, at ``created_utc``."""

    layers: Mapping[str, TimedLayer]
    untimed: tuple[str, ...]
    elsewhere_ns: float
    target: str
    board: str
    provenance: Provenance
    variant: str
    artifact: str
    created_utc: str

    @cached_property
    def digest(self) -> str:
        """16 hex digits that name what widths are chosen by: the times alone, wherever they are from."""
        return digest_of({name: [layer.ns, layer.multiplications] for name, layer in self.layers.items()})[:16]

    @cached_property
    def usual_ns(self) -> float:
        """The median over the layers of their time for one multiplication."""
        return median(layer.ns / layer.multiplications for layer in self.layers.values())

    def ns(self, name: str, multiplications: float) -> float:
        """The time of a layer that multiplies so often, which another resolution or option may change: at the layer's own
        time for one multiplication, or at the usual one where the layer has none."""
        own = self.layers.get(name)
        return multiplications * (own.ns / own.multiplications if own else self.usual_ns)

    @property
    def text(self) -> str:
        """A sentence for people: whose times these are, and of how many layers."""
        known_ns = sum(layer.ns for layer in self.layers.values())
        count = len(self.layers) + len(self.untimed)
        rest = f"; {len(self.untimed)} without a time count by their multiplications" if self.untimed else ""
        return (
            f"widths by time follow the layer times {self.digest}: {self.target} on board {self.board}, "
            f"{self.provenance} {self.created_utc}, {len(self.layers)} of {count} layers{rest}. They take "
            f"{human(known_ns, 'ns')} in the profile; {human(self.elsewhere_ns, 'ns')} pass outside of them and count "
            "for no layer"
        )

    def as_json(self) -> dict[str, Any]:
        return {**to_json(self), "digest": self.digest}

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> LayerTimes:
        """Raises ``ValueError`` or ``KeyError`` for data that :meth:`as_json` cannot have written, and for times that are
        not those that its digest names."""
        found = from_json(cls, data, kept=True)
        if not found.layers or any(min(row.ns, row.multiplications) <= 0 for row in found.layers.values()):
            raise ValueError("a layer without a time, or none at all, is among its times")
        if found.digest != data["digest"]:
            raise ValueError("its times are not those that its digest names")
        return found
