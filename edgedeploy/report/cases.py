"""Case by case against the baseline: pictures, the worst first, and every case that is lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edgedeploy.evidence.bootstrap import Comparison, Resampler
from edgedeploy.evidence.quantities import comparison_text, gain_text, heading, quantity
from edgedeploy.records.goals import Objective
from edgedeploy.records.measurement import Measurement
from edgedeploy.report.blocks import Block, Chart, Fold, Line, Section, Table, Text
from edgedeploy.report.data import ReportData
from edgedeploy.report.pictures import case_gains, case_goal, pick_and_reference, picture_rows
from edgedeploy.report.plot import case_differences
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
        why = "The pick is the baseline itself." if pick is not None and pick is reference else ""
        text = why or "There is no pick, no baseline, or no metric by case, so there is nothing to compare."
        return Section(TITLE, "", [Text(text)])
    unit, name = front.unit(goal.metric), heading(goal.metric)
    lines = _lines(gains, goal, pick, reference, unit)
    compared = Resampler(front.seed).compare(pick, reference, goal)
    better, worse = sum(gain > 0 for gain in gains.values()), sum(gain < 0 for gain in gains.values())
    caption = (
        f"{name} of the pick against that of the float baseline, on the selection split. The pick is better in {better} and "
        f"worse in {worse} of {len(gains)} cases; on average {comparison_text(compared, unit)}."
    )
    headers = ["Worst cases for the pick", f"Baseline {name}", f"Pick {name}", "The pick is"]
    order = list(lines.values())
    blocks: list[Block] = [
        picture_rows(data.pictures, front, data.measurements),
        Table(headers, order[:WORST], numbers=(1, 2, 3), look="narrow", named=True),
        *_lost(gains, lines, front.pick.margin if front.pick else 0.0, goal, unit, headers),
        _chart(gains, goal, pick, reference, unit, compared),
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


def _lost(
    gains: Mapping[str, float],
    lines: Mapping[str, Line],
    limit: float,
    goal: Objective,
    unit: str,
    headers: list[str],
) -> list[Block]:
    """The cases that lose more than ``limit``: a mean does not show them."""
    lost = [case for case, gain in gains.items() if gain < -limit]
    said = f"{len(lost)} of {len(gains)} cases lose more than {quantity(limit, goal.metric, unit)} of {heading(goal.metric)}"
    if len(lost) <= WORST:
        return [Text(f"{said}{': they are in the table above' if lost else ''}.")]
    table = Table(headers, [row for case, row in lines.items() if case in lost], (1, 2, 3), "narrow", named=True)
    return [Text(f"{said}."), Fold(f"All {len(lost)} lost cases", [table])]


def _chart(
    gains: Mapping[str, float],
    goal: Objective,
    pick: Measurement,
    reference: Measurement,
    unit: str,
    compared: Comparison,
) -> Chart:
    name = heading(goal.metric)
    hover = {}
    for case, gain in gains.items():
        before, after = _values(case, goal, pick, reference, unit)
        hover[case] = f"{case}\nbaseline {before}, pick {after}\npick {gain_text(gain, goal.metric, unit)}"
    title = f"{name}: pick against baseline, above zero is better"
    label = (
        f"A dot for each of {len(gains)} cases: the difference in {name}, sorted, with a band for the one-sided bounds of "
        "the average. The worst are in the table."
    )
    return Chart("case-chart", label, case_differences(gains, hover, compared, title))
