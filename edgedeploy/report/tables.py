"""Tables of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from edgedeploy.evidence.bootstrap import Estimate
from edgedeploy.evidence.confirm import Confirmed
from edgedeploy.evidence.front import Front, Row
from edgedeploy.evidence.quantities import comparison_text, heading, quantity, span
from edgedeploy.records.measurement import Failure, Measurement
from edgedeploy.records.variant import Variant
from edgedeploy.report.blocks import Cell, Line, Table
from edgedeploy.report.words import (
    baseline_text,
    chance_text,
    executed_text,
    key_metrics,
    status_text,
    task_metrics,
    verdict_text,
)

MANY_METRICS: Final = 5
"""A table with fewer columns of numbers would be stretched too wide to read across."""

CHANCE: Final = "P(on front)"


def line(*cells: object, looks: Sequence[str] = ()) -> Line:
    """A row of a table from what its cells say."""
    return Line([cell if isinstance(cell, Cell) else Cell(str(cell)) for cell in cells], looks)


def pairs_table(values: Mapping[str, object]) -> Table:
    """Two columns: a name and what it is."""
    return Table((), [line(name, value) for name, value in values.items()], named=True)


def estimate_cell(estimate: Estimate | None, metric: str, unit: str, why: str = "", beside: str = "") -> Cell:
    """A value over its interval and what ran ``beside`` it; a dash that says why when there is none."""
    if estimate is None:
        return Cell("\N{EN DASH}", hint=why or "not measured")
    value = estimate.value
    return Cell(quantity(value, metric, unit), small=span(estimate, metric, unit), beside=beside, sort=value)


def _estimate(row: Row, metric: str, report: Front, why: str = "") -> Cell:
    beside = baseline_text(row, metric, report) if metric in row.beside else ""
    return estimate_cell(row.estimates.get(metric), metric, report.unit(metric), why, beside)


def looks_of(row: Row, report: Front) -> list[str]:
    pick = ["pick"] if report.pick and report.pick.digest == row.digest else []
    return pick + (["base"] if row.role else [])


def metrics_table(rows: Sequence[Row], metrics: Sequence[str], report: Front, *, executed: bool = False) -> Table:
    """The given variants with the given metrics and their intervals; ``executed`` adds the verdict on latency, the
    precision that ran and the share of draws on the front."""
    lines = []
    for row in rows:
        cells: list[object] = [_estimate(row, name, report, row.missing.get(name, "")) for name in metrics]
        if executed:
            cells += [verdict_text(row), executed_text(row.executed) or "not known", _chance(row)]
        lines.append(line(_label(row.variant, row.role), *cells, looks=looks_of(row, report)))
    headers = [
        "Variant",
        *(heading(name) for name in metrics),
        *(["Than the baseline", "Layers ran as", CHANCE] if executed else []),
    ]
    numbers = range(1, len(metrics) + 1)
    return Table(headers, lines, numbers, look="narrow" if len(metrics) < MANY_METRICS else "", named=True)


def _label(variant: Variant, role: str) -> str:
    return f"{variant.label} ({role})" if role else variant.label


def all_variants_table(report: Front) -> Table:
    """Every valid variant, sortable: what it is, the key metrics, and where it stands."""
    metrics = key_metrics(report)
    lines = []
    for row in report.rows:
        v = row.variant
        arch = " ".join((*(f"{key}={value}" for key, value in v.arch), v.shrink.label)).rstrip()
        where = (f"{row.role}; " if row.role else "") + status_text(row, report)
        cells = [
            *(Cell(text, sort=text) for text in (v.target, v.recipe)),
            Cell(f"{v.width:g} {v.allocation}".rstrip(), sort=v.width),
            Cell(arch, sort=arch),
            Cell(f"{v.threads} {v.served_label}".rstrip(), sort=v.threads),
            *(_estimate(row, name, report) for name in metrics),
            _chance(row),
            Cell(where, sort=where),
        ]
        lines.append(Line(cells, looks_of(row, report)))
    headers = [
        "Target",
        "Precision",
        "Width",
        "Architecture",
        "Threads",
        *(heading(n) for n in metrics),
        CHANCE,
        "Where it stands",
    ]
    return Table(headers, lines, numbers=[2, 4, *range(5, 6 + len(metrics))], look="sortable")


def _chance(row: Row) -> Cell:
    return Cell(chance_text(row), sort=-1.0 if row.p_on_front is None else row.p_on_front)


def weight_bits_table(measurements: Sequence[Measurement]) -> Table:
    """The int8 variants of a board whose int8 sums saturate: how many bits their weights have, and why."""
    found = {item.variant.label: item.weight_bits.text for item in measurements if item.weight_bits}
    return Table(["Variant", "Weights"], [line(*pair) for pair in sorted(found.items())], named=True)


def failures_table(failures: Sequence[Failure]) -> Table:
    """Variants without a number, by cause: how many, where, the first message, and which."""
    groups: dict[tuple[str, str], list[Failure]] = {}
    for failure in sorted(failures, key=lambda item: (item.kind, item.phase, item.variant.digest)):
        groups.setdefault((failure.kind, failure.phase), []).append(failure)
    lines = []
    for (kind, phase), items in sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])):
        labels = "; ".join(item.variant.label for item in items)
        lines.append(line(kind, phase, len(items), items[0].message, labels))
    return Table(["Cause", "In phase", "Variants", "First message", "Which"], lines, numbers=[2])


def confirmation_table(found: Sequence[Confirmed], report: Front) -> Table:
    names = [name for name in task_metrics(report) if any(name in item.estimates for item in found)]
    roles = {row.digest: row.role for row in report.rows}
    lines = []
    for item in found:
        pick = bool(report.pick and report.pick.digest == item.variant.digest)
        cells = [estimate_cell(item.estimates.get(name), name, report.unit(name)) for name in names]
        unit = report.unit(item.accuracy.metric) if item.accuracy else "1"
        against = comparison_text(item.accuracy, unit) if item.accuracy else "\N{EN DASH}"
        label = _label(item.variant, roles.get(item.variant.digest, ""))
        lines.append(line(label, *cells, against, looks=["pick"] if pick else ()))
    headers = ["Variant", *(heading(name) for name in names), "Against the baseline, case by case"]
    return Table(headers, lines, numbers=range(1, len(names) + 1), named=True)


def environment_table(before: Mapping[str, object], after: Mapping[str, object]) -> Table:
    """What the board said of itself at the start and the end of a run."""
    names = sorted({*before, *after})
    lines = [line(name, *(plain(side.get(name), name) for side in (before, after))) for name in names]
    return Table(["Condition", "At the start", "At the end"], lines, named=True)


def plain(value: object, name: str = "") -> str:
    """A snapshot's value as text: lists and tables written out, bytes with a unit, None as not available."""
    if value is None:
        return "not available"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain(item, str(key))}" for key, item in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item) for item in value) or "none"
    if isinstance(value, (int, float)) and not isinstance(value, bool) and name.endswith(("_bytes", "_ns")):
        return quantity(value, name, "ns" if name.endswith("_ns") else "bytes")
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 100 else str(value)
