"""The first screen of a report: what to ship, how sure that is, what it costs, and what was not shown."""

from __future__ import annotations

from edgedeploy.evidence.bootstrap import LEVEL
from edgedeploy.evidence.confirm import confirm
from edgedeploy.evidence.front import Front, Row
from edgedeploy.evidence.pick import what_is_missing
from edgedeploy.evidence.quantities import comparison_text, heading, phrase, quantity, span
from edgedeploy.records.metric_table import KEY_METRICS
from edgedeploy.report.blocks import Fact, Summary, Tile
from edgedeploy.report.data import ReportData
from edgedeploy.report.page_details import confirmation_verdict
from edgedeploy.report.words import (
    PROVENANCE_TEXT,
    answer,
    baseline_text,
    chance_text,
    changed_lines,
    key_metrics,
    parity_lines,
)


def summary_of(data: ReportData) -> Summary:
    """The page's top."""
    front = data.front
    counts = f"{len(front.rows)} variants, {len(front.members)} on the front"
    meta = [f"board {front.board}" if front.board else "", counts, data.created_utc]
    return Summary(
        name=data.name,
        badge=front.provenance or "nothing measured",
        meta=" \N{MIDDLE DOT} ".join(filter(None, meta)),
        picked=shipped(front),
        headline=answer(front)[0],
        facts=facts_of(data),
    )


def shipped(front: Front) -> bool:
    """Whether the rule shows the pick fit to ship."""
    return front.pick is not None and front.pick.non_inferior is True


def facts_of(data: ReportData) -> list[Fact]:
    """The four questions, each with its answer."""
    front = data.front
    row = front.row(front.pick.digest) if front.pick else None
    facts = [Fact("What to ship", _what(front, row)), Fact("How sure", _how_sure(data, row))]
    if row is not None:
        facts.append(Fact("What it costs", tiles=tiles_of(front, row)))
    return [*facts, Fact("What was not shown", points=not_shown(data, row))]


def _what(front: Front, row: Row | None) -> list[str]:
    if row is None or front.pick is None:
        return list(answer(front)[1:])
    file = [f"File: {row.file}."] if row.file else []
    what = [] if shipped(front) else [f"Nothing yet. The nearest is {row.variant.label}."]
    return [*what, *file, f"Why this one: {front.pick.reason}."]


def _how_sure(data: ReportData, row: Row | None) -> list[str]:
    front, pick = data.front, data.front.pick
    if pick is None or row is None:
        return ["Nothing is claimed."]
    texts = []
    if pick.accuracy is not None and pick.digest != front.reference:
        unit = front.unit(pick.accuracy.metric)
        texts.append(
            f"On {pick.accuracy.units} cases, {phrase(pick.accuracy.metric)} against the baseline is "
            f"{comparison_text(pick.accuracy, unit)}; one-sided {LEVEL:.0%} bound, "
            f"{quantity(pick.margin, pick.accuracy.metric, unit)} is allowed."
        )
    if confirmed := confirmation_verdict(confirm(front, data.confirmation), front):
        texts.append(confirmed)
    if row.verdict is not None:
        texts.append(f"Than the baseline that ran beside it: {row.verdict.word}.")
    if row.p_on_front is not None:
        texts.append(f"In {chance_text(row)} of the bootstrap's draws it is on the front.")
    if front.provenance:
        texts.append(f"All numbers of {front.board} are {PROVENANCE_TEXT[front.provenance]}.")
    return texts


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
    front, pick = data.front, data.front.pick
    found = []
    if pick is not None and row is not None:
        found.append(what_is_missing(pick, front.metrics))
        found += _unconfirmed(data)
        if row.verdict is not None and row.verdict.word != "faster":
            found.append("That it is faster than the baseline beside it.")
        if data.rivals:
            count = f"{len(data.rivals)} other variant{'s' if len(data.rivals) > 1 else ''}"
            found.append(f"That it is better than {count}, which cannot be told apart from it.")
        wanted = [goal.metric for goal in front.objectives] + [name for name in KEY_METRICS if name in row.missing]
        absent = {name: row.missing[name] for name in wanted if name in row.missing}
        found += [f"{heading(name)}: {why}." for name, why in absent.items()]
        if not any(item.groups for item in data.measurements if item.valid):
            found.append(
                "How alike cases of one patient or clip are: the task names no groups, so each counts by itself."
            )
    if front.provenance == "emulated":
        found.append("Any time on the board itself: another machine stood in for it.")
    if front.failures or front.passing:
        found.append(f"{len(front.failures) + len(front.passing)} variants, which gave no number.")
    found += [*changed_lines(front), *parity_lines(front), *data.notes]
    return list(filter(None, found)) or ["Nothing that this report could name."]


def _unconfirmed(data: ReportData) -> list[str]:
    found = confirm(data.front, data.confirmation)
    if not data.confirmation:
        return ["That it holds on cases that the search has not seen: the confirmation split was not opened."]
    mine = (
        next((item for item in found if item.variant.digest == data.front.pick.digest), None)
        if data.front.pick
        else None
    )
    if mine is not None and mine.within_margin is False:
        return ["That its loss stays within the margin on cases that the search has not seen."]
    return []
