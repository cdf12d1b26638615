"""What the confirmation split says of the variants that were chosen on the selection split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgedeploy.evidence.bootstrap import Comparison, Estimate, Resampler
from edgedeploy.evidence.confirmation import Confirmation, Outcome, order_sha256
from edgedeploy.evidence.front import Front
from edgedeploy.evidence.pick import accuracy_objective, judge_alone
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metric_table import BOARD_METRICS
from edgedeploy.records.variant import Variant


@dataclass(frozen=True)
class Confirmed:
    """One variant on the confirmation split. ``accuracy`` compares it with the reference baseline there, None for the
    baseline itself and without one; ``within_margin`` says whether the loss is shown to be no more than the margin,
    None where the study states none."""

    variant: Variant
    estimates: dict[str, Estimate]
    accuracy: Comparison | None
    within_margin: bool | None


def confirm(report: Front, confirmation: Sequence[Measurement]) -> tuple[Confirmed, ...]:
    """The task's metrics of every valid confirmation measurement: reference first, the pick next, then by digest."""
    valid = [item for item in confirmation if item.valid]
    reference = next((item for item in valid if item.digest == report.reference), None)
    goal = accuracy_objective(report.objectives)
    if goal and reference and goal.metric not in reference.metrics:
        goal = None
    allowed = {margin.objective.metric: margin.allowed for margin in report.decision.rules.margins}
    margin = allowed.get(goal.metric) if goal else None
    resampler = Resampler(report.seed)
    picked = report.pick.digest if report.pick else None
    valid.sort(key=lambda item: (item is not reference, item.digest != picked, item.digest))
    found = []
    for item in valid:
        names = sorted(name for name in item.metrics if name not in BOARD_METRICS)
        compared = None
        if goal and reference and item is not reference and goal.metric in item.metrics:
            compared = resampler.compare(item, reference, goal)
        found.append(
            Confirmed(
                item.variant,
                {name: resampler.estimate(item, name) for name in names},
                compared,
                compared.shows_at_least(-margin) if compared and margin is not None else None,
            )
        )
    return tuple(found)


def confirmation_of(
    report: Front, confirmation: Sequence[Measurement], openings: Sequence[Mapping[str, Any]]
) -> Confirmation | None:
    """What ``confirmation`` (measurements) says of the pick; None where there is no pick. ``openings`` is the log of
    the split: the order of candidates counts as its first line has it."""
    if report.pick is None:
        return None
    rules = report.decision.rules
    first = openings[0] if openings else {}
    order = tuple(first.get("order", ()))
    known = Confirmation(
        "another was first",
        order=order,
        fixed_utc=str(first.get("utc", "")) if order else "",
        intact=bool(order) and first.get("order_sha256") == order_sha256(order, rules),
        openings=sum(not order or tuple(item.get("order", ())) != order for item in openings[1:]) + bool(openings),
    )
    if order and order[0] != report.pick.digest:
        return known
    valid = {item.digest: item for item in confirmation if item.valid}
    ours, reference = valid.get(report.pick.digest), valid.get(report.reference or "")
    names = [margin.objective.metric for margin in rules.margins]
    if ours is None or reference is None or not all(name in reference.metrics for name in names):
        return replace(known, outcome="no number" if openings else "not opened")
    judged = judge_alone(ours, reference, rules, Resampler(report.seed))
    outcome: Outcome = "confirmed" if judged.shown else "not confirmed"
    following = order[1] if len(order) > 1 and not judged.shown else None
    return replace(known, outcome=outcome, judged=judged, next=following)
