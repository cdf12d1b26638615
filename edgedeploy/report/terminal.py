"""The front as plain data for a terminal: whoever prints it brings the looks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from edgedeploy.evidence.front import Front, Row
from edgedeploy.evidence.quantities import heading, quantity, span
from edgedeploy.report.words import (
    answer,
    baseline_ratio_lines,
    baseline_text,
    changed_lines,
    cluster_lines,
    executed_text,
    failure_lines,
    key_metrics,
    parity_lines,
    status_text,
    verdict_text,
)


@dataclass(frozen=True)
class TextTable:
    """``rows`` have as many cells as ``headers``; ``notes`` are sentences that belong below the table."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def front_table(report: Front) -> TextTable:
    """The front's members, then the baselines that are not on it. A missing number is a dash."""
    shown = report.shown
    metrics = key_metrics(report)
    head, *rest = answer(report)
    notes = [head, " ".join(rest)] if report.featured else [head]
    if any(row.beside for row in shown):
        notes.append(
            "\u201cbaseline beside it\u201d ran interleaved with the variant. A baseline's own line is another session: "
            "times of two lines do not compare."
        )
    others = len(report.rows) - len(shown)
    if others:
        notes.append(f"{others} more measured; the report says why they are not on the front.")
    if report.weights and report.weights.origin != "training":
        notes.append(f"The baseline was not trained: its weights are {report.weights.text}.")
    if report.invalid:
        runs = "1 invalid run" if len(report.invalid) == 1 else f"{len(report.invalid)} invalid runs"
        notes.append(f"{runs} (conditions drifted), not used.")
    notes += [*changed_lines(report), *cluster_lines(report), *baseline_ratio_lines(report), *parity_lines(report)]
    notes += [*report.left_out, *failure_lines(report)]
    boards = Counter(row.board for row in report.rows)
    if len(boards) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(boards.items()))
        notes.append(
            f"Variants by board: {counts}. Each ran beside the baseline on its own board: ratios compare across boards, "
            "times do not."
        )
    return TextTable(
        title=report.title,
        headers=("", "variant", *(heading(name) for name in metrics), "than baseline", "ran as", "status"),
        rows=tuple(_cells(row, report, metrics) for row in shown),
        notes=tuple(notes),
    )


def _cells(row: Row, report: Front, metrics: list[str]) -> tuple[str, ...]:
    mark = "*" if report.pick and report.pick.digest == row.digest else ""
    label = f"{row.variant.label} ({row.role})" if row.role else row.variant.label
    return (
        mark,
        label,
        *(_cell(row, report, name) for name in metrics),
        verdict_text(row),
        executed_text(row.executed),
        status_text(row, report),
    )


def _cell(row: Row, report: Front, metric: str) -> str:
    estimate = row.estimates.get(metric)
    if estimate is None:
        return "-"
    interval = span(estimate, metric, report.unit(metric))
    text = quantity(estimate.value, metric, report.unit(metric))
    beside = baseline_text(row, metric, report) if metric in row.beside else ""
    return "\n".join(filter(None, (text, interval, beside)))
