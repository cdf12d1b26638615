"""Figures of how a search went, as plotly figures in plain data (see :mod:`edgedeploy.report.plot`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from edgedeploy.evidence.front import Front, Row
from edgedeploy.evidence.importance import Importances, is_number, settings_of
from edgedeploy.evidence.quantities import heading, quantity
from edgedeploy.records.variant import Scalar
from edgedeploy.report.plot import BASELINES, BLUE, DOMINATED, FRONT, GREY, MISSED, ORANGE, Figure, plain_layout
from edgedeploy.study.progress import Step

MOST_POINTS: Final = 300
"""Points of a curve."""

MOST_LINES: Final = 80
"""Variants in the parallel coordinates: the front's and the baselines first."""

MOST_AXES: Final = 14
MOST_LABELS: Final = 6
"""Values of an axis that are written beside it; of more, the lowest and the highest."""

_COLOURS: Final = (BLUE, ORANGE, GREY, "#5aae61", "#9970ab")


def hypervolume_figure(steps: Sequence[Step], *, over_time: bool) -> Figure:
    """A staircase: what each evaluation brought, against its number or the hours since the study began."""
    points = [(_at(number, step, over_time), step) for number, step in enumerate(steps, 1)]
    drawn = thinned(points)
    trace: Figure = {
        "type": "scatter",
        "mode": "lines",
        "x": [at for at, _ in drawn],
        "y": [round(step.volume, 6) for _, step in drawn],
        "text": [escape(step.label) for _, step in drawn],
        "hovertemplate": "%{x:.4g}: %{y:.4f}<br>%{text}<extra></extra>",
        "line": {"color": BLUE, "width": 1.5, "shape": "hv"},
    }
    across = "hours since the study began" if over_time else "evaluations (valid measurements)"
    return {"data": [trace], "layout": plain_layout("", across, "hypervolume, share of the box", 320)}


def _at(number: int, step: Step, over_time: bool) -> float:
    return round((step.elapsed_s or 0.0) / 3600, 5) if over_time else number


def thinned(points: Sequence[tuple[float, Step]]) -> list[tuple[float, Step]]:
    """The first and the last point, and those that brought something; evenly chosen ones where these are too many."""
    kept = [
        point
        for index, point in enumerate(points)
        if index in (0, len(points) - 1) or point[1].volume > points[index - 1][1].volume
    ]
    if len(kept) <= MOST_POINTS:
        return kept
    return [kept[round(index * (len(kept) - 1) / (MOST_POINTS - 1))] for index in range(MOST_POINTS)]


@dataclass(frozen=True)
class _Axis:
    """``places``: by row, 0 (bottom) to 1, None without a value. ``labels``: what is written at a place."""

    title: str
    places: Sequence[float | None]
    texts: Sequence[str]
    labels: Sequence[tuple[float, str]]


def drawn_rows(front: Front) -> list[Row]:
    """The rows of the parallel coordinates, in the front's own order."""
    first = [row for row in front.rows if row.status == "front" or row.baseline][:MOST_LINES]
    digests = {row.digest for row in first}
    rest = [row.digest for row in front.rows if row.digest not in digests]
    left = min(MOST_LINES - len(first), len(rest))
    digests |= {rest[index * len(rest) // left] for index in range(left)}
    return [row for row in front.rows if row.digest in digests]


def parallel_figure(front: Front) -> Figure:
    """A line per variant through its settings and its objectives. Drawn as plain lines: plotly's own kind needs WebGL."""
    rows = drawn_rows(front)
    settings = settings_of([row.variant for row in rows])
    objectives = [goal.metric for goal in front.objectives]
    axes = [_setting_axis(name, values) for name, values in settings.items()][: MOST_AXES - len(objectives)]
    axes += [_metric_axis(front, rows, name) for name in objectives]
    groups = [
        (MISSED, [i for i, row in enumerate(rows) if row.status in ("infeasible", "incomplete") and not row.baseline]),
        (
            DOMINATED,
            [i for i, row in enumerate(rows) if row.status in ("dominated", "indistinguishable") and not row.baseline],
        ),
        (FRONT, [i for i, row in enumerate(rows) if row.status == "front" and not row.baseline]),
        (BASELINES, [i for i, row in enumerate(rows) if row.baseline]),
    ]
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": look.name,
            **_lines(axes, [escape(row.variant.label) for row in rows], at),
            "hovertemplate": "%{text}<extra></extra>",
            "line": {"color": look.colour, "width": 1 if look.colour == GREY else 1.75},
            "marker": {"size": 4, "symbol": look.symbol if look.symbol != "x-thin" else "x"},
            "opacity": 0.45 if look.colour == GREY else 0.9,
        }
        for look, at in groups
        if at
    ]
    layout = plain_layout("", "", "", 420)
    layout["xaxis"] |= {
        "tickvals": list(range(len(axes))),
        "ticktext": [escape(axis.title) for axis in axes],
        "range": [-0.3, len(axes) - 0.5],
        "showgrid": True,
    }
    layout["yaxis"] |= {"visible": False, "range": [-0.06, 1.08]}
    layout["annotations"] = [
        {"x": index, "y": place, "text": escape(text[:24]), "showarrow": False, "xanchor": "left", "xshift": 5}
        | {"font": {"size": 11}}
        for index, axis in enumerate(axes)
        for place, text in axis.labels
    ]
    return {"data": data, "layout": layout}


def _lines(axes: Sequence[_Axis], labels: Sequence[str], at: Iterable[int]) -> Figure:
    """The variants' lines one after the other, with a gap between them."""
    x: list[int | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for index in at:
        for place, axis in enumerate(axes):
            x.append(place)
            y.append(axis.places[index])
            text.append(f"{labels[index]}<br>{escape(f'{axis.title}: {axis.texts[index]}')}")
        x.append(None)
        y.append(None)
        text.append("")
    return {"x": x, "y": y, "text": text}


def _setting_axis(name: str, values: Sequence[Scalar]) -> _Axis:
    if all(map(is_number, values)):
        numbers = [float(value) for value in values]
        return _axis(name, numbers, [f"{value:g}" for value in numbers])
    texts = [str(value) for value in values]
    order = {text: float(place) for place, text in enumerate(sorted(set(texts)))}
    return _axis(name, [order[text] for text in texts], texts)


def _metric_axis(front: Front, rows: Sequence[Row], name: str) -> _Axis:
    values = [row.estimates[name].value if name in row.estimates else None for row in rows]
    texts = ["no value" if value is None else quantity(value, name, front.unit(name)) for value in values]
    return _axis(heading(name), values, texts)


def _axis(title: str, values: Sequence[float | None], texts: Sequence[str]) -> _Axis:
    named = {value: text for value, text in zip(values, texts, strict=True) if value is not None}
    low, high = min(named, default=0.0), max(named, default=0.0)
    width = high - low

    def place(value: float) -> float:
        return round((value - low) / width, 4) if width and math.isfinite(width) else 0.5

    written = sorted(named) if len(named) <= MOST_LABELS else (low, high)
    labels = [(place(value), named[value]) for value in written]
    return _Axis(title, [None if value is None else place(value) for value in values], texts, labels)


def importance_figure(found: Importances) -> Figure:
    """Bars of each parameter's share, one for each objective, the most important parameter at the top."""
    totals: Mapping[str, float] = {
        name: sum(shares[name] for shares in found.shares.values()) for name in next(iter(found.shares.values()))
    }
    names = sorted(totals, key=lambda name: (totals[name], name))
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": escape(heading(metric)),
            "x": [round(shares[name], 4) for name in names],
            "y": [escape(name) for name in names],
            "hovertemplate": "%{y}: %{x:.3f}<extra>%{fullData.name}</extra>",
            "marker": {"color": _COLOURS[index % len(_COLOURS)]},
        }
        for index, (metric, shares) in enumerate(found.shares.items())
    ]
    height = 110 + 16 * len(names) * (len(data) + 1)
    layout = plain_layout("", "share of the variance that the parameter explains", "", height)
    layout["yaxis"] |= {"type": "category"}
    return {"data": data, "layout": layout}
