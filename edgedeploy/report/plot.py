"""The report's charts as plotly figures in plain data: ``{"data": [...], "layout": {...}}``.

Texts go through ``html.escape``: plotly reads a subset of HTML in hover texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

from edgedeploy.evidence.bootstrap import Comparison
from edgedeploy.evidence.front import Front, Row
from edgedeploy.evidence.pareto import Candidate, non_dominated
from edgedeploy.evidence.pick import accuracy_objective, cost_objective
from edgedeploy.evidence.quantities import heading, phrase, scale_for, with_span
from edgedeploy.records.goals import Objective
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.report.words import baseline_text, executed_text, key_metrics, status_text

Figure = dict[str, Any]

BLUE: Final = "#2166ac"
ORANGE: Final = "#d6604d"
GREY: Final = "#8b95a1"
"""Told apart by people with any colour vision; shapes differ too."""


@dataclass(frozen=True)
class Look:
    """How a group of points is drawn; ``size`` is in pixels."""

    name: str
    colour: str
    symbol: str
    size: int

    def marker(self) -> Figure:
        line = {"width": 1.5, "color": self.colour}
        return {"color": self.colour, "symbol": self.symbol, "size": self.size, "line": line}


MISSED: Final = Look("not meeting a limit", GREY, "x-thin", 8)
BEHIND: Final = ("dominated", "indistinguishable")
DOMINATED: Final = Look("dominated", GREY, "circle-open", 8)
FRONT: Final = Look("front", BLUE, "circle", 10)
BASELINES: Final = Look("float baselines", ORANGE, "diamond", 12)


@dataclass(frozen=True)
class Axis:
    """A metric on a plot's axis: ``scale`` divides base units into the ``unit`` that is shown."""

    objective: Objective
    scale: float
    unit: str

    @property
    def metric(self) -> str:
        return self.objective.metric

    @property
    def title(self) -> str:
        word = "smaller is better" if self.objective.direction == "minimize" else "larger is better"
        unit = f", {self.unit}" if self.unit else ""
        return escape(f"{heading(self.metric)}{unit} ({word})")


def choose_axes(report: Front) -> tuple[Axis, Axis]:
    """Cost across, accuracy upwards; where the objectives are all of one kind, the first two of them, or the latency."""
    up = accuracy_objective(report.objectives) or report.objectives[0]
    cost = cost_objective(report.objectives)
    across = cost if cost and cost is not up else None
    if across is None:
        rest = [goal for goal in report.objectives if goal is not up]
        fallback = "latency_p50_ns" if up.metric != "latency_p50_ns" else "size_bytes"
        across = rest[0] if rest else Objective(fallback, "minimize")
    return _axis(across, report), _axis(up, report)


def _axis(goal: Objective, report: Front) -> Axis:
    values = [row.estimates[goal.metric].value for row in report.rows if goal.metric in row.estimates]
    info = report.metrics.get(goal.metric, MetricInfo(goal.direction, "1", ""))
    largest = max((abs(value) for value in values), default=0.0)
    scale, unit = scale_for(largest, info.unit)
    return Axis(goal, scale, unit)


def pareto(report: Front) -> Figure:
    """Accuracy against cost: the front with its line, the baselines, the pick, and everything else in grey."""
    x, y = choose_axes(report)
    drawn = [row for row in report.rows if x.metric in row.estimates and y.metric in row.estimates]
    members = sorted((row for row in drawn if row.status == "front"), key=lambda row: row.estimates[x.metric].value)
    line = _line(members, report, x, y)
    others = [row for row in drawn if not row.baseline]
    groups = [
        (MISSED, [row for row in others if row.status in ("infeasible", "incomplete")]),
        (DOMINATED, [row for row in others if row.status in BEHIND]),
        (FRONT, [row for row in others if row.status == "front"]),
        (BASELINES, [row for row in drawn if row.baseline]),
    ]
    data = [line] if line else []
    data += [_points(look, rows, report, x, y) for look, rows in groups if rows]
    data += [_ring(row, x, y) for row in drawn if report.pick and row.digest == report.pick.digest]
    title = f"{heading(y.metric)} against {phrase(x.metric)} on {report.board} ({report.provenance})"
    return {"data": data, "layout": plain_layout(escape(title), x.title, y.title, 480)}


def _line(members: Sequence[Row], report: Front, x: Axis, y: Axis) -> Figure | None:
    """The staircase of what is attainable: through the members that are not beaten in these two metrics."""
    if len(members) < 2 or report.provenance is None:
        return None
    points = [
        Candidate(row.digest, report.provenance, {axis.metric: row.estimates[axis.metric].value for axis in (x, y)})
        for row in members
    ]
    corners = non_dominated(points, (x.objective, y.objective))
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [point.values[x.metric] / x.scale for point in corners],
        "y": [point.values[y.metric] / y.scale for point in corners],
        "line": {"color": BLUE, "width": 1.5, "shape": "hv" if x.objective.direction == "minimize" else "vh"},
        "opacity": 0.6,
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _points(look: Look, rows: Sequence[Row], report: Front, x: Axis, y: Axis) -> Figure:
    trace: Figure = {
        "type": "scatter",
        "mode": "markers",
        "name": look.name,
        "x": [row.estimates[x.metric].value / x.scale for row in rows],
        "y": [row.estimates[y.metric].value / y.scale for row in rows],
        "text": [hover_text(row, report) for row in rows],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": look.marker(),
    }
    if look.colour != GREY:
        trace["error_x"], trace["error_y"] = _bars(rows, x, look.colour), _bars(rows, y, look.colour)
    return trace


def _ring(row: Row, x: Axis, y: Axis) -> Figure:
    """Around the point that is there already, so it has no hover of its own."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "the pick",
        "x": [row.estimates[x.metric].value / x.scale],
        "y": [row.estimates[y.metric].value / y.scale],
        "hoverinfo": "skip",
        "marker": {"color": BLUE, "symbol": "circle-open", "size": 21, "line": {"width": 2.5, "color": BLUE}},
    }


def _bars(rows: Iterable[Row], axis: Axis, colour: str) -> Figure:
    above, below = [], []
    for row in rows:
        estimate = row.estimates[axis.metric]
        high = estimate.value if estimate.high is None else estimate.high
        low = estimate.value if estimate.low is None else estimate.low
        above.append(max(0.0, high - estimate.value) / axis.scale)
        below.append(max(0.0, estimate.value - low) / axis.scale)
    return {
        "type": "data",
        "symmetric": False,
        "array": above,
        "arrayminus": below,
        "thickness": 1,
        "width": 3,
        "color": colour,
    }


def hover_text(row: Row, report: Front) -> str:
    """Variant, key numbers, what ran, where it stands, provenance: lines of escaped text."""
    lines = [f"<b>{escape(row.variant.label)}</b>"]
    for metric in key_metrics(report):
        if metric in row.estimates:
            text = with_span(row.estimates[metric], metric, report.unit(metric))
            beside = baseline_text(row, metric, report) if metric in row.beside else ""
            lines.append(escape(f"{heading(metric)}: {', '.join(filter(None, (text, beside)))}"))
    lines.append(escape(f"ran as: {executed_text(row.executed) or 'not known'}"))
    lines.append(escape(status_text(row, report)))
    lines.append(escape(f"{report.provenance}"))
    return "<br>".join(lines)


def case_differences(
    gains: Mapping[str, float], hover: Mapping[str, str], comparison: Comparison | None, title: str
) -> Figure:
    """A dot per case, sorted: how much better (up) or worse (down) the pick is; a band for the mean and its bounds."""
    order = sorted(gains, key=lambda case: (gains[case], case))
    values = [gains[case] for case in order]
    data: list[Figure] = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": list(range(1, len(order) + 1)),
            "y": values,
            "text": [escape(hover[case]).replace("\n", "<br>") for case in order],
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {
                "color": [BLUE if value >= 0 else ORANGE for value in values],
                "symbol": ["circle" if value >= 0 else "triangle-down" for value in values],
                "size": 8,
            },
            "showlegend": False,
        }
    ]
    layout = plain_layout(escape(title), "cases, worst for the pick first", "difference", 360)
    layout["shapes"] = [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0, "y1": 0, "line": {"width": 1}}]
    if comparison and comparison.lower is not None and comparison.upper is not None:
        band = {"xref": "paper", "x0": 0, "x1": 1, "line": {"width": 0}, "fillcolor": GREY, "opacity": 0.25}
        layout["shapes"].append({"type": "rect", "y0": comparison.lower, "y1": comparison.upper, **band})
        mean = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": comparison.gain, "y1": comparison.gain}
        layout["shapes"].append({**mean, "line": {"width": 1.5, "dash": "dot", "color": GREY}})
    return {"data": data, "layout": layout}


def latency_over_time(windows: Mapping[str, Sequence[tuple[float, float]]], unit: str) -> Figure:
    """A line per variant: minutes since the start against the window's median latency in ``unit``."""
    data: list[Figure] = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": escape(label),
            "x": [minutes for minutes, _ in points],
            "y": [latency for _, latency in points],
            "line": {"color": colour, "width": 1.5},
            "marker": {"size": 4},
        }
        for (label, points), colour in zip(windows.items(), (BLUE, ORANGE, GREY), strict=False)
    ]
    return {"data": data, "layout": plain_layout("", "minutes under load", f"median latency of a window, {unit}", 320)}


def plain_layout(title: str, x: str, y: str, height: int) -> Figure:
    """What all charts share; the texts are escaped already."""
    axis = {"zeroline": False, "automargin": True, "ticks": "outside", "ticklen": 4}
    return {
        "title": {"text": title, "font": {"size": 15}, "x": 0, "xanchor": "left"} if title else None,
        "height": height,
        "margin": {"l": 60, "r": 16, "t": 64 if title else 16, "b": 48},
        "xaxis": {**axis, "title": {"text": x}},
        "yaxis": {**axis, "title": {"text": y}},
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        "hovermode": "closest",
        "hoverlabel": {"align": "left"},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": BLUE},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
    }
