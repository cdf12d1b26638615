"""What the report's page is made of, as frozen data. No string here is HTML: ``templates/blocks.html`` has a macro for each
kind of block, named in ``macro``, and escapes whatever it lays out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from edgedeploy.report.drawing import Drawing


@dataclass(frozen=True)
class Text:
    """A paragraph, unless ``look`` says otherwise."""

    macro: ClassVar = "text"
    text: str
    look: Literal["", "bold", "heading", "note", "verbatim"] = ""


@dataclass(frozen=True)
class Cell:
    """``small`` and ``beside`` stand below the text, a line each; ``hint`` is seen when pointed at, ``colour`` is that of a
    key before the text; ``sort`` is what a sortable table orders by, ``link`` is where on the page it leads."""

    text: str
    small: str = ""
    beside: str = ""
    hint: str = ""
    colour: str = ""
    sort: str | float | None = None
    link: str = ""


@dataclass(frozen=True)
class Line:
    """A row of a table; ``looks`` are names of ``style.css``: ``pick``, ``base``."""

    cells: Sequence[Cell]
    looks: Sequence[str] = ()


@dataclass(frozen=True)
class Table:
    """``numbers`` are the indices of columns aligned to the right; ``named``: the first cell of a line is its heading; a
    ``narrow`` table is as wide as its content. A table without lines is not shown."""

    macro: ClassVar = "table"
    headers: Sequence[str]
    lines: Sequence[Line]
    numbers: Collection[int] = ()
    look: Literal["", "sortable", "narrow"] = ""
    named: bool = False


@dataclass(frozen=True)
class Chart:
    """A Plotly figure in the element ``id``; ``label`` is for who cannot see it, ``instead`` for who runs no scripts."""

    macro: ClassVar = "chart"
    id: str
    label: str
    figure: Mapping[str, Any]
    instead: str = ""


@dataclass(frozen=True)
class Share:
    """A stretch of a bar."""

    percent: float
    colour: str
    hint: str


@dataclass(frozen=True)
class Bar:
    macro: ClassVar = "bar"
    label: str
    shares: Sequence[Share]


@dataclass(frozen=True)
class Picture:
    """``uri`` holds the picture itself; ``alt`` is for who cannot see it."""

    uri: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Pictures:
    """Rows of pictures side by side, by title."""

    macro: ClassVar = "pictures"
    rows: Sequence[tuple[str, Sequence[Picture]]]


@dataclass(frozen=True)
class Columns:
    """Tables side by side, by title."""

    macro: ClassVar = "columns"
    columns: Sequence[tuple[str, Sequence[Table]]]


@dataclass(frozen=True)
class Points:
    """A list of sentences."""

    macro: ClassVar = "points"
    texts: Sequence[str]


@dataclass(frozen=True)
class Fold:
    """Blocks that are seen when asked for."""

    macro: ClassVar = "fold"
    title: str
    blocks: Sequence[Text | Table]


Block = Text | Table | Chart | Bar | Pictures | Columns | Points | Fold | Drawing


@dataclass(frozen=True)
class Section:
    """A ``folded`` one shows its title until it is opened."""

    title: str
    caption: str
    blocks: Sequence[Block]
    folded: bool = False

    @property
    def anchor(self) -> str:
        """What a link to it names; no two titles of a report are alike."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-") or "section"


@dataclass(frozen=True)
class Tile:
    """A number to see from afar; ``small`` are lines below it."""

    name: str
    value: str
    small: Sequence[str]


@dataclass(frozen=True)
class Fact:
    """One question of the first screen with its answer: sentences, numbers, what there is to list, and ``why``, which is
    seen when asked for."""

    title: str
    texts: Sequence[str] = ()
    tiles: Sequence[Tile] = ()
    points: Sequence[str] = ()
    why: str = ""


@dataclass(frozen=True)
class Summary:
    """The top of the page. ``badge`` is the provenance, ``picked`` says whether there is an answer."""

    name: str
    badge: str
    meta: str
    picked: bool
    headline: str
    facts: Sequence[Fact]
