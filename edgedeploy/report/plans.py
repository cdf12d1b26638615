"""The report's section on precision plans that were made for a budget."""

from __future__ import annotations

from edgedeploy.report.blocks import Section, Table
from edgedeploy.report.data import ReportData
from edgedeploy.report.tables import line


def plans_section(data: ReportData) -> Section | None:
    """Which layers each plan keeps in float32 and why; nothing for a study without budgets."""
    if not data.plans:
        return None
    labels = {(row.variant.target, row.variant.plan): row.variant.label for row in data.front.rows}
    lines = [
        line(target, name, labels.get((target, made.plan), "not measured"), made.text())
        for target, own in data.plans.items()
        for name, made in own.items()
    ]
    caption = (
        "Made from the profiles of the float32 and the int8 model and from roundings, alone and together, simulated on "
        "calibration cases. Decibels and times are what the plan expects (predicted); what a variant does is in the tables "
        "above."
    )
    return Section("Precision plans", caption, [Table(["Target", "Budget", "Variant", "The plan"], lines)])
