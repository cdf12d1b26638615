"""The front as a picture for slides: SVG or PNG, from the same frozen data as the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal

from edgedeploy.errors import SpecError, StorageError
from edgedeploy.evidence.front import Front, Row
from edgedeploy.files import write_atomic
from edgedeploy.report.drawing import Box, Drawing, Mark, Shape, Stroke, Words
from edgedeploy.report.html import svg
from edgedeploy.report.plot import BASELINES, DOMINATED, FRONT, MISSED, Axis, FrontPlot, Look, front_plot
from edgedeploy.report.raster import png

WIDTH: Final = 1200
HEIGHT: Final = 675
"""A slide of 16 to 9."""

LEFT, RIGHT, TOP, BOTTOM = 92.0, 32.0, 104.0, 78.0
TICKS: Final = 6
_ROOM: Final = 0.06
"""Share of an axis that stays free at each end."""

Sign = Literal["circle", "diamond", "cross"]
_SIGNS: Final[dict[Look, tuple[Sign, float, str]]] = {
    MISSED: ("cross", 4.5, "grey"),
    DOMINATED: ("circle", 5, "grey"),
    FRONT: ("circle", 6, "blue"),
    BASELINES: ("diamond", 8, "orange"),
}
_BARS: Final = {FRONT: "bar-blue", BASELINES: "bar-orange"}


def write_plot(front: Front, path: Path) -> Path:
    """Write the front to ``path``, whose ending says in which form. Raises ``SpecError`` for another ending or where
    nothing can be drawn, ``StorageError`` where it cannot be written."""
    asked, form = f"plot {path}", path.suffix.lower()
    if form not in (".svg", ".png"):
        raise SpecError(asked, f"its name ends with {form or 'nothing'!r}", "Name a file that ends with .svg or .png")
    drawing = front_drawing(front)
    if drawing is None:
        found = "no valid variant has both metrics, so there is nothing to draw"
        raise SpecError(asked, found, "`edgedeploy front` says what is missing")
    content = svg(drawing).encode() if form == ".svg" else png(drawing)
    try:
        write_atomic(path, content)
    except OSError as exc:
        raise StorageError(asked, exc.strerror or str(exc), "Name another file with --out") from None
    return path


@dataclass(frozen=True)
class _Scale:
    """An axis: values from ``low`` to ``high`` lie from the pixel ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round numbers (1, 2 or 5 times a power of ten apart) within the axis."""
        rough = (self.high - self.low) / TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(step * power for step in (1, 2, 5, 10) if step * power >= rough)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [round(index * step, 12) for index in range(first, last + 1)]


def front_drawing(front: Front) -> Drawing | None:
    """Accuracy against cost with intervals; the pick with its name. None where nothing has both metrics."""
    plot = front_plot(front)
    rows = [row for _, group in plot.groups for row in group]
    if not rows:
        return None
    across = _scale(rows, plot.x, LEFT, WIDTH - RIGHT)
    upwards = _scale(rows, plot.y, HEIGHT - BOTTOM, TOP)
    shapes: list[Shape] = [Box(0, 0, WIDTH, HEIGHT, "paper"), *_axes(plot, across, upwards)]
    if plot.corners:
        shapes.append(Stroke(_staircase(plot, across, upwards), "line-blue"))
    for look, group in plot.groups:
        if look in _BARS:
            shapes += [bar for row in group for bar in _bars(row, plot, across, upwards, _BARS[look])]
        sign, size, paint = _SIGNS[look]
        shapes += [
            Mark(across.at(plot.x.at(row)), upwards.at(plot.y.at(row)), sign, size, paint, row.variant.label)
            for row in group
        ]
    if plot.pick is not None:
        shapes += _named(plot.pick, plot, across, upwards)
    shapes += _legend(plot, front)
    label = f"{plot.title}: {len(rows)} variants, {len(front.members)} on the front."
    return Drawing("front", label, WIDTH, HEIGHT, shapes)


def _scale(rows: Sequence[Row], axis: Axis, start: float, end: float) -> _Scale:
    """From the smallest to the largest value, with the intervals of what is on the front."""
    values = [axis.at(row) for row in rows]
    for row in rows:
        estimate = row.estimates[axis.metric]
        if row.status == "front" or row.baseline:
            values += [bound / axis.scale for bound in (estimate.low, estimate.high) if bound is not None]
    low, high = min(values), max(values)
    room = _ROOM * (high - low) or abs(high) * _ROOM or 1.0
    return _Scale(low - room if low < 0 or low - room > 0 else 0.0, high + room, start, end)


def _axes(plot: FrontPlot, across: _Scale, upwards: _Scale) -> Iterable[Shape]:
    yield Words(LEFT, 42, plot.title, size=22, bold=True)
    for value in across.ticks():
        x = across.at(value)
        yield Stroke([(x, upwards.start), (x, upwards.end)], "grid")
        yield Words(x, upwards.start + 24, f"{value:g}", "muted", 15, "middle")
    for value in upwards.ticks():
        y = upwards.at(value)
        yield Stroke([(across.start, y), (across.end, y)], "grid")
        yield Words(across.start - 10, y + 5, f"{value:g}", "muted", 15, "end")
    yield Stroke([(across.start, upwards.end), (across.start, upwards.start), (across.end, upwards.start)], "axis")
    yield Words((across.start + across.end) / 2, HEIGHT - 18, plot.x.text, size=17, anchor="middle")
    yield Words(26, (upwards.start + upwards.end) / 2, plot.y.text, size=17, anchor="middle", turned=True)


def _staircase(plot: FrontPlot, across: _Scale, upwards: _Scale) -> list[tuple[float, float]]:
    points = [(across.at(x), upwards.at(y)) for x, y in sorted(plot.corners)]
    steps = [points[0]]
    for before, after in pairwise(points):
        steps += [(after[0], before[1]) if plot.rises_late else (before[0], after[1]), after]
    return steps


def _bars(row: Row, plot: FrontPlot, across: _Scale, upwards: _Scale, paint: str) -> Iterable[Shape]:
    """The intervals of both metrics, as far as they have any."""
    x, y = across.at(plot.x.at(row)), upwards.at(plot.y.at(row))
    flat, tall = row.estimates[plot.x.metric], row.estimates[plot.y.metric]
    if flat.low is not None and flat.high is not None:
        yield Stroke([(across.at(end / plot.x.scale), y) for end in (flat.low, flat.high)], paint)
    if tall.low is not None and tall.high is not None:
        ends = [upwards.at(end / plot.y.scale) for end in (tall.low, tall.high)]
        yield Stroke([(x, end) for end in ends], paint)
        for end in ends:
            yield Stroke([(x - 3, end), (x + 3, end)], paint)


def _named(row: Row, plot: FrontPlot, across: _Scale, upwards: _Scale) -> list[Shape]:
    x, y = across.at(plot.x.at(row)), upwards.at(plot.y.at(row))
    left = x > (across.start + across.end) / 2
    words = Words(
        x + (-16 if left else 16), y + 24, row.variant.label, size=16, anchor="end" if left else "start", bold=True
    )
    return [Mark(x, y, "circle", 12, "ring"), words]


def _legend(plot: FrontPlot, front: Front) -> list[Shape]:
    """What the signs mean, with the pick's where there is one, or that there is none."""
    x, y = LEFT, 76.0
    shapes: list[Shape] = []
    for look, _ in plot.groups:
        sign, size, paint = _SIGNS[look]
        shapes += [Mark(x + 8, y - 5, sign, size, paint), Words(x + 24, y, look.name, "muted", 15)]
        x += 52 + 8 * len(look.name)
    if plot.pick is not None:
        return [*shapes, Mark(x + 8, y - 5, "circle", 9, "ring"), Words(x + 28, y, "the pick", "muted", 15)]
    said = "nothing is shown fit to ship" if front.pick is None else "the pick has no place here"
    return [*shapes, Words(x + 8, y, said, "muted", 15)]
