"""The report: one HTML file that needs nothing else, made from stored evidence alone.

The first screen has the answer (``answer.py``). Then, open: the front, who cannot be told apart from the pick, the network
layer by layer, the cases. Folded: the numbers, how the search went, the confirmation, what failed, where the time went, on
what it ran, how to do it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgedeploy.errors import StorageError
from edgedeploy.evidence.bootstrap import LEVEL, TIME_LEVEL
from edgedeploy.evidence.confirm import confirmation_of
from edgedeploy.evidence.front import Front, Row
from edgedeploy.evidence.quantities import heading, quantity
from edgedeploy.evidence.verdict import MARGIN
from edgedeploy.files import write_atomic
from edgedeploy.report.answer import summary_of
from edgedeploy.report.blocks import Block, Chart, Section, Summary, Table, Text
from edgedeploy.report.cases import cases_section
from edgedeploy.report.data import ReportData
from edgedeploy.report.html import page
from edgedeploy.report.layers import layers_section
from edgedeploy.report.markdown import markdown
from edgedeploy.report.not_tried import not_tried_section, promoted_section
from edgedeploy.report.page_details import (
    confirmation_section,
    environment_section,
    failures_section,
    reproduce_section,
    sustained_section,
    time_section,
    training_section,
)
from edgedeploy.report.plans import plans_section
from edgedeploy.report.plot import BASELINES, DOMINATED, FRONT, MISSED, choose_axes, front_plot, pareto
from edgedeploy.report.rivals import rivals_section
from edgedeploy.report.search_section import search_section
from edgedeploy.report.serving import serving_section
from edgedeploy.report.tables import CHANCE, all_variants_table, line, metrics_table, weight_bits_table
from edgedeploy.report.words import (
    board_metrics_present,
    names_text,
    scenario_tables,
    task_metrics,
)

__all__ = ["ReportData", "render_report", "write_markdown", "write_report"]

EVERY_VARIANT: Final = "All variants"
NOT_IN_MARKDOWN: Final = ("The front", EVERY_VARIANT, "How the search went", "Environment")
"""Pictures, and what is too long for a comment; the front's members stand in another table."""


def write_report(data: ReportData, path: Path) -> Path:
    """Write the page to ``path``, whole or not at all. Returns ``path``. Raises ``StorageError``."""
    text = render_report(data)
    try:
        write_atomic(path, text.encode(errors="backslashreplace"))  # a file's or a case's name may be no Unicode
    except OSError as exc:
        raise StorageError(f"report {path}", exc.strerror or str(exc), "Name another file with --out") from None
    return path


def render_report(data: ReportData) -> str:
    """The page as text: the same data gives the same text."""
    return page(*_parts(data))


def write_markdown(data: ReportData, path: Path) -> Path:
    """Write the Markdown page to ``path``, whole or not at all. Returns ``path``. Raises ``StorageError``."""
    summary, sections = _parts(data)
    kept = [section for section in sections if section.title not in NOT_IN_MARKDOWN]
    try:
        write_atomic(path, markdown(summary, kept).encode(errors="backslashreplace"))
    except OSError as exc:
        raise StorageError(f"page {path}", exc.strerror or str(exc), "Name another file with --markdown") from None
    return path


def _parts(data: ReportData) -> tuple[Summary, list[Section]]:
    """The top, and the sections in the order in which they stand."""
    if data.front.confirmation is None:
        found = confirmation_of(data.front, data.confirmation, data.openings)
        data = replace(data, front=replace(data.front, confirmation=found))
    first = [_front(data.front), rivals_section(data.front, data.rivals), layers_section(data), cases_section(data)]
    further = [
        _numbers(data.front),
        _every_variant(data),
        search_section(data),
        plans_section(data),
        promoted_section(data),
        not_tried_section(data),
        sustained_section(data),
        serving_section(data),
        confirmation_section(data),
        failures_section(data),
        time_section(data),
        training_section(data),
        environment_section(data),
        reproduce_section(data),
    ]
    folded = [replace(section, folded=True) for section in further if section]
    return summary_of(data), [*(section for section in first if section), *folded]


def _front(front: Front) -> Section:
    x, y = choose_axes(front)
    drawn = [row for row in front.rows if {x.metric, y.metric} <= set(row.estimates)]
    caption = (
        "Each point is a variant that was built, run and scored. The line is the front: no variant here is better in "
        f"everything. Bars are {LEVEL:.0%} bootstrap intervals. Point at a variant for its numbers. "
        f"{_looks(front, drawn)} {names_text(front)}"
    )
    if len(front.objectives) > 2:
        caption += f" The study has {len(front.objectives)} objectives; this shows two, and the line only these two."
    if any(x.metric in row.beside for row in drawn):
        caption += (
            " Each point is a session of its own: what the baseline gave beside a variant is in the variant's numbers."
        )
    if not drawn:
        nothing = "No valid variant has both metrics, so there is nothing to draw."
        return Section("The front", "", [Text(nothing)])
    label = (
        f"Plot of {heading(y.metric)} against {heading(x.metric)} for {len(drawn)} variants; the table has the same."
    )
    instead = "The plot needs scripts; the tables do not."
    return Section("The front", caption, [Chart("front-chart", label, pareto(front), instead)])


def _looks(front: Front, drawn: Sequence[Row]) -> str:
    """What the signs of the plot stand for, those that are in it."""
    said = {
        FRONT.name: "nothing here is better in everything",
        BASELINES.name: "the untouched network in each target",
        DOMINATED.name: "another one is better, by its values or shown to be",
        MISSED.name: "a limit of the study is not met, or a number is missing",
    }
    there = [look.name for look, _ in front_plot(front).groups]
    ring = "; the ring is the pick" if any(front.pick and row.digest == front.pick.digest for row in drawn) else ""
    return f"Signs: {'; '.join(f'{name}: {said[name]}' for name in said if name in there)}{ring}."


def _numbers(front: Front) -> Section | None:
    shown = front.shown
    if not shown:
        return None
    caption = (
        "The front's members and the float baselines, which are always measured. Small print is the "
        f"{LEVEL:.0%} interval. \u201cvs baseline\u201d is against the reference target's float model, timed beside it; "
        "what that gave in the same run stands below the variant's value. A baseline's own line is another session, whose "
        "times do not compare. \u201cfaster\u201d is said when the one-sided "
        f"{TIME_LEVEL:.0%} bound of that ratio is more than {MARGIN:.0%} below 1. \u201c{CHANCE}\u201d is the share of "
        "bootstrap draws of these cases and runs in which nothing dominates the variant; it says nothing of new cases."
    )
    if any(row.variant.recovered for row in shown):
        caption += (
            " \u201cbaseline, recovered\u201d is the float baseline after as much further training as recovered variants "
            "got: what it gains, training gains, and not the compression."
        )
    if any(row.variant.power_mode for row in front.rows):
        caption += (
            " The baseline ran in the same power mode as the variant beside it, so a ratio compares models within a mode; "
            "modes are compared by latency and energy."
        )
    blocks: list[Block] = []
    if accuracy := task_metrics(front):
        title = "Accuracy of the exported artifact, as the board computed it"
        blocks += [Text(title, "heading"), metrics_table(shown, accuracy, front)]
    on_board = metrics_table(shown, board_metrics_present(front), front, executed=True)
    blocks += [Text("On the board", "heading"), on_board]
    for title, metrics in scenario_tables(front).items():
        blocks += [Text(title, "heading"), metrics_table(shown, metrics, front)]
    if absent := _missing_everywhere(shown):
        blocks.append(Text(f"Not available for any of them: {absent}.", "note"))
    return Section("Front and baselines", caption, blocks)


def _effect(front: Front, metric: str) -> str:
    value, unit = front.min_effect[metric], front.unit(metric)
    return f"{value:g}" if unit == "1" else quantity(value, metric, unit)


def _missing_everywhere(rows: Sequence[Row]) -> str:
    reasons: dict[str, str] = {}
    for row in rows:
        reasons.update(row.missing)
    gone = {name: why for name, why in sorted(reasons.items()) if not any(name in row.estimates for row in rows)}
    return "; ".join(f"{heading(name)} ({why})" for name, why in gone.items())


def _every_variant(data: ReportData) -> Section:
    front = data.front
    nothing = Text("No variant gave a valid measurement.")
    blocks: list[Block] = [all_variants_table(front) if front.rows else nothing]
    if front.constraints:
        limits = "; ".join(item.text(front.unit(item.metric)) for item in front.constraints)
        blocks.append(Text(f"Limits: {limits}.", "note"))
    effects = "; ".join(f"{heading(goal.metric)} {_effect(front, goal.metric)}" for goal in front.objectives)
    caption = (
        "Click a heading to sort. A variant is \u201cdominated (confirmed)\u201d when the one-sided "
        f"{LEVEL:.0%} bounds ({TIME_LEVEL:.0%} for times) show the other one to be nowhere worse and somewhere "
        f"better by more than the smallest effect that matters ({effects}); "
        "when they do not show it, the two are \u201cindistinguishable\u201d."
    )
    bits = weight_bits_table(data.measurements)
    if bits.lines:
        blocks += [Text("Bits of int8 weights", "heading"), bits]
    if front.invalid:
        lines = [line(item.variant.label, item.cause, item.created_utc) for item in front.invalid]
        why = "The conditions drifted while these ran, so they gave no numbers."
        blocks += [Text("Invalid runs", "heading"), Text(why, "note"), Table(["Variant", "Cause", "When"], lines)]
    return Section(EVERY_VARIANT, caption, blocks)
