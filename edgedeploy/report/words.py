"""What a front says, in sentences, for the report and the terminal alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from edgedeploy.evidence.bootstrap import LEVEL
from edgedeploy.evidence.front import Front, Row
from edgedeploy.evidence.pick import accuracy_objective
from edgedeploy.evidence.quantities import heading, phrase, quantity, with_span
from edgedeploy.records.measurement import BEYOND_TOLERANCE, LIMITS_CHANGED, ON_CORES, TASK_CHANGED
from edgedeploy.records.metric_table import (
    BOARD_METRICS,
    KEY_METRICS,
    METRICS,
    OF_PACKED,
    SCENARIO_METRICS,
    is_relative,
    scenario_title,
)
from edgedeploy.report.shipping import because, headline, mark
from edgedeploy.study.clusters import UNKNOWN

PROVENANCE_TEXT: Final[Mapping[str, str]] = {
    "measured": "measured on the board itself",
    "emulated": "emulated: another machine stands in for the board, and no time is the board's",
    "predicted": "predicted: nothing was run",
    "bound": "a bound: the true value is no better than this",
}


SHOWN_FAILURES: Final = 12
"""On a terminal; a search may have hundreds."""

LONGEST_REASON: Final = 300
"""Characters of a failure's message on a terminal."""

_WITHIN_A_RUN: Final = ("1", "percent", "%/min", "C")
"""Units of what a run compares with itself."""


def verdict_text(row: Row) -> str:
    """Whether the variant is faster than the baseline that ran beside it; a dash where the question does not arise."""
    return row.verdict.text if row.verdict else "\N{EN DASH}"


def executed_text(executed: Mapping[str, int]) -> str:
    """What ran, most layers first: ``int8 12, float32 2``."""
    ran = [(name, count) for name, count in executed.items() if count]
    return ", ".join(f"{name} {count}" for name, count in sorted(ran, key=lambda i: (-i[1], i[0])))


def chance_text(row: Row) -> str:
    """In how many of the bootstrap's draws the variant is on the front; a dash where that is not drawn."""
    chance = row.p_on_front
    if chance is None:
        return "\N{EN DASH}"
    if 0 < chance < 0.01 or 0.99 < chance < 1:
        return f"{'< 1' if chance < 0.5 else '> 99'} %"
    return f"{100 * chance:.0f} %"


def status_text(row: Row, report: Front) -> str:
    """Where a variant stands and why, in one line."""
    labels = report.labels
    other = labels.get(row.dominated_by or "", row.dominated_by or "")
    picked = report.pick is not None and report.pick.digest == row.digest
    pick = "the pick" if report.fit_to_ship else "the pick, not confirmed"
    if row.status == "front":
        ahead = f"ahead of {other} by less than matters" if row.dominated_by else ""
        place = pick if picked else "on the front"
        return "; ".join(filter(None, (place, ahead, mark(report, row.digest))))
    if row.status in ("dominated", "indistinguishable"):
        how = f"dominated by {other} (confirmed)"
        if row.status == "indistinguishable":
            how = f"indistinguishable from {other}, whose values are better"
        return f"{pick}; {how}" if picked else how
    if row.status == "infeasible":
        return "; ".join(item.text(report.unit(item.constraint.metric)) for item in row.shortfalls)
    gone = [goal.metric for goal in report.objectives if goal.metric not in row.estimates]
    return "; ".join(f"no {metric}: {row.missing.get(metric, 'not measured')}" for metric in gone)


def baseline_text(row: Row, metric: str, report: Front) -> str:
    """The baseline's value of a metric, as it may stand beside the variant's; nothing where none may.

    Times, memory and energy are those of the baseline that ran interleaved with the variant, and named so. Sizes and the
    task's metrics do not depend on the session. A scenario has no interleaved baseline: times of it do not compare, and what
    compares within a run of its own is said to be from one.
    """
    if metric in row.beside:
        return f"baseline beside it {quantity(row.beside[metric], metric, report.unit(metric))}"
    baseline = report.row(report.reference)
    if baseline is None or baseline is row or metric not in baseline.estimates or is_relative(metric):
        return ""
    text = f"baseline {quantity(baseline.estimates[metric].value, metric, report.unit(metric))}"
    info = BOARD_METRICS.get(metric)
    if info is None or info.exact:
        return text
    return f"{text} in a run of its own" if info.scenario and info.unit in _WITHIN_A_RUN else ""


def failure_lines(report: Front) -> list[str]:
    """What gave no number and why, a line each, and why the last run ended, if early."""
    lines = [f"The last run ended early. {report.ended}"] if report.ended else []
    again = " (mended? `search --resume --retry-failed` tries it again)"
    stored = [(item, again if item.phase == "baseline" else "") for item in report.failures]
    passing = [(item, " (the next run tries it again)") for item in report.passing]
    both = [*stored, *passing]
    for item, more in both[:SHOWN_FAILURES]:
        where = f" in {item.phase}" if item.phase else ""
        lines.append(f"No number of {item.variant.label}: {item.kind}{where}: {one_line(item.message)}{more}")
    if len(both) > SHOWN_FAILURES:
        lines.append(f"{len(both) - SHOWN_FAILURES} more gave no number: the report and `front --json` name them.")
    return lines


def changed_lines(report: Front) -> list[str]:
    """That variants on one front were measured with different code of the task, under different limits, or on some cores of
    their machine, if they were."""
    told = {TASK_CHANGED: "Two versions of the task are on one front: ", LIMITS_CHANGED: "", ON_CORES: ""}
    return [
        f"{before if count < len(report.rows) else ''}{count} of {len(report.rows)} variants were {mark}."
        for beginning, before in told.items()
        for mark, count in sorted(
            Counter(note for row in report.rows for note in row.notes if note.startswith(beginning)).items()
        )
    ]


def cluster_lines(report: Front) -> list[str]:
    """That nobody said which cases belong together, if nobody did."""
    return [f"{UNKNOWN[:1].upper()}{UNKNOWN[1:]}."] if report.clusters_named is False else []


def baseline_ratio_lines(report: Front) -> list[str]:
    """That a ratio of the reference baseline, in a run beside itself, does not hold 1, if one does not."""
    row = report.row(report.reference)
    found = row.estimates.items() if row else ()
    ratios = [(name, one.low, one.high) for name, one in found if is_relative(name)]
    off = [name for name, low, high in ratios if low is not None and high is not None and not low <= 1 <= high]
    if row is None or not off:
        return []
    names = " and ".join(phrase(name) for name in off)
    return [
        f"{row.variant.label} ran beside itself, so its {names} should hold 1: how far it is from that, two runs of one "
        "file differed here, and differences between variants that are as small may be no more."
    ]


def parity_lines(report: Front) -> list[str]:
    """Of the front's members: whose worst golden case is further from the float model than the tolerance."""
    return [
        f"{row.variant.label}: {note}."
        for row in report.members
        for note in row.notes
        if note.startswith(BEYOND_TOLERANCE)
    ]


def one_line(text: str) -> str:
    """The text without its line breaks, cut where it becomes too long for a terminal."""
    flat = " ".join(text.split())
    return flat if len(flat) <= LONGEST_REASON else f"{flat[:LONGEST_REASON]}..."


def answer(report: Front) -> list[str]:
    """The study's answer in one paragraph of sentences; the first one is the headline."""
    row = report.row(report.featured)
    if row is None:
        why = report.explanation() or ["No variant is on the front."]
        return ["No variant can be recommended.", *why]
    sentences = [headline(report), *because(report)]
    if report.file:
        sentences.append(f"File: {report.file}.")
    facts = []
    for metric in key_metrics(report):
        if metric not in row.estimates:
            continue
        text = f"{heading(metric)} {with_span(row.estimates[metric], metric, report.unit(metric))}"
        facts.append(", ".join(filter(None, (text, baseline_text(row, metric, report)))))
    whose = "" if report.pick else f"{row.variant.label}: "
    sentences.append(f"{whose}{'; '.join(facts)}.")
    if report.pick:
        sentences.append(f"Why this one: {report.pick.reason}.")
        if row.verdict is not None and row.verdict.not_shown:
            sentences.append(f"Not shown: {row.verdict.not_shown}.")
    sentences.append(f"In parentheses: {LEVEL:.0%} bootstrap intervals.")
    if report.provenance:
        text = PROVENANCE_TEXT[report.provenance]
        sentences.append(f"All numbers of {report.board} are {text}.")
    return sentences


def key_metrics(report: Front) -> list[str]:
    """The objectives, then what everybody asks next, as far as anybody has it."""
    wanted = [goal.metric for goal in report.objectives]
    wanted += [name for name in KEY_METRICS if name not in wanted]
    return [name for name in wanted if any(name in row.estimates for row in report.rows)]


def task_metrics(report: Front) -> list[str]:
    """Metrics of the task that some variant has: the objective first, the rest by name."""
    found = {name for row in report.rows for name in row.estimates if name not in BOARD_METRICS}
    first = accuracy_objective(report.objectives)
    return sorted(found, key=lambda name: (first is None or name != first.metric, name))


def board_metrics_present(report: Front) -> list[str]:
    """Metrics of every run, as far as anybody has them, and what decoding costs beside what is shipped."""
    return _present([row.name for row in METRICS if row.scenario in (None, OF_PACKED)], report)


def scenario_tables(report: Front) -> dict[str, list[str]]:
    """Title to metrics, for each scenario that gave any."""
    tables = {name: table for name, table in SCENARIO_METRICS.items() if name != OF_PACKED}
    found = {scenario_title(name): _present(table, report) for name, table in tables.items()}
    return {title: metrics for title, metrics in found.items() if metrics}


def _present(names: Iterable[str], report: Front) -> list[str]:
    return [name for name in names if any(name in row.estimates for row in report.rows)]


def names_text(report: Front) -> str:
    """How a variant's name is to be read: its parts in their order."""
    variants = [row.variant for row in report.rows]
    arch = list(dict.fromkeys(name for variant in variants for name, _ in variant.arch))
    parts = [
        "target",
        "precision and how it came about",
        "width (w0.5: half of each layer's channels)",
        *(
            ["what stays of the network (mlp=0.5: half of each MLP's features)"]
            if any(v.shrink for v in variants)
            else []
        ),
        *map(_plain, arch),
    ]
    parts.append("threads (t2: two)")
    if any(variant.served_label for variant in variants):
        parts.append("sessions side by side and requests answered at once (2inst batch4: two, and four)")
    if any(variant.power_mode for variant in variants):
        parts.append("power mode")
    return f"A variant's name says, in this order: {', '.join(parts)}."


def _plain(name: str) -> str:
    return name.replace("_", " ")
