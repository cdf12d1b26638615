"""The report's section on layers: a picture of the network, and a table."""

from __future__ import annotations

from typing import Final

from edgedeploy.evidence.layers import beside, held_against, profile_of, time_text
from edgedeploy.report.blocks import Block, Fold, Line, Section, Table, Text
from edgedeploy.report.data import ReportData
from edgedeploy.report.network import network_drawing
from edgedeploy.report.pictures import pick_and_reference
from edgedeploy.report.tables import line

SHOWN: Final = 20
"""Layers that take the most time; the others are summed up."""


def layers_section(data: ReportData) -> Section | None:
    """Layer by layer of the pick, or of the baseline itself; nothing for a study without profiles."""
    picked, reference = pick_and_reference(data.front, data.measurements)
    shown = picked or reference
    if shown is None or not shown.layers:
        return None
    ours, theirs = profile_of(shown, "candidate"), profile_of(shown, "baseline")
    places = f"{shown.variant.label}: {ours.placement_text()}. The baseline beside it: {theirs.placement_text()}."
    caption = (
        "From a profile that was taken after the timing, because profilers slow a runtime down: it says which layers "
        "cost most, not what an inference takes. Layers are matched by their names in the float model."
    )
    title = "Where it ran, layer by layer"
    if ours.missing is not None:
        return Section(title, caption, [Text(places)])
    rows = beside(ours, theirs)
    lines = [_line(row.layer, row.operator, row.place, row.ours_ns, row.theirs_ns) for row in rows[:SHOWN]]
    if rest := rows[SHOWN:]:
        sums = [
            sum(time or 0 for time in times) for times in zip(*((r.ours_ns, r.theirs_ns) for r in rest), strict=True)
        ]
        lines.append(_line(f"{len(rest)} more", "", "", sums[0], sums[1]))
    lines.append(_line("All together", "", "", ours.total_ns, theirs.total_ns if theirs.layers else None))
    headers = ["Layer", "Operator", "Kernel and device", "Time", "Baseline"]
    against = held_against(ours, shown.metrics.get("latency_p50_ns"))
    drawn = network_drawing(ours, theirs, (shown.variant.label, "The baseline beside it"), data.outline)
    blocks: list[Block] = [drawn] if drawn else []
    blocks += [Text(places), *([Text(against)] if against else [])]
    table = Table(headers, lines, numbers=(3, 4), look="narrow", named=True)
    return Section(title, caption, [*blocks, Fold(f"The {min(SHOWN, len(rows))} slowest layers as a table", [table])])


def _line(name: str, operator: str, place: str, ours_ns: int | None, theirs_ns: int | None) -> Line:
    return line(name, operator, place, time_text(ours_ns), time_text(theirs_ns))
