"""The report: one HTML file that needs nothing else, made from stored evidence alone.

Sections in the order a reader asks: what to ship and why, the front, the numbers, case by case, the confirmation, what
failed, where the time went, on what it ran, how to do it again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from edgedeploy.evidence.bootstrap import LEVEL, RESAMPLES, Resampler
from edgedeploy.evidence.confirm import Confirmed, confirm
from edgedeploy.evidence.frontier import FrontReport, Row
from edgedeploy.evidence.page import page
from edgedeploy.evidence.pick import accuracy_objective, signed
from edgedeploy.evidence.pictures import CasePicture, case_gains, pick_and_reference, picture_rows
from edgedeploy.evidence.plot import case_differences, choose_axes, pareto
from edgedeploy.evidence.tables import (
    all_variants_table,
    cell,
    confirmation_table,
    environment_table,
    failures_table,
    metrics_table,
    pairs_table,
    table,
)
from edgedeploy.evidence.words import (
    PROVENANCE_TEXT,
    answer,
    board_metrics_present,
    comparison_text,
    executed_text,
    heading,
    key_metrics,
    quantity,
    span,
    task_metrics,
)
from edgedeploy.files import write_atomic
from edgedeploy.measurement import Failure, Measurement
from edgedeploy.units import human

PHASE_COLOURS = ("#2166ac", "#4393c3", "#92c5de", "#5aae61", "#a6dba0", "#b2abd2", "#f4a582", "#cfd4da")


@dataclass(frozen=True)
class ReportData:
    """All that a report shows. ``measurements`` are those the front was built from, invalid ones included;
    ``seconds`` is the time account by phase, ``overhead`` the share of it that is not work (None: not known);
    ``openings`` the log of the confirmation split (``utc``, ``reason``, ``variants``); ``command`` what was typed."""

    name: str
    front: FrontReport
    measurements: Sequence[Measurement]
    study_text: str
    command: str
    confirmation: Sequence[Measurement] = ()
    failures: Sequence[Failure] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    overhead: float | None = None
    openings: Sequence[Mapping[str, Any]] = ()
    pictures: Sequence[CasePicture] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    created_utc: str = ""
    notes: Sequence[str] = ()


def write_report(data: ReportData, path: Path) -> Path:
    """Write the page to ``path``, whole or not at all. Returns ``path``."""
    write_atomic(path, render_report(data).encode())
    return path


def render_report(data: ReportData) -> str:
    """The page as text: the same data gives the same text."""
    charts: dict[str, dict[str, Any]] = {}
    sections = [
        _summary(data),
        _front(data, charts),
        _numbers(data),
        _every_variant(data),
        _cases(data, charts),
        _confirmation(data),
        _failures(data),
        _time(data),
        _environment(data),
        _reproduce(data),
    ]
    return page(f"{data.name}: edgedeploy report", "\n".join(section for section in sections if section), charts)


def _section(title: str, caption: str, *parts: str) -> str:
    note = f'<p class="note">{escape(caption)}</p>' if caption else ""
    return f"<section><h2>{escape(title)}</h2>{note}{''.join(parts)}</section>"


def _paragraphs(lines: Sequence[str]) -> str:
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _summary(data: ReportData) -> str:
    front = data.front
    badge = front.provenance or "nothing measured"
    warn = "" if badge == "measured" else " warn"
    counts = f"{len(front.rows)} variants, {len(front.members)} on the front"
    meta = " \N{MIDDLE DOT} ".join(
        filter(None, [f"board {front.board}" if front.board else "", counts, data.created_utc])
    )
    head, *rest = answer(front)
    kind = "answer" if front.pick else "answer none"
    return (
        f"<header><h1>{escape(data.name)}</h1>"
        f'<p class="meta"><span class="badge{warn}">{escape(badge)}</span> {escape(meta)}</p></header>'
        f'<div class="{kind}"><strong>{escape(head)}</strong><p>{escape(" ".join(rest))}</p></div>'
        f"{_tiles(front)}{_paragraphs(data.notes)}"
    )


def _tiles(front: FrontReport) -> str:
    pick = front.row(front.pick.digest) if front.pick else None
    if pick is None:
        return ""
    baseline = front.row(front.reference)
    tiles = []
    for metric in key_metrics(front):
        estimate = pick.estimates.get(metric)
        if estimate is None:
            continue
        unit = front.unit(metric)
        small = [span(estimate, metric, unit)]
        if baseline and metric in baseline.estimates:
            small.append(f"baseline {quantity(baseline.estimates[metric].value, metric, unit)}")
        tiles.append(
            f'<div class="tile"><div class="name">{escape(heading(metric))}</div>'
            f'<div class="big">{escape(quantity(estimate.value, metric, unit))}</div>'
            + "".join(f'<div class="small">{escape(text)}</div>' for text in small if text)
            + "</div>"
        )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _front(data: ReportData, charts: dict[str, dict[str, Any]]) -> str:
    front = data.front
    x, y = choose_axes(front)
    drawn = [row for row in front.rows if {x.metric, y.metric} <= set(row.estimates)]
    caption = (
        "Each point is a variant that was built, run and scored. The line is the front: no variant here is better in "
        f"everything. Bars are {LEVEL:.0%} bootstrap intervals. Point at a variant for its numbers."
    )
    if len(front.objectives) > 2:
        caption += f" The study has {len(front.objectives)} objectives; this shows two, and the line only these two."
    if not drawn:
        return _section(
            "The front", "", _paragraphs(["No valid variant has both metrics, so there is nothing to draw."])
        )
    charts["front-chart"] = pareto(front)
    text = f"Plot of {heading(y.metric)} against {heading(x.metric)} for {len(drawn)} variants; the table has the same."
    chart = f'<div id="front-chart" class="chart" role="img" aria-label="{escape(text, quote=True)}"></div>'
    return _section(
        "The front", caption, chart, "<noscript><p>The plot needs scripts; the tables do not.</p></noscript>"
    )


def _numbers(data: ReportData) -> str:
    front = data.front
    shown = [*front.members, *(row for row in front.baselines if row.status != "front")]
    if not shown:
        return ""
    caption = (
        "The front's members and the float baselines, which are always measured. Small print is the "
        f"{LEVEL:.0%} interval. \u201cvs baseline\u201d is against the reference target's float model, timed beside it."
    )
    parts = []
    if accuracy := task_metrics(front):
        parts += [
            "<h3>Accuracy of the exported artifact, as the board computed it</h3>",
            metrics_table(shown, accuracy, front),
        ]
    parts += ["<h3>On the board</h3>", metrics_table(shown, board_metrics_present(front), front, executed=True)]
    absent = _missing_everywhere(shown)
    if absent:
        parts.append(f'<p class="note">Not available for any of them: {escape(absent)}.</p>')
    return _section("Front and baselines", caption, *parts)


def _missing_everywhere(rows: Sequence[Row]) -> str:
    reasons: dict[str, str] = {}
    for row in rows:
        reasons.update(row.missing)
    gone = {name: why for name, why in sorted(reasons.items()) if not any(name in row.estimates for row in rows)}
    return "; ".join(f"{heading(name)} ({why})" for name, why in gone.items())


def _every_variant(data: ReportData) -> str:
    front = data.front
    parts = [all_variants_table(front)] if front.rows else _none("No variant gave a valid measurement.")
    if front.constraints:
        limits = "; ".join(item.text(front.unit(item.metric)) for item in front.constraints)
        parts.append(f'<p class="note">Limits: {escape(limits)}.</p>')
    effects = "; ".join(
        f"{heading(goal.metric)} {quantity(front.min_effect[goal.metric], goal.metric, front.unit(goal.metric))}"
        for goal in front.objectives
    )
    caption = (
        "Click a heading to sort. A variant is \u201cdominated (confirmed)\u201d when the one-sided "
        f"{LEVEL:.0%} bounds show the other one to be nowhere worse and somewhere better by more than the smallest effect "
        f"that matters ({effects}); when they do not show it, the two are \u201cindistinguishable\u201d."
    )
    if front.invalid:
        rows = (
            f"<tr>{cell(item.variant.label)}{cell(item.cause)}{cell(item.created_utc)}</tr>" for item in front.invalid
        )
        parts.append("<h3>Invalid runs</h3>")
        parts.append('<p class="note">The conditions drifted while these ran, so they gave no numbers.</p>')
        parts.append(table(["Variant", "Cause", "When"], rows))
    return _section("All variants", caption, *parts)


def _none(text: str) -> list[str]:
    return [f"<p>{escape(text)}</p>"]


def _cases(data: ReportData, charts: dict[str, dict[str, Any]]) -> str:
    front = data.front
    goal = accuracy_objective(front.objectives)
    gains = case_gains(front, data.measurements)
    pick, reference = pick_and_reference(front, data.measurements)
    title = "Case by case against the baseline"
    if goal is None or pick is None or reference is None or not gains:
        why = "The pick is the baseline itself." if pick is not None and pick is reference else ""
        text = why or "There is no pick, no baseline, or no metric by case, so there is nothing to compare."
        return _section(title, "", *_none(text))
    unit, name = front.unit(goal.metric), heading(goal.metric)
    values = {
        case: [quantity(float(side.cases[case][goal.metric] or 0.0), goal.metric, unit) for side in (reference, pick)]
        for case in gains
    }
    hover = {
        case: f"{case}\nbaseline {two[0]}, pick {two[1]}\ndifference {signed(gains[case], unit)}"
        for case, two in values.items()
    }
    compared = Resampler(front.seed).compare(pick, reference, goal)
    charts["case-chart"] = case_differences(
        gains, hover, compared, f"{name}: pick better (+) or worse (\N{MINUS SIGN})"
    )
    better, worse = sum(gain > 0 for gain in gains.values()), sum(gain < 0 for gain in gains.values())
    caption = (
        f"Each dot is one case of the selection split: {name} of the pick against that of the float baseline. The pick is "
        f"better in {better} and worse in {worse} of {len(gains)} cases; on average {comparison_text(compared, unit)}. The "
        "band spans the one-sided bounds of the average."
    )
    worst = sorted(gains, key=lambda case: (gains[case], case))[:5]
    rows = (
        f"<tr>{cell(case)}{cell(values[case][0], number=True)}{cell(values[case][1], number=True)}"
        f"{cell(signed(gains[case], unit), number=True)}</tr>"
        for case in worst
    )
    headers = ["Worst cases for the pick", f"Baseline {name}", f"Pick {name}", "Difference"]
    label = f"Plot of the difference in {name} for {len(gains)} cases; the worst are in the table below."
    parts = [
        f'<div id="case-chart" class="chart" role="img" aria-label="{escape(label, quote=True)}"></div>',
        table(headers, rows, numbers=(1, 2, 3)),
        picture_rows(data.pictures, front, data.measurements),
    ]
    return _section(title, caption, *parts)


def _confirmation(data: ReportData) -> str:
    title = "Confirmation"
    caption = "Cases that neither training, nor calibration, nor the search, nor the pick has seen."
    found = confirm(data.front, data.confirmation)
    parts = [confirmation_table(found, data.front)] if found else _none("The confirmation split was not opened.")
    verdict = _verdict(found, data.front)
    if verdict:
        parts.insert(0, f"<p><b>{escape(verdict)}</b></p>")
    if data.openings:
        labels = data.front.labels
        rows = (
            f"<tr>{cell(item.get('utc', ''))}{cell(item.get('reason', ''))}"
            f"{cell(', '.join(labels.get(str(v), str(v)) for v in item.get('variants', ())))}</tr>"
            for item in data.openings
        )
        parts.append("<h3>Log of openings</h3>")
        parts.append('<p class="note">Whoever opens it often is searching on it.</p>')
        parts.append(table(["When (UTC)", "Why", "For which variants"], rows))
    return _section(title, caption, *parts)


def _verdict(found: Sequence[Confirmed], front: FrontReport) -> str:
    """Whether the pick's claim holds on the confirmation split."""
    pick = front.pick
    item = next((item for item in found if pick and item.variant.digest == pick.digest), None)
    if pick is None or item is None or item.accuracy is None:
        return ""
    unit = front.unit(item.accuracy.metric)
    what = f"{heading(item.accuracy.metric)} {comparison_text(item.accuracy, unit)} against the baseline"
    allowed = human(pick.margin, unit)
    if item.within_margin:
        return f"Confirmed: {what}; a loss of {allowed} was allowed."
    return f"Not confirmed: {what}; this does not show that the loss is within {allowed}."


def _failures(data: ReportData) -> str:
    caption = (
        "Variants that cannot give a number on this target, with the cause: data about the variant, not the board."
    )
    if not data.failures:
        return _section("Failures by cause", "", *_none("No variant failed."))
    return _section("Failures by cause", caption, failures_table(data.failures))


def _time(data: ReportData) -> str:
    total = sum(data.seconds.values())
    if total <= 0:
        return ""
    spans, rows = [], []
    for index, (phase, seconds) in enumerate(data.seconds.items()):
        colour = PHASE_COLOURS[index % len(PHASE_COLOURS)]
        share = seconds / total
        text = f"{phase}: {_duration(seconds)}, {share:.1%}"
        spans.append(
            f'<span style="width:{100 * share:.3f}%;background:{colour}" title="{escape(text, quote=True)}"></span>'
        )
        name = f'<td><span class="key" style="background:{colour}"></span>{escape(phase)}</td>'
        rows.append(f"<tr>{name}{cell(_duration(seconds), number=True)}{cell(f'{share:.1%}', number=True)}</tr>")
    caption = f"{_duration(total)} of wall time over all runs of the study."
    if data.overhead is not None:
        caption += f" Overhead (all that is not training, building, measuring or scoring): {data.overhead:.1%}."
    bar = (
        f'<div class="bar" role="img" aria-label="Share of wall time by phase, as in the table">{"".join(spans)}</div>'
    )
    return _section("Where the time went", caption, bar, table(["Phase", "Time", "Share"], rows, numbers=(1, 2)))


def _duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s" if seconds >= 60 else f"{seconds:.1f} s"


def _environment(data: ReportData) -> str:
    picked, reference = pick_and_reference(data.front, data.measurements)
    shown = picked or reference or next((item for item in data.measurements if item.valid), None)
    if shown is None:
        return ""
    board = shown.board
    facts = {
        "Board": board.name,
        "Provenance": f"{shown.provenance} ({PROVENANCE_TEXT[shown.provenance]})",
        "Processor": f"{board.cpu}, {board.cores} cores, {board.arch}",
        "Instruction sets": ", ".join(board.isa) or "none of note",
        "Memory": human(board.memory_bytes, "bytes"),
        "Operating system": board.os,
        "Python": board.python,
        "Runtimes": ", ".join(f"{name} {version}" for name, version in sorted(board.runtimes.items())) or "none",
        "Clock governor": board.governor or "not available",
        "Device": f"{shown.candidate.device}, runtime {shown.candidate.runtime_version}",
        "Layers ran as": executed_text(shown.candidate.executed) or "not known",
        "Machine": board.identity,
        "Notes": "; ".join([*board.notes, *shown.notes]) or "none",
    }
    environment = shown.environment
    before, after = (environment.get(side) for side in ("before", "after"))
    rest = {key: json.dumps(value) for key, value in sorted(environment.items()) if key not in ("before", "after")}
    parts = [f'<div class="columns"><div><h3>Board</h3>{pairs_table(facts)}</div><div><h3>Conditions</h3>']
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        parts.append(environment_table(before, after))
    parts += [pairs_table(rest), "</div></div>"]
    return _section("Environment", f"As {shown.variant.label} found it.", *parts)


def _reproduce(data: ReportData) -> str:
    front = data.front
    picked, reference = pick_and_reference(front, data.measurements)
    facts: dict[str, object] = {"Seed": front.seed, "Bootstrap": f"{RESAMPLES} resamples, {LEVEL:.0%}"}
    for name, item in (("Pick", picked), ("Baseline", reference)):
        if item is not None:
            facts[f"{name} variant"] = item.digest
            facts[f"{name} artifact"] = item.artifact.digest
            facts[f"{name} files"] = ", ".join(f"{f.name} sha256 {f.sha256}" for f in item.artifact.files)
            facts[f"{name} ONNX reference"] = f"sha256 {item.artifact.reference_sha256}"
    versions = {**(dict(picked.artifact.built_with) if picked else {}), **data.versions}
    parts = [
        f"<pre>{escape(data.command)}</pre>",
        pairs_table(facts),
        "<h3>Versions</h3>",
        pairs_table(dict(sorted(versions.items()))),
        f"<h3>Study file</h3><pre>{escape(data.study_text)}</pre>",
    ]
    return _section("How to do it again", "The same command, study file and seed; times differ as hosts do.", *parts)
