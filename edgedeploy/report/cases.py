"""Case by case against the baseline: pictures, the worst first, and every case that is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from edgedeploy.evidence.bootstrap import Comparison, Resampler
from edgedeploy.evidence.front import Front
from edgedeploy.evidence.quantities import comparison_text, gain_text, heading, quantity
from edgedeploy.evidence.reasons import lost_text
from edgedeploy.records.goals import Objective
from edgedeploy.records.measurement import Measurement
from edgedeploy.report.blocks import Block, Chart, Fold, Line, Section, Table, Text
from edgedeploy.report.data import ReportData
from edgedeploy.report.pictures import case_gains, case_goal, pick_and_reference, picture_rows
from edgedeploy.report.plot import case_differences
from edgedeploy.report.shipping import featured_role
from edgedeploy.report.tables import line

TITLE: Final = "Case by case against the baseline"
WORST: Final = 5


def cases_section(data: ReportData) -> Section:
    """Pictures and table of the cases where the pick loses most, the lost ones, and a dot for each case."""
    front = data.front
    goal = case_goal(front, data.measurements)
    gains = case_gains(front, data.measurements)
    pick, reference = pick_and_reference(front, data.measurements)
    if goal is None or pick is None or reference is None or not gains or not _both_have(goal.metric, pick, reference):
        why = "What is shown is the baseline itself." if pick is not None and pick is reference else ""
        text = why or "There is no pick, no baseline, or no metric by case, so there is nothing to compare."
        return Section(TITLE, "", [Text(text)])
    unit, name, whose = front.unit(goal.metric), heading(goal.metric), featured_role(front)
    lines = _lines(gains, goal, pick, reference, unit)
    compared = Resampler(front.seed).compare(pick, reference, goal)
    better, worse = sum(gain > 0 for gain in gains.values()), sum(gain < 0 for gain in gains.values())
    caption = (
        f"{name} of the {whose} against that of the float baseline, on the selection split. The {whose} is better in "
        f"{better} and worse in {worse} of {len(gains)} cases; on average {comparison_text(compared, unit)}."
    )
    headers = [f"Worst cases for the {whose}", f"Baseline {name}", f"{whose.capitalize()} {name}", f"The {whose} is"]
    order = list(lines.values())
    blocks: list[Block] = [
        picture_rows(data.pictures, front, data.measurements),
        Table(headers, order[:WORST], numbers=(1, 2, 3), look="narrow", named=True),
        *_lost(front, lines, headers),
        _chart(gains, goal, pick, reference, compared, front),
    ]
    return Section(TITLE, caption, blocks)


def _both_have(metric: str, *sides: Measurement) -> bool:
    return all(metric in side.metrics for side in sides)


def _lines(
    gains: Mapping[str, float], goal: Objective, pick: Measurement, reference: Measurement, unit: str
) -> dict[str, Line]:
    """A row for each case, the worst first."""
    return {
        case: line(case, *_values(case, goal, pick, reference, unit), gain_text(gains[case], goal.metric, unit))
        for case in sorted(gains, key=lambda case: (gains[case], case))
    }


def _values(case: str, goal: Objective, pick: Measurement, reference: Measurement, unit: str) -> list[str]:
    return [quantity(float(side.cases[case][goal.metric] or 0.0), goal.metric, unit) for side in (reference, pick)]


def _lost(front: Front, lines: Mapping[str, Line], headers: Sequence[str]) -> list[Block]:
    """The cases that lose more than the study allows a case to lose: a mean does not show them."""
    judged = front.decision.judged.get(front.featured or "")
    if judged is None or judged.lost is None:
        return []
    lost = judged.lost
    blocks: list[Block] = [Text("Lost cases", "heading"), Text(lost_text(lost, front.metrics))]
    if lost.worst_group is not None:
        case, mean, cases = lost.worst_group
        unit = front.unit(lost.metric)
        blocks.append(
            Text(f"Worst group: that of {case}, {cases} cases, {gain_text(mean, lost.metric, unit)} on average.")
        )
    beyond = [case for case in lost.lost if case not in list(lines)[:WORST]]
    if not beyond:
        return blocks
    nothing = "no value where the baseline has one"
    rows = [lines.get(case) or line(case, "", "", nothing) for case in lost.lost]
    return [*blocks, Fold(f"All {len(lost.lost)} lost cases", [Table(headers, rows, (1, 2, 3), "narrow", named=True)])]


def _chart(
    gains: Mapping[str, float],
    goal: Objective,
    pick: Measurement,
    reference: Measurement,
    compared: Comparison,
    front: Front,
) -> Chart:
    unit, name, whose = front.unit(goal.metric), heading(goal.metric), featured_role(front)
    hover = {}
    for case, gain in gains.items():
        before, after = _values(case, goal, pick, reference, unit)
        hover[case] = f"{case}\nbaseline {before}, {whose} {after}\n{whose} {gain_text(gain, goal.metric, unit)}"
    title = f"{name}: {whose} against baseline, above zero is better"
    label = (
        f"A dot for each of {len(gains)} cases: the difference in {name}, sorted, with a band for the one-sided bounds of "
        "the average. The worst are in the table."
    )
    return Chart("case-chart", label, case_differences(gains, hover, compared, title))
