"""What the confirmation split says of the variants that were chosen on the selection split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgedeploy.evidence.bootstrap import Comparison, Estimate, Resampler
from edgedeploy.evidence.front import Front
from edgedeploy.evidence.pick import accuracy_objective
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metric_table import BOARD_METRICS
from edgedeploy.records.variant import Variant


@dataclass(frozen=True)
class Confirmed:
    """One variant on the confirmation split. ``accuracy`` compares it with the reference baseline there, None for the
    baseline itself and without one; ``within_margin`` says whether the loss is shown to be no more than the margin."""

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
    margin = report.pick.margin if report.pick else 0.0
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
                compared.shows_at_least(-margin) if compared else None,
            )
        )
    return tuple(found)
