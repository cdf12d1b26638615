"""What a decision says, in words: why a variant was picked, or what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from edgedeploy.evidence.bootstrap import LEVEL, Comparison
from edgedeploy.evidence.noninferiority import LostCases
from edgedeploy.evidence.pick import Decision, Endpoint, Judged, Pick, accuracy_objective, cost_objective
from edgedeploy.evidence.quantities import comparison_text, phrase, quantity
from edgedeploy.records.goals import LOST_CASE_MARGINS, LostCase, Objective, Rules
from edgedeploy.records.metrics import MetricInfo

Metrics = Mapping[str, MetricInfo]

SHOWN_CASES: Final = 3
"""Lost cases that a sentence names."""


def picked(decision: Decision, objectives: Sequence[Objective], metrics: Metrics) -> Pick | None:
    """The first in the decision's order, with the reason; None where nothing is shown."""
    if not decision.order:
        return None
    judged = decision.judged[decision.order[0]]
    first = judged.endpoints[0]
    order = cost_objective(objectives) or accuracy_objective(objectives)
    assert order is not None
    superlative = "smallest" if order.direction == "minimize" else "largest"
    shown = len(decision.order)
    cost = cost_objective(objectives)
    meet, less = ("variant that meets", "costs") if decision.compared == 1 else ("variants that meet", "cost")
    cheaper = f" and {less} less than the baseline ({phrase(cost.metric)})" if cost else ""
    reason = (
        f"of {decision.compared} {meet} the limits{cheaper}, {shown} {'is' if shown == 1 else 'are'} shown to "
        f"lose at most {allowed_text(decision.rules, metrics)} against the baseline (one-sided {LEVEL:.0%} bounds"
        f"{_steps(decision)}){_and_lost(judged.lost, metrics)}, and of these it has the {superlative} "
        f"{phrase(order.metric)}; {against_text(first.comparison, metrics)}, over {first.comparison.units} cases"
    )
    return Pick(judged.digest, reason, first.comparison, first.margin, judged)


def against_text(found: Comparison, metrics: Metrics) -> str:
    """``its Dice mean is 0.004 worse (shown to be at most 0.006 worse)``."""
    return f"its {phrase(found.metric)} is {comparison_text(found, unit_of(found.metric, metrics))}"


def unit_of(metric: str, metrics: Metrics) -> str:
    return metrics[metric].unit if metric in metrics else "1"


def amount(value: float, metric: str, metrics: Metrics) -> str:
    """A value of a metric with its unit."""
    return quantity(value, metric, unit_of(metric, metrics))


def allowed_text(rules: Rules, metrics: Metrics) -> str:
    """``0.010 of Dice mean``, for each margin."""
    parts = [(margin.objective.metric, margin.allowed) for margin in rules.margins]
    return " and ".join(f"{amount(allowed, name, metrics)} of {phrase(name)}" for name, allowed in parts)


def rules_text(rules: Rules, metrics: Metrics) -> str:
    """What has to be shown, in one sentence; empty without a margin."""
    if not rules.margins:
        return ""
    sentence = f"A variant may lose at most {allowed_text(rules, metrics)} against the float baseline"
    return f"{sentence}{_lost_rule(rules.lost, metrics)}."


def _lost_rule(lost: LostCase | None, metrics: Metrics) -> str:
    if lost is None:
        return ""
    share = "no measured case may" if lost.share is None else f"at most {lost.share:.0%} of all cases may"
    name = lost.objective.metric
    why = "" if lost.stated else f" ({LOST_CASE_MARGINS} margins, as the study does not say)"
    return f", and {share} lose more than {amount(lost.more_than, name, metrics)} of {phrase(name)}{why}"


def nothing_text(decision: Decision, labels: Mapping[str, str]) -> str:
    """Why nothing is picked."""
    if decision.outcome == "none shown":
        return f"{labels.get(decision.nearest or '', decision.nearest)} comes closest"
    if decision.outcome == "no baseline":
        names = " and ".join(phrase(margin.objective.metric) for margin in decision.rules.margins)
        return f"no baseline has {names}, so no loss against it can be bounded"
    return {
        "no margin": "the study states no margin, so there is no verdict",
        "no task objective": "no objective is about accuracy, so no loss of it is bounded",
        "nothing cheaper": "no variant that meets the limits costs less than the float baseline",
    }.get(decision.outcome, "no variant is on the front")


def _steps(decision: Decision) -> str:
    return f", by Holm's steps over {decision.questions} that differ in their answers" if decision.questions > 1 else ""


def _and_lost(lost: LostCases | None, metrics: Metrics) -> str:
    if lost is None:
        return ""
    by = f"more than {amount(lost.more_than, lost.metric, metrics)} of {phrase(lost.metric)}"
    if lost.allowed is None:
        return f", and {by} on none of the measured cases"
    return f", and {by} on no more than {lost.allowed:.0%} of all cases"


def lost_text(lost: LostCases, metrics: Metrics) -> str:
    """How many cases are lost, what that leaves open, and the worst of them."""

    def text(value: float) -> str:
        return amount(value, lost.metric, metrics)

    units = "" if lost.units == lost.cases else f", {lost.units_lost} of {lost.units} groups"
    named = ", ".join(lost.lost[:SHOWN_CASES]) + (", ..." if len(lost.lost) > SHOWN_CASES else "")
    which = f": {named}" if lost.lost else ""
    what = "cases" if lost.units == lost.cases else "groups"
    worst = f"largest loss {text(max(0.0, -lost.worst))} ({lost.worst_case})"
    more = f"more than {text(lost.more_than)} of {phrase(lost.metric)}{which}"
    share = f"up to {lost.upper:.1%} of {what} may ({LEVEL:.0%} bound)"
    return f"{len(lost.lost)} of {lost.cases} cases{units} lose {more}; {share}; {worst}."


def lost_briefly(lost: LostCases, metrics: Metrics) -> str:
    """What of single cases is not shown, in a few words."""
    more = f"lost more than {amount(lost.more_than, lost.metric, metrics)} of {phrase(lost.metric)}"
    if not lost.lost:
        return f"too few cases to bound how many {more}"
    return f"{len(lost.lost)} of {lost.cases} cases {more}"


def what_is_missing(judged: Judged, metrics: Metrics) -> str:
    """By how much, and by how many cases, a variant falls short of the rules, in sentences; empty where it does not."""
    if judged.word == "no verdict":
        return f"There is no verdict on it: {judged.why}."
    if judged.word in ("non-inferior", "baseline"):
        return ""
    told = [_short(item, metrics) for item in judged.endpoints if not item.shown]
    if judged.lost is not None and not judged.lost.shown:
        told.append(_too_many(judged.lost, metrics))
    wanted, there = judged.cases_wanted, max(item.comparison.units for item in judged.endpoints)
    if wanted is not None and wanted > there:
        seen = "If its mean loss and its spread over cases stay as seen"
        told.append(f"{seen}, about {wanted} cases would show it; there were {there}.")
    return " ".join(told)


def _short(item: Endpoint, metrics: Metrics) -> str:
    found = item.comparison
    assert found.lower is not None

    def text(value: float) -> str:
        return amount(value, found.metric, metrics)

    short = (
        f"Its loss of {phrase(found.metric)} is bounded by {text(-found.lower)}; {text(item.margin)} is allowed, which is "
        f"{text(item.missed_by)} less."
    )
    if item.cases_wanted is None and found.gain < 0:
        return f"{short} The loss itself is {text(-found.gain)}: more cases will not show less."
    return short


def _too_many(lost: LostCases, metrics: Metrics) -> str:
    more = "" if lost.cases_wanted() is not None else " More cases will not show less."
    allowed = "none may" if lost.allowed is None else f"{lost.allowed:.0%} may"
    return f"{lost_text(lost, metrics).removesuffix('.')}; {allowed}.{more}"
