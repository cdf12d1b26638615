"""What to ship, how sure that is, and what is not shown, in sentences."""

from __future__ import annotations

from typing import Final

from edgedeploy.evidence.front import Front
from edgedeploy.evidence.pick import Judged
from edgedeploy.evidence.reasons import against_text, lost_briefly, lost_text, nothing_text, rules_text, what_is_missing

NO_MARGIN: Final = (
    "State [evidence] margin in the study file before the search: what a variant may lose on the task's first "
    "objective."
)


def headline(report: Front) -> str:
    """The study's answer in one sentence. ``Ship`` is said only of a variant that is shown, and not of one that the
    confirmation split did not confirm."""
    if report.pick is None:
        return f"Nothing is shown fit to ship: {nothing_text(report.decision, report.labels)}."
    picked = _label(report, report.pick.digest)
    found = report.confirmation
    if found is None or report.fit_to_ship:
        return f"Ship {picked}."
    if found.outcome == "another was first":
        first = _label(report, found.order[0])
        return f"Not confirmed: {picked} was picked after the confirmation split had been opened for {first}."
    follows = "there is no other" if found.next is None else f"the next is {_label(report, found.next)}"
    if not found.order:
        follows = "none was fixed"
    order = f"In the order fixed before they were opened, {follows}."
    return f"Not confirmed: unseen cases do not show {picked} fit to ship. {order}"


def because(report: Front) -> list[str]:
    """What is shown of the pick, or what is missing."""
    decision = report.decision
    if decision.outcome == "no margin":
        return [NO_MARGIN]
    nearest = decision.judged.get(decision.nearest or "")
    told = [rules_text(decision.rules, report.metrics)] if report.pick is None else [*confirmed(report)]
    if nearest is not None:
        told.append(what_is_missing(nearest, report.metrics))
    featured = decision.judged.get(decision.featured or "")
    if featured is not None and featured.lost is not None and featured.word != "not shown":
        told.append(f"Case by case: {lost_text(featured.lost, report.metrics)}")
    if decision.judged and decision.groups is None and report.clusters_named is None:  # else `cluster_lines` has it
        told.append("Clusters unknown: the task names no groups of cases, so each case counts as independent.")
    return [sentence for sentence in told if sentence]


def mark(report: Front, digest: str) -> str:
    """What a variant's judgement adds to where it stands; empty for what is shown, and where nothing was judged."""
    found = report.decision.judged.get(digest)
    if found is None or found.word in ("non-inferior", "baseline"):
        return ""
    lost = found.lost
    if found.word == "not shown" and lost and not lost.shown and all(item.shown for item in found.endpoints):
        return f"its mean holds; {lost_briefly(lost, report.metrics)}"
    return {
        "inferior": "shown to lose more than is allowed",
        "not shown": "not shown to lose no more than is allowed",
        "no verdict": "no verdict",
    }[found.word]


def featured_role(report: Front) -> str:
    """What the variant is that a report shows in detail."""
    return "pick" if report.pick else "nearest variant"


def confirmed(report: Front) -> list[str]:
    """What the confirmation split says of the pick, in sentences; nothing without a pick."""
    found = report.confirmation
    if found is None or found.outcome == "not opened":
        return ["The confirmation split was not opened: no unseen case says so too."] if found else []
    told = []
    if found.outcome == "no number":
        told.append(
            "The confirmation split was opened, and gave no number of it so far: `search --resume` runs what is missing."
        )
    if found.judged is not None:
        head = "Confirmed" if found.outcome == "confirmed" else "Not confirmed"
        told.append(f"{head} on {_unseen(found.judged, report)}")
        if found.outcome == "not confirmed" and found.judged.word != "no verdict":
            told.append(what_is_missing(found.judged, report.metrics))
    if found.openings > 1:
        told.append(f"The confirmation split was opened {found.openings} times: its cases are not unseen any more.")
    if found.order and not found.intact:
        told.append("The log of openings has another hash than its order of candidates: somebody changed it.")
    elif not found.order and found.openings:
        told.append("No order of candidates was fixed before it was opened.")
    return told


def _unseen(judged: Judged, report: Front) -> str:
    """What the confirmation split says of the pick."""
    if judged.word == "no verdict":
        return f"unseen cases: there is no verdict on it, as {judged.why}."
    parts = [against_text(item.comparison, report.metrics) for item in judged.endpoints]
    lost = f" {lost_text(judged.lost, report.metrics)}" if judged.lost else ""
    return f"{judged.endpoints[0].comparison.units} unseen cases: {'; '.join(parts)}.{lost}"


def _label(report: Front, digest: str) -> str:
    return report.labels.get(digest, digest)
