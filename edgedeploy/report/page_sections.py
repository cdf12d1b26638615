"""The report: one HTML file that needs nothing else, made from stored evidence alone.

Sections in the order a reader asks: what to ship and why, the front, the numbers, case by case, the confirmation, what
failed, where the time went, on what it ran, how to do it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from edgedeploy.evidence.bootstrap import LEVEL, TIME_LEVEL
from edgedeploy.evidence.front import FrontReport, Row
from edgedeploy.evidence.quantities import heading, quantity, span
from edgedeploy.evidence.verdict import MARGIN
from edgedeploy.files import write_atomic
from edgedeploy.report.data import ReportData
from edgedeploy.report.html import page
from edgedeploy.report.layers import layers_section
from edgedeploy.report.page_details import (
    cases_section,
    confirmation_section,
    environment_section,
    failures_section,
    reproduce_section,
    sustained_section,
    time_section,
    training_section,
)
from edgedeploy.report.plot import choose_axes, pareto
from edgedeploy.report.tables import all_variants_table, cell, metrics_table, nothing, section, table, weight_bits_table
from edgedeploy.report.words import answer, board_metrics_present, key_metrics, protocol_tables, task_metrics

__all__ = ["ReportData", "render_report", "write_report"]


def write_report(data: ReportData, path: Path) -> Path:
    """Write the page to ``path``, whole or not at all. Returns ``path``."""
    write_atomic(path, render_report(data).encode())
    return path


def render_report(data: ReportData) -> str:
    """The page as text: the same data gives the same text."""
    charts: dict[str, dict[str, Any]] = {}
    sections = [
        _summary(data),
        _front(data, charts),
        _numbers(data),
        _every_variant(data),
        layers_section(data),
        sustained_section(data, charts),
        cases_section(data, charts),
        confirmation_section(data),
        failures_section(data),
        time_section(data),
        training_section(data),
        environment_section(data),
        reproduce_section(data),
    ]
    return page(f"{data.name}: edgedeploy report", "\n".join(section for section in sections if section), charts)


def _paragraphs(lines: Sequence[str]) -> str:
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _summary(data: ReportData) -> str:
    front = data.front
    badge = front.provenance or "nothing measured"
    warn = "" if badge == "measured" else " warn"
    counts = f"{len(front.rows)} variants, {len(front.members)} on the front"
    meta = " \N{MIDDLE DOT} ".join(
        filter(None, [f"board {front.board}" if front.board else "", counts, data.created_utc])
    )
    head, *rest = answer(front)
    kind = "answer" if front.pick else "answer none"
    return (
        f"<header><h1>{escape(data.name)}</h1>"
        f'<p class="meta"><span class="badge{warn}">{escape(badge)}</span> {escape(meta)}</p></header>'
        f'<div class="{kind}"><strong>{escape(head)}</strong><p>{escape(" ".join(rest))}</p></div>'
        f"{_tiles(front)}{_paragraphs(data.notes)}"
    )


def _tiles(front: FrontReport) -> str:
    pick = front.row(front.pick.digest) if front.pick else None
    if pick is None:
        return ""
    baseline = front.row(front.reference)
    tiles = []
    for metric in key_metrics(front):
        estimate = pick.estimates.get(metric)
        if estimate is None:
            continue
        unit = front.unit(metric)
        small = [span(estimate, metric, unit)]
        if baseline and metric in baseline.estimates and not metric.endswith("_ratio"):
            small.append(f"baseline {quantity(baseline.estimates[metric].value, metric, unit)}")
        tiles.append(
            f'<div class="tile"><div class="name">{escape(heading(metric))}</div>'
            f'<div class="big">{escape(quantity(estimate.value, metric, unit))}</div>'
            + "".join(f'<div class="small">{escape(text)}</div>' for text in small if text)
            + "</div>"
        )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _front(data: ReportData, charts: dict[str, dict[str, Any]]) -> str:
    front = data.front
    x, y = choose_axes(front)
    drawn = [row for row in front.rows if {x.metric, y.metric} <= set(row.estimates)]
    caption = (
        "Each point is a variant that was built, run and scored. The line is the front: no variant here is better in "
        f"everything. Bars are {LEVEL:.0%} bootstrap intervals. Point at a variant for its numbers."
    )
    if len(front.objectives) > 2:
        caption += f" The study has {len(front.objectives)} objectives; this shows two, and the line only these two."
    if not drawn:
        return section("The front", "", *nothing("No valid variant has both metrics, so there is nothing to draw."))
    charts["front-chart"] = pareto(front)
    text = f"Plot of {heading(y.metric)} against {heading(x.metric)} for {len(drawn)} variants; the table has the same."
    chart = f'<div id="front-chart" class="chart" role="img" aria-label="{escape(text, quote=True)}"></div>'
    return section(
        "The front", caption, chart, "<noscript><p>The plot needs scripts; the tables do not.</p></noscript>"
    )


def _numbers(data: ReportData) -> str:
    front = data.front
    shown = [*front.members, *(row for row in front.baselines if row.status != "front")]
    if not shown:
        return ""
    caption = (
        "The front's members and the float baselines, which are always measured. Small print is the "
        f"{LEVEL:.0%} interval. \u201cvs baseline\u201d is against the reference target's float model, timed beside it; "
        f"\u201cfaster\u201d is said when the one-sided {TIME_LEVEL:.0%} bound of that ratio is more than {MARGIN:.0%} "
        "below 1."
    )
    if any(row.variant.power_mode for row in front.rows):
        caption += (
            " The baseline ran in the same power mode as the variant beside it, so a ratio compares models within a mode; "
            "modes are compared by latency and energy."
        )
    parts = []
    if accuracy := task_metrics(front):
        parts += [
            "<h3>Accuracy of the exported artifact, as the board computed it</h3>",
            metrics_table(shown, accuracy, front),
        ]
    parts += ["<h3>On the board</h3>", metrics_table(shown, board_metrics_present(front), front, executed=True)]
    for title, metrics in protocol_tables(front).items():
        parts += [f"<h3>{escape(title)}</h3>", metrics_table(shown, metrics, front)]
    absent = _missing_everywhere(shown)
    if absent:
        parts.append(f'<p class="note">Not available for any of them: {escape(absent)}.</p>')
    return section("Front and baselines", caption, *parts)


def _effect(front: FrontReport, metric: str) -> str:
    value, unit = front.min_effect[metric], front.unit(metric)
    return f"{value:g}" if unit == "1" else quantity(value, metric, unit)


def _missing_everywhere(rows: Sequence[Row]) -> str:
    reasons: dict[str, str] = {}
    for row in rows:
        reasons.update(row.missing)
    gone = {name: why for name, why in sorted(reasons.items()) if not any(name in row.estimates for row in rows)}
    return "; ".join(f"{heading(name)} ({why})" for name, why in gone.items())


def _every_variant(data: ReportData) -> str:
    front = data.front
    parts = [all_variants_table(front)] if front.rows else nothing("No variant gave a valid measurement.")
    if front.constraints:
        limits = "; ".join(item.text(front.unit(item.metric)) for item in front.constraints)
        parts.append(f'<p class="note">Limits: {escape(limits)}.</p>')
    effects = "; ".join(f"{heading(goal.metric)} {_effect(front, goal.metric)}" for goal in front.objectives)
    caption = (
        "Click a heading to sort. A variant is \u201cdominated (confirmed)\u201d when the one-sided "
        f"{LEVEL:.0%} bounds ({TIME_LEVEL:.0%} for times) show the other one to be nowhere worse and somewhere "
        f"better by more than the smallest effect that matters ({effects}); "
        "when they do not show it, the two are \u201cindistinguishable\u201d."
    )
    if any(item.weight_bits for item in data.measurements):
        parts.append(weight_bits_table(data.measurements))
    if front.invalid:
        rows = (
            f"<tr>{cell(item.variant.label)}{cell(item.cause)}{cell(item.created_utc)}</tr>" for item in front.invalid
        )
        parts.append("<h3>Invalid runs</h3>")
        parts.append('<p class="note">The conditions drifted while these ran, so they gave no numbers.</p>')
        parts.append(table(["Variant", "Cause", "When"], rows))
    return section("All variants", caption, *parts)
