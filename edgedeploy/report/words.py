"""What a front says, in sentences, for the report and the terminal alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from edgedeploy.evidence.bootstrap import LEVEL
from edgedeploy.evidence.front import Front, Row
from edgedeploy.evidence.pick import accuracy_objective
from edgedeploy.evidence.quantities import heading, quantity, with_span
from edgedeploy.records.metric_table import (
    BOARD_METRICS,
    KEY_METRICS,
    RUN_METRICS,
    SCENARIO_METRICS,
    is_relative,
    scenario_title,
)

PROVENANCE_TEXT: Final[Mapping[str, str]] = {
    "measured": "measured on the board itself",
    "emulated": "emulated: another machine stands in for the board, and no time is the board's",
    "predicted": "predicted: nothing was run",
    "bound": "a bound: the true value is no better than this",
}


def verdict_text(row: Row) -> str:
    """Whether the variant is faster than the baseline that ran beside it; a dash where the question does not arise."""
    return row.verdict.word if row.verdict else "\N{EN DASH}"


def executed_text(executed: Mapping[str, int]) -> str:
    """What ran, most layers first: ``int8 12, float32 2``."""
    ran = [(name, count) for name, count in executed.items() if count]
    return ", ".join(f"{name} {count}" for name, count in sorted(ran, key=lambda i: (-i[1], i[0])))


def status_text(row: Row, report: Front) -> str:
    """Where a variant stands and why, in one line."""
    labels = report.labels
    other = labels.get(row.dominated_by or "", row.dominated_by or "")
    if row.status == "front":
        pick = "the pick" if report.pick and report.pick.digest == row.digest else "on the front"
        return f"{pick}; ahead of {other} by less than matters" if row.dominated_by else pick
    if row.status == "dominated":
        if row.confidence == "confirmed":
            return f"dominated by {other} (confirmed)"
        return f"indistinguishable from {other}, whose values are better"
    if row.status == "infeasible":
        return "; ".join(item.text(report.unit(item.constraint.metric)) for item in row.shortfalls)
    gone = [goal.metric for goal in report.objectives if goal.metric not in row.estimates]
    return "; ".join(f"no {metric}: {row.missing.get(metric, 'not measured')}" for metric in gone)


def answer(report: Front) -> list[str]:
    """The study's answer in one paragraph of sentences; the first one is the headline."""
    pick = report.pick
    row = report.row(pick.digest) if pick else None
    if pick is None or row is None:
        why = report.explanation() or ["No variant is on the front."]
        return ["No variant can be recommended.", *why]
    baseline = report.row(report.reference)
    sentences = [f"Ship {row.variant.label}."]
    facts = []
    for metric in key_metrics(report):
        if metric not in row.estimates:
            continue
        text = f"{heading(metric)} {with_span(row.estimates[metric], metric, report.unit(metric))}"
        if baseline and baseline is not row and metric in baseline.estimates and not is_relative(metric):
            text += f", baseline {quantity(baseline.estimates[metric].value, metric, report.unit(metric))}"
        facts.append(text)
    sentences.append("; ".join(facts) + ".")
    sentences.append(f"Why this one: {pick.reason}.")
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
    """Metrics of every run, as far as anybody has them."""
    return _present(RUN_METRICS, report)


def scenario_tables(report: Front) -> dict[str, list[str]]:
    """Title to metrics, for each scenario that gave any."""
    found = {scenario_title(name): _present(table, report) for name, table in SCENARIO_METRICS.items()}
    return {title: metrics for title, metrics in found.items() if metrics}


def _present(names: Iterable[str], report: Front) -> list[str]:
    return [name for name in names if any(name in row.estimates for row in report.rows)]
