"""Variants that the evidence cannot tell apart from the pick: another drawing of cases might have chosen one of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgedeploy.evidence.bootstrap import Comparison, Estimate, Resampler
from edgedeploy.evidence.front import Front, Row
from edgedeploy.evidence.quantities import gain_text, heading
from edgedeploy.records.measurement import Measurement
from edgedeploy.report.blocks import Section, Table, Text
from edgedeploy.report.plot import BEHIND
from edgedeploy.report.shipping import featured_role
from edgedeploy.report.tables import line

MOST_SHOWN = 12


@dataclass(frozen=True)
class Rival:
    """``compared`` are its gains over the pick, an objective each."""

    digest: str
    label: str
    compared: tuple[Comparison, ...]


def rivals_of(front: Front, measurements: Sequence[Measurement], resampler: Resampler) -> tuple[Rival, ...]:
    """Variants that meet the limits and that no bound shows to differ from the pick, on any objective, by more than the
    smallest effect that matters; the nearest on the first objective first. None without one
    to hold them against: the pick, or what comes nearest."""
    pick = front.row(front.featured)
    by_digest = {item.digest: item for item in measurements if item.valid}
    if pick is None or pick.digest not in by_digest:
        return ()
    found = []
    for row in front.rows:
        if row is pick or row.status not in ("front", *BEHIND) or row.digest not in by_digest:
            continue
        if not _could_be_equal(row, pick, front):
            continue
        compared = tuple(
            resampler.compare(by_digest[row.digest], by_digest[pick.digest], goal) for goal in front.objectives
        )
        if not any(_differs(item, front.min_effect[item.metric]) for item in compared):
            found.append(Rival(row.digest, row.variant.label, compared))
    return tuple(sorted(found, key=lambda rival: (abs(rival.compared[0].gain), rival.digest)))


def _could_be_equal(row: Row, pick: Row, front: Front) -> bool:
    """Whether it is worth a closer look: intervals that are further apart than what matters and than they are wide."""
    for goal in front.objectives:
        ours, theirs = row.estimates.get(goal.metric), pick.estimates.get(goal.metric)
        if ours is None or theirs is None:
            return False
        if abs(ours.value - theirs.value) > front.min_effect[goal.metric] + 2 * (_width(ours) + _width(theirs)):
            return False
    return True


def _width(estimate: Estimate) -> float:
    return 0.0 if estimate.low is None or estimate.high is None else estimate.high - estimate.low


def _differs(compared: Comparison, effect: float) -> bool:
    """Too few cases show no difference."""
    return compared.shows_more_than(effect) or (compared.upper is not None and compared.upper < -effect)


def between_text(compared: Comparison, unit: str) -> str:
    """``0.004 worse (0.009 worse to 0.002 better)``: a gain between its one-sided bounds."""
    gain = gain_text(compared.gain, compared.metric, unit)
    if compared.lower is None or compared.upper is None:
        return f"{gain} (too few cases to bound it)"
    if compared.method == "exact":
        return gain
    low, high = (gain_text(bound, compared.metric, unit) for bound in (compared.lower, compared.upper))
    return f"{gain} ({low} to {high})"


def rivals_section(front: Front, rivals: Sequence[Rival]) -> Section | None:
    """Who stands beside the pick, or beside what comes nearest; nothing without either."""
    if front.featured is None:
        return None
    whose = featured_role(front)
    title = "Rivals that cannot be told apart"
    caption = (
        f"Variants within the limits whose difference from the {whose}, in every objective, is not shown to be more than "
        "the smallest effect that matters. In parentheses: one-sided bounds. More cases or longer runs may tell them apart."
    )
    if not rivals:
        text = f"None: each other variant within the limits is shown to differ from the {whose} by more than matters in some"
        return Section(title, "", [Text(f"{text} objective.")])
    lines = [
        line(rival.label, *(between_text(item, front.unit(item.metric)) for item in rival.compared))
        for rival in rivals[:MOST_SHOWN]
    ]
    headers = ["Variant", *(f"{heading(goal.metric)}, than the {whose}" for goal in front.objectives)]
    blocks: list[Table | Text] = [Table(headers, lines, look="narrow", named=True)]
    if len(rivals) > MOST_SHOWN:
        blocks.append(Text(f"{len(rivals) - MOST_SHOWN} more are not listed.", "note"))
    return Section(title, caption, blocks)
