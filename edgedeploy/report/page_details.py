"""The report's later sections: case by case, confirmation, failures, time, environment, how to do it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from edgedeploy.evidence.bootstrap import LEVEL, RESAMPLES, Resampler
from edgedeploy.evidence.confirm import Confirmed, confirm
from edgedeploy.evidence.energy import energy_text
from edgedeploy.evidence.front import FrontReport
from edgedeploy.evidence.pick import accuracy_objective
from edgedeploy.evidence.quantities import comparison_text, gain_text, heading, phrase, quantity, scale_for
from edgedeploy.records.units import human
from edgedeploy.report.data import ReportData
from edgedeploy.report.pictures import case_gains, pick_and_reference, picture_rows
from edgedeploy.report.plot import case_differences, latency_over_time
from edgedeploy.report.tables import (
    cell,
    confirmation_table,
    environment_table,
    failures_table,
    nothing,
    pairs_table,
    plain,
    section,
    table,
)
from edgedeploy.report.words import PROVENANCE_TEXT, executed_text

PHASE_COLOURS = ("#2166ac", "#4393c3", "#92c5de", "#5aae61", "#a6dba0", "#b2abd2", "#f4a582", "#cfd4da")


def cases_section(data: ReportData, charts: dict[str, dict[str, Any]]) -> str:
    front = data.front
    goal = accuracy_objective(front.objectives)
    gains = case_gains(front, data.measurements)
    pick, reference = pick_and_reference(front, data.measurements)
    title = "Case by case against the baseline"
    if goal is None or pick is None or reference is None or not gains:
        why = "The pick is the baseline itself." if pick is not None and pick is reference else ""
        text = why or "There is no pick, no baseline, or no metric by case, so there is nothing to compare."
        return section(title, "", *nothing(text))
    unit, name = front.unit(goal.metric), heading(goal.metric)
    values = {
        case: [quantity(float(side.cases[case][goal.metric] or 0.0), goal.metric, unit) for side in (reference, pick)]
        for case in gains
    }
    hover = {
        case: f"{case}\nbaseline {two[0]}, pick {two[1]}\npick {gain_text(gains[case], goal.metric, unit)}"
        for case, two in values.items()
    }
    compared = Resampler(front.seed).compare(pick, reference, goal)
    charts["case-chart"] = case_differences(
        gains, hover, compared, f"{name}: pick against baseline, above zero is better"
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
        f"{cell(gain_text(gains[case], goal.metric, unit), number=True)}</tr>"
        for case in worst
    )
    headers = ["Worst cases for the pick", f"Baseline {name}", f"Pick {name}", "The pick is"]
    label = f"Plot of the difference in {name} for {len(gains)} cases; the worst are in the table below."
    parts = [
        f'<div id="case-chart" class="chart" role="img" aria-label="{escape(label, quote=True)}"></div>',
        table(headers, rows, numbers=(1, 2, 3), look="narrow"),
        picture_rows(data.pictures, front, data.measurements),
    ]
    return section(title, caption, *parts)


def sustained_section(data: ReportData, charts: dict[str, dict[str, Any]]) -> str:
    """Latency over time of the pick and the baseline; nothing for a study without the protocol."""
    picked, reference = pick_and_reference(data.front, data.measurements)
    shown = {
        item.variant.label: item.protocols["sustained"]["windows"]
        for item in (picked, reference)
        if item and "sustained" in item.protocols
    }
    if not shown:
        return ""
    slowest_ns = max(window["p50_ns"] for windows in shown.values() for window in windows)
    scale, unit = scale_for(slowest_ns, "ns")
    charts["sustained-chart"] = latency_over_time(
        {
            label: [(window["start_ns"] / 60e9, window["p50_ns"] / scale) for window in windows]
            for label, windows in shown.items()
        },
        unit,
    )
    caption = "Queries back to back, the median of each window. A line that climbs is heat, throttling or a leak."
    label = "Plot of the median latency over time; the tables above have its slope."
    chart = f'<div id="sustained-chart" class="chart" role="img" aria-label="{escape(label, quote=True)}"></div>'
    return section("Under load for minutes", caption, chart)


def confirmation_section(data: ReportData) -> str:
    title = "Confirmation"
    caption = "Cases that neither training, nor calibration, nor the search, nor the pick has seen."
    found = confirm(data.front, data.confirmation)
    parts = [confirmation_table(found, data.front)] if found else nothing("The confirmation split was not opened.")
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
    return section(title, caption, *parts)


def _verdict(found: Sequence[Confirmed], front: FrontReport) -> str:
    """Whether the pick's claim holds on the confirmation split."""
    pick = front.pick
    item = next((item for item in found if pick and item.variant.digest == pick.digest), None)
    if pick is None or item is None or item.accuracy is None:
        return ""
    unit = front.unit(item.accuracy.metric)
    what = f"on unseen cases the pick's {phrase(item.accuracy.metric)}, against the baseline, is "
    what += comparison_text(item.accuracy, unit)
    allowed = quantity(pick.margin, item.accuracy.metric, unit)
    if item.within_margin:
        return f"Confirmed: {what}; a loss of {allowed} was allowed."
    return f"Not confirmed: {what}; this does not show a loss within {allowed}."


def failures_section(data: ReportData) -> str:
    caption = (
        "Variants that cannot give a number on this target, with the cause: data about the variant, not the board."
    )
    if not data.failures:
        return section("Failures by cause", "", *nothing("No variant failed."))
    return section("Failures by cause", caption, failures_table(data.failures))


def time_section(data: ReportData) -> str:
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
    return section(
        "Where the time went", caption, bar, table(["Phase", "Time", "Share"], rows, numbers=(1, 2), look="narrow")
    )


def training_section(data: ReportData) -> str:
    """In which precision and on what the models were trained; nothing for a study without training."""
    host = data.training.get("host")
    if not host:
        return ""
    facts = {
        "Baseline": f"{data.training['epochs']} epochs in {data.training['precision']}, "
        f"{_duration(data.training['wall_s'])}",
        "Processor": host["cpu"],
        "Instruction sets": ", ".join(host["isa"]) or "none of note",
        "Native bfloat16": "yes" if host["native_bfloat16"] else "no: emulated it is slower than float32, and not used",
    }
    if host["isa_limit"]:
        facts["Limit of oneDNN"] = host["isa_limit"]
    if data.trainings:
        precisions = ", ".join(sorted({item["precision"] for item in data.trainings}))
        spent = _duration(sum(item["wall_s"] for item in data.trainings))
        facts["Other models"] = f"{len(data.trainings)} in {precisions}, {spent}"
    caption = "Training ran on the host of the study, not on the board."
    return section("Training", caption, pairs_table(facts))


def _duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s" if seconds >= 60 else f"{seconds:.1f} s"


def environment_section(data: ReportData) -> str:
    picked, reference = pick_and_reference(data.front, data.measurements)
    shown = picked or reference or next((item for item in data.measurements if item.valid), None)
    if shown is None:
        return ""
    board = shown.board
    facts = {
        "Board": board.name,
        "Provenance": PROVENANCE_TEXT[shown.provenance],
        "Processor": f"{board.cpu}, {board.cores} cores, {board.arch}",
        "Instruction sets": ", ".join(board.isa) or "none of note",
        "Accelerators": ", ".join(board.accelerators) or "none found",
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
    series = ("before", "after", "during", "energy")
    rest = {key: plain(value, key) for key, value in sorted(environment.items()) if key not in series}
    rest["Energy"] = energy_text(environment.get("energy"))
    parts = [f'<div class="columns"><div><h3>Board</h3>{pairs_table(facts)}</div><div><h3>Conditions</h3>']
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        parts.append(environment_table(before, after))
    parts += [pairs_table(rest), "</div></div>"]
    return section("Environment", f"As {shown.variant.label} found it.", *parts)


def reproduce_section(data: ReportData) -> str:
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
    return section("How to do it again", "The same command, study file and seed; times differ as hosts do.", *parts)
