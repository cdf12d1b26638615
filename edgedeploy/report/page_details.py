"""The report's later sections: case by case, confirmation, failures, time, environment, how to do it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgedeploy.evidence.bootstrap import LEVEL, RESAMPLES, Resampler
from edgedeploy.evidence.confirm import confirm
from edgedeploy.evidence.energy import energy_text
from edgedeploy.evidence.quantities import comparison_text, gain_text, heading, quantity, scale_for
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.units import human
from edgedeploy.report.blocks import Bar, Block, Cell, Chart, Columns, Section, Share, Table, Text
from edgedeploy.report.data import ReportData
from edgedeploy.report.pictures import case_gains, case_goal, pick_and_reference, picture_rows
from edgedeploy.report.plot import case_differences, latency_over_time
from edgedeploy.report.shipping import confirmed, featured_role
from edgedeploy.report.tables import (
    confirmation_table,
    environment_table,
    failures_table,
    line,
    pairs_table,
    plain,
)
from edgedeploy.report.words import PROVENANCE_TEXT, executed_text

PHASE_COLOURS = ("#2166ac", "#4393c3", "#92c5de", "#5aae61", "#a6dba0", "#b2abd2", "#f4a582", "#cfd4da")


def _both_have(metric: str, *sides: Measurement) -> bool:
    return all(metric in side.metrics for side in sides)


def cases_section(data: ReportData) -> Section:
    front = data.front
    goal = case_goal(front, data.measurements)
    gains = case_gains(front, data.measurements)
    pick, reference = pick_and_reference(front, data.measurements)
    title = "Case by case against the baseline"
    if goal is None or pick is None or reference is None or not gains or not _both_have(goal.metric, pick, reference):
        why = "What is shown is the baseline itself." if pick is not None and pick is reference else ""
        text = why or "There is no pick, no baseline, or no metric by case, so there is nothing to compare."
        return Section(title, "", [Text(text)])
    unit, name = front.unit(goal.metric), heading(goal.metric)
    whose = featured_role(front)
    values = {
        case: [quantity(float(side.cases[case][goal.metric] or 0.0), goal.metric, unit) for side in (reference, pick)]
        for case in gains
    }
    hover = {
        case: f"{case}\nbaseline {two[0]}, {whose} {two[1]}\n{whose} {gain_text(gains[case], goal.metric, unit)}"
        for case, two in values.items()
    }
    compared = Resampler(front.seed).compare(pick, reference, goal)
    chart = case_differences(gains, hover, compared, f"{name}: {whose} against baseline, above zero is better")
    better, worse = sum(gain > 0 for gain in gains.values()), sum(gain < 0 for gain in gains.values())
    caption = (
        f"Each dot is one case of the selection split: {name} of the {whose} against that of the float baseline. The "
        f"{whose} is better in {better} and worse in {worse} of {len(gains)} cases; on average "
        f"{comparison_text(compared, unit)}. The band spans the one-sided bounds of the average."
    )
    worst = sorted(gains, key=lambda case: (gains[case], case))[:5]
    lines = [line(case, *values[case], gain_text(gains[case], goal.metric, unit)) for case in worst]
    headers = [f"Worst cases for the {whose}", f"Baseline {name}", f"{whose.capitalize()} {name}", f"The {whose} is"]
    label = f"Plot of the difference in {name} for {len(gains)} cases; the worst are in the table below."
    blocks: list[Block] = [
        Chart("case-chart", label, chart),
        Table(headers, lines, numbers=(1, 2, 3), look="narrow"),
        picture_rows(data.pictures, front, data.measurements),
    ]
    return Section(title, caption, blocks)


def sustained_section(data: ReportData) -> Section | None:
    """Latency over time of the pick and the baseline; nothing for a study without the scenario."""
    picked, reference = pick_and_reference(data.front, data.measurements)
    shown = {
        item.variant.label: item.scenarios["sustained"]["windows"]
        for item in (picked, reference)
        if item and "sustained" in item.scenarios
    }
    if not shown:
        return None
    slowest_ns = max(window["p50_ns"] for windows in shown.values() for window in windows)
    scale, unit = scale_for(slowest_ns, "ns")
    chart = latency_over_time(
        {
            label: [(window["start_ns"] / 60e9, window["p50_ns"] / scale) for window in windows]
            for label, windows in shown.items()
        },
        unit,
    )
    caption = "Queries back to back, the median of each window. A line that climbs is heat, throttling or a leak."
    if len(shown) > 1:
        caption += " The two ran in sessions of their own: compare how they climb, not how high they stand."
    label = "Plot of the median latency over time; the tables above have its slope."
    return Section("Under load for minutes", caption, [Chart("sustained-chart", label, chart)])


def confirmation_section(data: ReportData) -> Section:
    caption = "Cases that neither training, nor calibration, nor the search, nor the pick has seen."
    found = confirm(data.front, data.confirmation)
    blocks: list[Block] = []
    if told := confirmed(data.front):
        blocks.append(Text(" ".join(told), "bold"))
    nothing = Text("The confirmation split was not opened.")
    blocks.append(confirmation_table(found, data.front) if found else nothing)
    if data.openings:
        labels = data.front.labels
        lines = [
            line(
                item.get("utc", ""),
                item.get("reason", ""),
                *(
                    ", ".join(labels.get(str(v), str(v)) for v in item.get(kind, ())) or "\N{EN DASH}"
                    for kind in ("variants", "order")
                ),
            )
            for item in data.openings
        ]
        blocks += [
            Text("Log of openings", "heading"),
            Text("Whoever opens it often is searching on it.", "note"),
            Table(["When (UTC)", "Why", "For which variants", "Order of candidates, fixed before"], lines),
        ]
    return Section("Confirmation", caption, blocks)


def failures_section(data: ReportData) -> Section:
    """What gave no number, and why the last run ended, if early."""
    front = data.front
    title = "Failures by cause"
    ended: list[Block] = [Text(f"The last run ended early. {front.ended}", "bold")] if front.ended else []
    if not front.failures and not front.passing:
        return Section(title, "", [*ended, Text("No variant failed.")])
    caption = (
        "Variants that cannot give a number on this target, with the cause: data about the variant, not the board."
    )
    blocks: list[Block] = [*ended, failures_table(front.failures)]
    if front.passing:
        why = "These gave no number in a run, and are no evidence: the next run (--resume) tries them again."
        blocks += [Text("Of a run only", "heading"), Text(why, "note"), failures_table(front.passing)]
    return Section(title, caption, blocks)


def time_section(data: ReportData) -> Section | None:
    total = sum(data.seconds.values())
    if total <= 0:
        return None
    shares, lines = [], []
    for index, (phase, seconds) in enumerate(data.seconds.items()):
        colour = PHASE_COLOURS[index % len(PHASE_COLOURS)]
        share = seconds / total
        shares.append(Share(100 * share, colour, f"{phase}: {_duration(seconds)}, {share:.1%}"))
        lines.append(line(Cell(phase, colour=colour), _duration(seconds), f"{share:.1%}"))
    caption = f"{_duration(total)} of wall time over all runs of the study."
    if data.overhead is not None:
        caption += f" Overhead (all that is not training, building, measuring or scoring): {data.overhead:.1%}."
    bar = Bar("Share of wall time by phase, as in the table", shares)
    table = Table(["Phase", "Time", "Share"], lines, numbers=(1, 2), look="narrow")
    return Section("Where the time went", caption, [bar, table])


def training_section(data: ReportData) -> Section | None:
    """In which precision and on what the models were trained; nothing for a study without training."""
    weights = data.front.weights
    brought = weights is not None and weights.origin != "training"
    facts = {"Baseline": f"not trained: its weights are {weights.text}"} if weights and brought else {}
    trained = data.training or next(iter(data.trainings), {})
    host = trained.get("host")
    if not host:
        return Section("Training", "", [pairs_table(facts)]) if facts else None
    if data.training:
        facts["Baseline"] = _training_text(data.training)
    facts |= {
        "Processor": host["cpu"],
        "Instruction sets": ", ".join(host["isa"]) or "none of note",
        "Native bfloat16": "yes" if host["native_bfloat16"] else "no: emulated it is slower than float32, and not used",
    }
    if host["isa_limit"]:
        facts["Limit of oneDNN"] = host["isa_limit"]
    elastic = [item for item in data.trainings if "widths" in item]
    if elastic:
        facts["Elastic networks"] = "; ".join(
            f"{_training_text(item)}, for {item['widths']} models" for item in elastic
        )
    others = [item for item in data.trainings if "widths" not in item]
    if others:
        precisions = ", ".join(sorted({_trained_in(item) for item in others}))
        spent = _duration(sum(item["wall_s"] for item in others))
        facts["Other models"] = f"{len(others)} {precisions}, {spent}"
    caption = "Training ran on the host of the study, not on the board."
    return Section("Training", caption, [pairs_table(facts)])


def _training_text(facts: Mapping[str, Any]) -> str:
    epochs = f"{facts['epochs']} epochs " if facts["epochs"] else ""
    return f"{epochs}{_trained_in(facts)}, {_duration(facts['wall_s'])}"


def _trained_in(facts: Mapping[str, Any]) -> str:
    return "by the task's own fit" if facts.get("by") == "fit" else f"in {facts['precision']}"


def _duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s" if seconds >= 60 else f"{seconds:.1f} s"


def environment_section(data: ReportData) -> Section | None:
    picked, reference = pick_and_reference(data.front, data.measurements)
    shown = picked or reference or next((item for item in data.measurements if item.valid), None)
    if shown is None:
        return None
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
    conditions = [pairs_table(rest)]
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        conditions.insert(0, environment_table(before, after))
    columns = Columns([("Board", [pairs_table(facts)]), ("Conditions", conditions)])
    return Section("Environment", f"As {shown.variant.label} found it.", [columns])


def reproduce_section(data: ReportData) -> Section:
    front = data.front
    picked, reference = pick_and_reference(front, data.measurements)
    facts: dict[str, object] = {"Seed": front.seed, "Bootstrap": f"{RESAMPLES} resamples, {LEVEL:.0%}"}
    for name, item in ((featured_role(front).capitalize(), picked), ("Baseline", reference)):
        if item is not None:
            facts[f"{name} variant"] = item.digest
            facts[f"{name} artifact"] = item.artifact.digest
            facts[f"{name} file"] = item.file
            facts[f"{name} ONNX reference file"] = f"models/{item.variant.model_digest}/reference.onnx"
            facts[f"{name} files"] = ", ".join(f"{f.name} sha256 {f.sha256}" for f in item.artifact.files)
            facts[f"{name} ONNX reference"] = f"sha256 {item.artifact.reference_sha256}"
    versions = {**(dict(picked.artifact.built_with) if picked else {}), **data.versions}
    look = (
        "To look into a model, open its file in Netron or Model Explorer: the ONNX reference is the float network as it was "
        "exported, the artifact is what the target made of it. Paths are relative to the study's folder."
    )
    blocks: list[Block] = [
        Text(data.command, "verbatim"),
        pairs_table(facts),
        Text(look, "note"),
        Text("Versions", "heading"),
        pairs_table(dict(sorted(versions.items()))),
        Text("Study file", "heading"),
        Text(data.study_text, "verbatim"),
    ]
    return Section("How to do it again", "The same command, study file and seed; times differ as hosts do.", blocks)
