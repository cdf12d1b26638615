"""The first screen of a report: what to ship, how sure that is, what it costs, and what was not shown."""

from __future__ import annotations

from edgedeploy.evidence.bootstrap import LEVEL
from edgedeploy.evidence.front import Front, Row
from edgedeploy.evidence.pick import Judged
from edgedeploy.evidence.quantities import heading, quantity, span
from edgedeploy.evidence.reasons import against_text, allowed_text, lost_text, rules_text, what_is_missing
from edgedeploy.records.metric_table import KEY_METRICS
from edgedeploy.report.blocks import Fact, Summary, Tile
from edgedeploy.report.data import ReportData
from edgedeploy.report.shipping import NO_MARGIN, confirmed
from edgedeploy.report.words import (
    PROVENANCE_TEXT,
    answer,
    baseline_ratio_lines,
    baseline_text,
    chance_text,
    changed_lines,
    cluster_lines,
    key_metrics,
    parity_lines,
)


def summary_of(data: ReportData) -> Summary:
    """The page's top."""
    front = data.front
    counts = f"{len(front.rows)} variants, {len(front.members)} on the front"
    boards = front.board or " + ".join(front.study_boards)
    meta = [f"board {boards}" if boards else "", counts, data.created_utc]
    return Summary(
        name=data.name,
        badge=front.provenance or "nothing measured",
        meta=" \N{MIDDLE DOT} ".join(filter(None, meta)),
        picked=front.fit_to_ship,
        headline=answer(front)[0],
        facts=facts_of(data),
    )


def facts_of(data: ReportData) -> list[Fact]:
    """The four questions, each with its answer. ``data.front`` has its confirmation."""
    front = data.front
    row = front.row(front.featured)
    why = f"{front.pick.reason[:1].upper()}{front.pick.reason[1:]}." if front.pick and row is not None else ""
    whose = "" if front.pick or row is None else f" ({row.variant.label})"
    facts = [Fact("What to ship", _what(front, row), why=why), Fact(f"How sure{whose}", _how_sure(front, row))]
    if row is not None:
        facts.append(Fact(f"What it costs{whose}", tiles=tiles_of(front, row)))
    return [*facts, Fact("What was not shown", points=not_shown(data, row))]


def _what(front: Front, row: Row | None) -> list[str]:
    if row is None:
        return list(answer(front)[1:])
    if front.pick is not None:
        return [f"File: {front.file}."] if front.file else []
    if front.decision.outcome == "no margin":
        return [NO_MARGIN]
    return list(filter(None, ["Nothing yet.", rules_text(front.decision.rules, front.metrics), *_nearest(front)]))


def _nearest(front: Front) -> list[str]:
    """What fewest further cases would decide, and how many."""
    judged = front.decision.judged.get(front.decision.nearest or "")
    if judged is None:
        return []
    missing = what_is_missing(judged, front.metrics)
    return [f"The nearest is {front.labels.get(judged.digest, judged.digest)}. {missing}"]


def _how_sure(front: Front, row: Row | None) -> list[str]:
    if row is None:
        return ["Nothing is claimed."]
    texts = []
    judged = front.decision.judged.get(row.digest)
    if judged is not None and judged.endpoints:
        texts.append(_endpoints(judged, front))
    if judged is not None and judged.lost is not None:
        texts.append(lost_text(judged.lost, front.metrics))
    texts += confirmed(front)
    if row.verdict is not None:
        texts.append(f"Than the baseline that ran beside it: {row.verdict.text}.")
    if row.p_on_front is not None:
        texts.append(f"On the front in {chance_text(row)} of the bootstrap's draws.")
    if front.provenance:
        texts.append(f"All numbers of {front.board} are {PROVENANCE_TEXT[front.provenance]}.")
    return texts


def _endpoints(judged: Judged, front: Front) -> str:
    """Each average against the baseline, with its bound and what is allowed."""
    against = "; ".join(against_text(item.comparison, front.metrics) for item in judged.endpoints)
    cases = judged.endpoints[0].comparison.units
    allowed = allowed_text(front.decision.rules, front.metrics)
    level = f"{judged.level:.2%}" if judged.level != LEVEL else f"{LEVEL:.0%}"
    return (
        f"Against the baseline on {cases} cases, {against}; a loss of {allowed} is allowed (one-sided {level} bounds)."
    )


def tiles_of(front: Front, row: Row) -> list[Tile]:
    """The pick's key numbers, each with its interval and what the baseline gave."""
    tiles = []
    for metric in key_metrics(front):
        estimate = row.estimates.get(metric)
        if estimate is None:
            continue
        unit = front.unit(metric)
        small = [span(estimate, metric, unit), baseline_text(row, metric, front)]
        tiles.append(Tile(heading(metric), quantity(estimate.value, metric, unit), [text for text in small if text]))
    return tiles


def not_shown(data: ReportData, row: Row | None) -> list[str]:
    """What a reader might take for granted and nothing here shows; never empty."""
    front = data.front
    found = []
    if row is not None:
        if front.pick is None:
            found.append("That anything may be shipped in the baseline's place.")
        elif front.confirmation is None or front.confirmation.outcome != "confirmed":
            found.append("That it holds on cases that the search has not seen.")
        if row.verdict is not None and (slow := row.verdict.not_shown):
            found.append(f"{slow[:1].upper()}{slow[1:]}.")
        if data.rivals:
            others = f"{len(data.rivals)} other variant{'s' if len(data.rivals) > 1 else ''}"
            found.append(f"That it is better than {others}, which cannot be told apart from it.")
        wanted = [goal.metric for goal in front.objectives] + [name for name in KEY_METRICS if name in row.missing]
        absent = {name: row.missing[name] for name in wanted if name in row.missing}
        found += [f"{heading(name)}: {why}." for name, why in absent.items()]
        found += _clusters_unknown(data)
    if front.provenance == "emulated":
        found.append("Any time on the board itself: another machine stood in for it.")
    if failed := len(front.failures) + len(front.passing):
        found.append(f"{failed} variant{'s' if failed > 1 else ''} gave no number.")
    found += [
        *changed_lines(front),
        *cluster_lines(front),
        *baseline_ratio_lines(front),
        *parity_lines(front),
        *data.notes,
    ]
    return found or ["Nothing that this report could name."]


def _clusters_unknown(data: ReportData) -> list[str]:
    """Of a folder that does not say whether the task names groups."""
    front = data.front
    told = front.decision.groups is not None or front.clusters_named is not None
    if told or not any(item.cases for item in data.measurements):
        return []
    return ["How alike cases of one patient or clip are: clusters unknown, so each counts as independent."]
