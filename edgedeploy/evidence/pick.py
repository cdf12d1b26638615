"""Which variant to ship, by a rule that is written down before anybody looks at the numbers.

Non-inferiority: among the feasible members of the front, those whose loss on the first task objective against the float
baseline of the reference target is shown (one-sided paired bound) to be no larger than the margin; of these, the
cheapest. When none is shown, the pick is the one that comes closest on accuracy, and the reason says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgedeploy.evidence.bootstrap import LEVEL, MIN_UNITS, Comparison, Resampler
from edgedeploy.evidence.quantities import comparison_text, phrase, quantity
from edgedeploy.records.goals import Objective
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metric_table import BOARD_METRICS
from edgedeploy.records.metrics import MetricInfo


@dataclass(frozen=True)
class Pick:
    """``digest`` is the variant, ``reason`` the rule's outcome in words. ``non_inferior`` is None when there was no
    baseline or no task objective to hold it against; ``accuracy`` is its comparison with the baseline."""

    digest: str
    reason: str
    non_inferior: bool | None
    accuracy: Comparison | None
    margin: float

    def as_json(self) -> dict[str, Any]:
        return {
            "digest": self.digest,
            "reason": self.reason,
            "non_inferior": self.non_inferior,
            "accuracy": self.accuracy.as_json() if self.accuracy else None,
            "margin": self.margin,
        }


def what_is_missing(pick: Pick, metrics: Mapping[str, MetricInfo]) -> str:
    """By how much, and by how many cases, the pick falls short of the rule; a sentence, empty when the rule held or there
    was nothing to hold it against."""
    found = pick.accuracy
    if found is None or pick.non_inferior is not False:
        return ""
    unit = metrics[found.metric].unit if found.metric in metrics else "1"

    def text(value: float) -> str:
        return quantity(value, found.metric, unit)

    if found.lower is None and found.units >= MIN_UNITS:
        return (
            f"It was held against the baseline on {found.units} cases, but these are of fewer than {MIN_UNITS} groups, or "
            f"draws of them often leave {phrase(found.metric)} undefined, as one class has very few: no loss is bounded."
        )
    if found.lower is None:
        return f"It was held against the baseline on {found.units} cases; no loss is bounded by fewer than {MIN_UNITS}."
    short = (
        f"Its loss is bounded by {text(-found.lower)}; {text(pick.margin)} is allowed, which is "
        f"{text(-found.lower - pick.margin)} less."
    )
    room = found.gain + pick.margin
    if room <= 0:
        return f"{short} The loss itself is {text(-found.gain)}: more cases will not show less."
    wanted = math.ceil(found.units * ((found.gain - found.lower) / room) ** 2)
    if found.method not in ("paired cases", "paired draws") or wanted <= found.units:
        return short
    return f"{short} If it stays as it is, about {wanted} cases would show it; there were {found.units}."


def accuracy_objective(objectives: Sequence[Objective]) -> Objective | None:
    """The first objective that belongs to the task; None when all of them are costs."""
    return next((goal for goal in objectives if goal.metric not in BOARD_METRICS), None)


def cost_objective(objectives: Sequence[Objective]) -> Objective | None:
    """The first objective that is measured on the board; None when all of them belong to the task."""
    return next((goal for goal in objectives if goal.metric in BOARD_METRICS), None)


def choose(
    members: Sequence[Measurement],
    reference: Measurement | None,
    objectives: Sequence[Objective],
    *,
    margin: float,
    resampler: Resampler,
    metrics: Mapping[str, MetricInfo],
) -> Pick | None:
    """The pick among the front's members; None when there are none. Ties go to the next objective, then the digest.

    The recovered baseline shows what more training gives by itself. It is picked only where it is the whole front.
    """
    if not members:
        return None
    members = [member for member in members if not member.variant.recovered] or members
    accuracy, cost = accuracy_objective(objectives), cost_objective(objectives)
    if accuracy is None:
        best = _best(members, objectives)
        reason = f"no objective is about accuracy: it is the best of {len(members)} on {phrase(objectives[0].metric)}"
        return Pick(best.digest, reason, None, None, margin)
    by_accuracy = [accuracy, *(goal for goal in objectives if goal is not accuracy)]
    if reference is None or accuracy.metric not in reference.metrics:
        best = _best(members, by_accuracy)
        reason = (
            f"no baseline has {phrase(accuracy.metric)}, so no loss against it can be bounded: it is the best of "
            f"{len(members)} on {phrase(accuracy.metric)}"
        )
        return Pick(best.digest, reason, None, None, margin)
    found = {member.digest: resampler.compare(member, reference, accuracy) for member in members}
    unit = metrics[accuracy.metric].unit if accuracy.metric in metrics else "1"
    allowed = f"{quantity(margin, accuracy.metric, unit)} of {phrase(accuracy.metric)}"
    safe = [member for member in members if found[member.digest].shows_at_least(-margin)]
    if not safe:
        best = _best(members, by_accuracy)
        reason = (
            f"no member of the front is shown to lose at most {allowed} against the baseline "
            f"({LEVEL:.0%} one-sided bound), so this is the one that comes closest on accuracy: "
            f"{_difference(found[best.digest], best is reference, unit)}"
        )
        return Pick(best.digest, reason, False, found[best.digest], margin)
    order = [cost, *(goal for goal in objectives if goal is not cost)] if cost else by_accuracy
    best = _best(safe, order)
    superlative = "smallest" if order[0].direction == "minimize" else "largest"
    reason = (
        f"of {len(members)} on the front, {len(safe)} {'is' if len(safe) == 1 else 'are'} shown to lose at most "
        f"{allowed} against the baseline ({LEVEL:.0%} one-sided bound), and of these it has the {superlative} "
        f"{phrase(order[0].metric)}; {_difference(found[best.digest], best is reference, unit)}"
    )
    return Pick(best.digest, reason, True, found[best.digest], margin)


def _best(members: Sequence[Measurement], order: Sequence[Objective]) -> Measurement:
    return min(members, key=lambda m: (*(-goal.gain(m.metrics[goal.metric], 0.0) for goal in order), m.digest))


def _difference(comparison: Comparison, is_reference: bool, unit: str) -> str:
    if is_reference:
        return "it is the baseline itself"
    return f"its {phrase(comparison.metric)} is {comparison_text(comparison, unit)}, over {comparison.units} cases"
