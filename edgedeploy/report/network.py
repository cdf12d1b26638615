"""A network as a picture: each layer as long as it takes, on a level of its own for each halving of its maps, and in a
colour that says what became of it beside the baseline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgedeploy.evidence.layers import LayerTime, Profile, time_text
from edgedeploy.report.drawing import Box, Drawing, Shape, Stroke, Words
from edgedeploy.study.outline import Outline

WIDTH: Final = 1080.0
_LEFT: Final = 12.0
_ROW: Final = 20.0
_STEP: Final = 26.0
_SLIVER: Final = 2.5
"""Pixels of a layer that takes next to nothing: it can still be pointed at."""

_LETTER: Final = 6.2
"""Width of a letter of 11 pixels, about."""

GROUPS: Final = (
    (0.5, "much-faster", "at most half of the time"),
    (0.9, "faster", "less time"),
    (1.1, "same", "about as long (within a tenth)"),
    (2.0, "slower", "more time"),
    (float("inf"), "much-slower", "more than twice as long"),
)
"""Upper end of the ratio to the baseline's time, paint, and what it means."""

ALONE: Final = "alone"


@dataclass(frozen=True)
class Placed:
    """A layer in the picture."""

    name: str
    operator: str
    ns: int
    other_ns: int | None
    level: int
    x: float
    width: float


def network_drawing(ours: Profile, theirs: Profile, names: tuple[str, str], outline: Outline) -> Drawing | None:
    """The network of the pick above the baseline's, on one scale of time. None without a profile on both sides."""
    if not ours.layers or not theirs.layers:
        return None
    mine, other = _summed(ours.layers), _summed(theirs.layers)
    longest_ns = max(sum(layer.ns for layer in side.values()) for side in (mine, other))
    pixels = (WIDTH - 2 * _LEFT - _SLIVER * max(len(mine), len(other))) / max(1, longest_ns)
    shapes: list[Shape] = _legend(10.0)
    top = 44.0
    for title, side, opposite, coloured in ((names[0], mine, other, True), (names[1], other, mine, False)):
        placed = _placed(side, opposite, outline, pixels)
        total = time_text(sum(layer.ns for layer in side.values()))
        shapes.append(Words(_LEFT, top + 12, f"{title}: {total} in the profile", bold=True))
        shapes += _network(placed, top + 24, outline, coloured)
        top += 24 + _STEP * (max(layer.level for layer in placed) + 1) + 22
    label = f"{_said(mine, other)} The table below has the times."
    return Drawing("network", label, WIDTH, top - 8, shapes)


def _summed(layers: Sequence[LayerTime]) -> dict[str, LayerTime]:
    """By the layer of the reference, in the order it ran; what computes the same one is summed."""
    found: dict[str, LayerTime] = {}
    for layer in layers:
        key = layer.source or f"{layer.name} (added)"
        before = found.get(key)
        operator = layer.operator if before is None or layer.ns > before.ns else before.operator
        ns = layer.ns + (before.ns if before else 0)
        found[key] = LayerTime(key, layer.source, operator, layer.kernel, layer.device, ns)
    return found


def _placed(
    side: Mapping[str, LayerTime], opposite: Mapping[str, LayerTime], outline: Outline, pixels: float
) -> list[Placed]:
    placed, x, level = [], _LEFT, 0
    for name, layer in side.items():
        level = outline.level.get(name, level)  # what a runtime added lies where it was before
        width = _SLIVER + pixels * layer.ns
        other = opposite.get(name) if layer.source is not None else None
        placed.append(Placed(name, layer.operator, layer.ns, other.ns if other else None, level, x, width))
        x += width
    return placed


def _network(placed: Sequence[Placed], top: float, outline: Outline, coloured: bool) -> list[Shape]:
    shapes: list[Shape] = []
    by_name = {layer.name: layer for layer in placed}
    before = {layer.name: placed[index - 1].name for index, layer in enumerate(placed) if index}
    for layer in placed:
        for source in outline.inputs.get(layer.name, ()):
            if source in by_name and source != before.get(layer.name):
                shapes.append(_skip(by_name[source], layer, top))
    for layer in placed:
        y = top + _STEP * layer.level
        paint = group_of(layer.ns, layer.other_ns)[0] if coloured else "same"
        shapes.append(Box(layer.x, y, layer.width, _ROW, paint, _hint(layer, coloured)))
        text = next((name for name in _shorter(layer.name) if len(name) * _LETTER < layer.width - 6), "")
        if text:
            ink = "on-dark" if paint.startswith("much") else "on-light"
            shapes.append(Words(layer.x + 4, y + 14, text, ink, 11))
    return shapes


def _shorter(name: str) -> Iterator[str]:
    """The name, then what is left of it without its leading parts."""
    parts = name.split("/")
    return ("/".join(parts[index:]) for index in range(len(parts)))


def _skip(source: Placed, to: Placed, top: float) -> Stroke:
    """From the end of one layer to the start of another, along the level of the first."""
    y, end = (top + _STEP * layer.level + _ROW / 2 for layer in (source, to))
    x = max(to.x, source.x + source.width)
    points = [(source.x + source.width, y), (x, y)]
    return Stroke(points if end == y else [*points, (x, end)], "link")


def group_of(ours_ns: int, theirs_ns: int | None) -> tuple[str, str]:
    """Paint and words for a layer's time beside the baseline's."""
    if not theirs_ns:
        return ALONE, "not in the baseline"
    return next((paint, text) for end, paint, text in GROUPS if ours_ns <= end * theirs_ns)


def _hint(layer: Placed, coloured: bool) -> str:
    who = "baseline" if coloured else "pick"
    other = f"{who} {time_text(layer.other_ns)}" if layer.other_ns is not None else f"not in the {who}"
    return f"{layer.name} ({layer.operator}): {time_text(layer.ns)}, {other}"


def _legend(y: float) -> list[Shape]:
    shapes: list[Shape] = []
    x = _LEFT
    for paint, text in (*((paint, text) for _, paint, text in GROUPS), (ALONE, "not in the baseline")):
        shapes += [Box(x, y, 14, 12, paint), Words(x + 19, y + 10, text, "muted", 11)]
        x += 34 + _LETTER * len(text)
    return shapes


def _said(mine: Mapping[str, LayerTime], other: Mapping[str, LayerTime]) -> str:
    """What the picture shows, for who cannot see it."""
    counts: dict[str, int] = {}
    for name, layer in mine.items():
        text = group_of(layer.ns, other[name].ns if layer.source and name in other else None)[1]
        counts[text] = counts.get(text, 0) + 1
    told = "; ".join(f"{count} {text}" for text, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return f"The network layer by layer against the baseline: of {len(mine)} layers {told}."
