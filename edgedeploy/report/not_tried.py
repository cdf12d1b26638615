"""The report's sections on rungs of recovery: those that were climbed, and those that were not."""

from __future__ import annotations

from edgedeploy.evidence.quantities import heading, quantity
from edgedeploy.report.blocks import Section, Table
from edgedeploy.report.data import ReportData
from edgedeploy.report.tables import line

SHOWN = 30
"""Rows of the table, the most promising ones."""


def promoted_section(data: ReportData) -> Section | None:
    """What was trained further and why, beside what was measured then; nothing where nothing was."""
    if not data.promoted:
        return None
    names = [goal.metric for goal in data.front.objectives]
    measured = {item.variant.digest: item.metrics for item in data.measurements if item.valid}
    lines = []
    for item in data.promoted:
        found = measured.get(item.digest, {})
        values = [quantity(found[name], name, data.front.unit(name)) if name in found else "none" for name in names]
        lines.append(line(item.label, *values, item.reason))
    caption = (
        "Each training beyond the lowest rung, in the order of the proposals: what was measured of it, and why it was "
        "trained. Values in the reason are what was predicted then."
    )
    return Section(
        "What was trained further", caption, [Table(["Variant", *map(heading, names), "Trained for"], lines)]
    )


def not_tried_section(data: ReportData) -> Section | None:
    """What was not trained further and why; nothing for a study without rungs."""
    if not data.not_tried:
        return None
    names = list(data.not_tried[0].expected)
    lines = [
        line(
            item.label,
            *(_predicted(data, name, item.expected[name], item.optimistic[name]) for name in names),
            "" if item.cost_s is None else f"{item.cost_s:.0f} s",
            item.reason,
        )
        for item in data.not_tried[:SHOWN]
    ]
    caption = (
        f"The {len(lines)} most promising of the rungs that the last run did not climb. Every value here is predicted from "
        "what was measured, its optimistic end in parentheses; none of them is on the front."
    )
    head = ["Variant", *map(heading, names), "Would take", "Not tried, because"]
    return Section("What was not tried", caption, [Table(head, lines)])


def _predicted(data: ReportData, name: str, expected: float, optimistic: float) -> str:
    unit = data.front.unit(name)
    value = quantity(expected, name, unit)
    return value if expected == optimistic else f"{value} ({quantity(optimistic, name, unit)})"
