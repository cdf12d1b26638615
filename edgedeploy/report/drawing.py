"""Pictures made of lines, boxes and words, as frozen data: the page shows them as SVG, ``edgedeploy plot`` writes files.

Coordinates are pixels from the upper left corner. No string here is SVG: whatever lays a drawing out escapes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

Point = tuple[float, float]


@dataclass(frozen=True)
class Paint:
    """Colours as ``#rrggbb``; an empty one is not painted. ``dashed`` is of the stroke."""

    fill: str = ""
    stroke: str = ""
    width: float = 1.0
    dashed: bool = False

    @property
    def css(self) -> str:
        dashes = ";stroke-dasharray:3 2" if self.dashed else ""
        stroke = f"{self.stroke};stroke-width:{self.width:g}{dashes}" if self.stroke else "none"
        return f"fill:{self.fill or 'none'};stroke:{stroke}"


PAINTS: Final[Mapping[str, Paint]] = {
    "paper": Paint(fill="#ffffff"),
    "ink": Paint(fill="#1b2430"),
    "muted": Paint(fill="#5a6572"),
    "axis": Paint(stroke="#5a6572"),
    "grid": Paint(stroke="#dde2e8"),
    "bar-blue": Paint(stroke="#2166ac"),
    "bar-orange": Paint(stroke="#b8432f"),
    "line-blue": Paint(stroke="#2166ac", width=1.5),
    "blue": Paint(fill="#2166ac", stroke="#2166ac"),
    "ring": Paint(stroke="#2166ac", width=2.5),
    "orange": Paint(fill="#d6604d", stroke="#b8432f"),
    "grey": Paint(stroke="#8b95a1", width=1.5),
    "link": Paint(stroke="#8b95a1"),
    "much-faster": Paint(fill="#2166ac", stroke="#174a7c"),
    "faster": Paint(fill="#92c5de", stroke="#4d7f97"),
    "same": Paint(fill="#cfd4da", stroke="#7d8791"),
    "slower": Paint(fill="#f4a582", stroke="#a8623f"),
    "much-slower": Paint(fill="#b2182b", stroke="#7a101d"),
    "on-dark": Paint(fill="#ffffff"),
    "on-light": Paint(fill="#1b2430"),
    "alone": Paint(fill="#ffffff", stroke="#5a6572", dashed=True),
}
"""By the name that shapes know them by."""

DARK: Final[Mapping[str, Paint]] = {
    "paper": Paint(fill="#141a21"),
    "ink": Paint(fill="#e3e8ee"),
    "muted": Paint(fill="#a3afbb"),
    "axis": Paint(stroke="#a3afbb"),
    "grid": Paint(stroke="#3a4551"),
    "bar-blue": Paint(stroke="#7db4e6"),
    "bar-orange": Paint(stroke="#f08a72"),
    "line-blue": Paint(stroke="#7db4e6", width=1.5),
    "blue": Paint(fill="#7db4e6", stroke="#7db4e6"),
    "ring": Paint(stroke="#7db4e6", width=2.5),
    "orange": Paint(fill="#f08a72", stroke="#f08a72"),
    "alone": Paint(fill="#141a21", stroke="#a3afbb", dashed=True),
}
"""What differs on a dark page."""


def styles(paints: Mapping[str, Paint]) -> str:
    """The paints as CSS: a class for each."""
    return "\n".join(f".d-{name}{{{paint.css}}}" for name, paint in paints.items())


@dataclass(frozen=True)
class Box:
    """``hint`` is seen when pointed at."""

    kind: ClassVar = "box"
    x: float
    y: float
    width: float
    height: float
    paint: str
    hint: str = ""


@dataclass(frozen=True)
class Stroke:
    """A line through points."""

    kind: ClassVar = "stroke"
    points: Sequence[Point]
    paint: str


@dataclass(frozen=True)
class Mark:
    """A sign at a point, ``size`` from its middle to its edge."""

    kind: ClassVar = "mark"
    x: float
    y: float
    sign: Literal["circle", "diamond", "cross"]
    size: float
    paint: str
    hint: str = ""

    @property
    def corners(self) -> tuple[Point, ...]:
        """Of a diamond."""
        x, y, r = self.x, self.y, self.size
        return ((x, y - r), (x + r, y), (x, y + r), (x - r, y))

    @property
    def arms(self) -> tuple[tuple[Point, Point], ...]:
        """Of a cross."""
        x, y, r = self.x, self.y, self.size
        return (((x - r, y - r), (x + r, y + r)), ((x - r, y + r), (x + r, y - r)))


@dataclass(frozen=True)
class Words:
    """``anchor``: which end of the words is at ``x``; ``y`` is their base line. ``turned``: read from below upwards."""

    kind: ClassVar = "words"
    x: float
    y: float
    text: str
    paint: str = "ink"
    size: float = 12
    anchor: Literal["start", "middle", "end"] = "start"
    bold: bool = False
    turned: bool = False


Shape = Box | Stroke | Mark | Words


@dataclass(frozen=True)
class Drawing:
    """``label`` says in words what there is to see; ``id`` is unique in the page."""

    macro: ClassVar = "drawing"
    id: str
    label: str
    width: float
    height: float
    shapes: Sequence[Shape]
