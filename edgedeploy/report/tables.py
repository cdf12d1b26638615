"""Tables of the report as HTML text. Everything that comes from outside goes through :func:`html.escape`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Final, Literal

from edgedeploy.evidence.bootstrap import Estimate
from edgedeploy.evidence.confirm import Confirmed
from edgedeploy.evidence.front import FrontReport, Row
from edgedeploy.evidence.quantities import comparison_text, heading, quantity, span
from edgedeploy.records.measurement import Failure, Measurement
from edgedeploy.report.words import executed_text, key_metrics, status_text, task_metrics, verdict_text

MANY_METRICS: Final = 5
"""A table with fewer columns of numbers would be stretched too wide to read across."""


def cell(text: object, *, number: bool = False, sort: object = None) -> str:
    """One escaped cell; ``sort`` is what a sortable table orders by."""
    kind = ' class="n"' if number else ""
    key = "" if sort is None else f' data-v="{escape(str(sort), quote=True)}"'
    return f"<td{kind}{key}>{escape(str(text))}</td>"


def table(
    headers: Sequence[str],
    rows: Iterable[str],
    *,
    numbers: Iterable[int] = (),
    look: Literal["", "sortable", "narrow"] = "",
) -> str:
    """``rows`` are ``<tr>`` elements; ``numbers`` are the indices of columns aligned to the right; a ``narrow`` table is
    as wide as its content."""
    right = set(numbers)
    heads = []
    for index, text in enumerate(headers):
        kind = ' class="n"' if index in right else ""
        inner = f'<button type="button">{escape(text)}</button>' if look == "sortable" else escape(text)
        heads.append(f'<th scope="col"{kind}>{inner}</th>')
    kind = f' class="{look}"' if look else ""
    body = "".join(rows)
    return (
        f'<div class="scroll"><table{kind}><thead><tr>{"".join(heads)}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def pairs_table(values: Mapping[str, object]) -> str:
    """Two columns: a name and what it is; nothing for nothing."""
    rows = (f'<tr><th scope="row">{escape(name)}</th>{cell(value)}</tr>' for name, value in values.items())
    return f'<div class="scroll"><table><tbody>{"".join(rows)}</tbody></table></div>' if values else ""


def estimate_cell(estimate: Estimate | None, metric: str, unit: str, why: str = "") -> str:
    """A value over its interval; a dash that says why when there is none."""
    if estimate is None:
        return f'<td class="n" title="{escape(why or "not measured", quote=True)}">\N{EN DASH}</td>'
    interval = span(estimate, metric, unit)
    small = f'<span class="i">{escape(interval)}</span>' if interval else ""
    return f'<td class="n" data-v="{estimate.value!r}">{escape(quantity(estimate.value, metric, unit))}{small}</td>'


def row_class(row: Row, report: FrontReport) -> str:
    names = ["pick"] if report.pick and report.pick.digest == row.digest else []
    names += ["base"] if row.baseline else []
    return f' class="{" ".join(names)}"' if names else ""


def metrics_table(rows: Sequence[Row], metrics: Sequence[str], report: FrontReport, *, executed: bool = False) -> str:
    """The given variants with the given metrics and their intervals; ``executed`` adds the verdict on latency and the
    precision that ran."""
    lines = []
    for row in rows:
        suffix = " (float baseline)" if row.baseline else ""
        cells = [f'<th scope="row">{escape(row.variant.label + suffix)}</th>']
        cells += [
            estimate_cell(row.estimates.get(name), name, report.unit(name), row.missing.get(name, ""))
            for name in metrics
        ]
        if executed:
            cells += [cell(verdict_text(row)), cell(executed_text(row.executed) or "not known")]
        lines.append(f"<tr{row_class(row, report)}>{''.join(cells)}</tr>")
    headers = [
        "Variant",
        *(heading(name) for name in metrics),
        *(["Than the baseline", "Layers ran as"] if executed else []),
    ]
    look: Literal["", "narrow"] = "narrow" if len(metrics) < MANY_METRICS else ""
    return table(headers, lines, numbers=range(1, len(metrics) + 1), look=look)


def all_variants_table(report: FrontReport) -> str:
    """Every valid variant, sortable: what it is, the key metrics, and where it stands."""
    metrics = key_metrics(report)
    lines = []
    for row in report.rows:
        v = row.variant
        arch = " ".join(f"{key}={value}" for key, value in v.arch)
        cells = [
            cell(v.target, sort=v.target),
            cell(v.recipe, sort=v.recipe),
            cell(f"{v.width:g}", number=True, sort=v.width),
            cell(arch, sort=arch),
            cell(v.threads, number=True, sort=v.threads),
        ]
        cells += [estimate_cell(row.estimates.get(name), name, report.unit(name)) for name in metrics]
        text = ("float baseline; " if row.baseline else "") + status_text(row, report)
        cells.append(cell(text, sort=text))
        lines.append(f"<tr{row_class(row, report)}>{''.join(cells)}</tr>")
    headers = [
        "Target",
        "Precision",
        "Width",
        "Architecture",
        "Threads",
        *(heading(n) for n in metrics),
        "Where it stands",
    ]
    return table(headers, lines, numbers=[2, 4, *range(5, 5 + len(metrics))], look="sortable")


def weight_bits_table(measurements: Sequence[Measurement]) -> str:
    """The int8 variants of a board whose int8 sums saturate: how many bits their weights have, and why."""
    found = {item.variant.label: item.weight_bits for item in measurements if item.weight_bits}
    lines = [f'<tr><th scope="row">{escape(label)}</th>{cell(bits.text)}</tr>' for label, bits in sorted(found.items())]
    return "<h3>Bits of int8 weights</h3>" + table(["Variant", "Weights"], lines)


def failures_table(failures: Sequence[Failure]) -> str:
    """Variants without a number, by cause: how many, where, the first message, and which."""
    groups: dict[tuple[str, str], list[Failure]] = {}
    for failure in sorted(failures, key=lambda item: (item.kind, item.phase, item.variant.digest)):
        groups.setdefault((failure.kind, failure.phase), []).append(failure)
    lines = []
    for (kind, phase), items in sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])):
        labels = "; ".join(item.variant.label for item in items)
        cells = cell(kind) + cell(phase) + cell(len(items), number=True) + cell(items[0].message) + cell(labels)
        lines.append(f"<tr>{cells}</tr>")
    return table(["Cause", "In phase", "Variants", "First message", "Which"], lines, numbers=[2])


def confirmation_table(found: Sequence[Confirmed], report: FrontReport) -> str:
    names = [name for name in task_metrics(report) if any(name in item.estimates for item in found)]
    baselines = {row.digest for row in report.baselines}
    lines = []
    for item in found:
        pick = bool(report.pick and report.pick.digest == item.variant.digest)
        suffix = " (float baseline)" if item.variant.digest in baselines else ""
        cells = [f'<th scope="row">{escape(item.variant.label + suffix)}</th>']
        cells += [estimate_cell(item.estimates.get(name), name, report.unit(name)) for name in names]
        unit = report.unit(item.accuracy.metric) if item.accuracy else "1"
        cells.append(cell(comparison_text(item.accuracy, unit) if item.accuracy else "\N{EN DASH}"))
        lines.append(f"<tr{' class=pick' if pick else ''}>{''.join(cells)}</tr>")
    headers = ["Variant", *(heading(name) for name in names), "Against the baseline, case by case"]
    return table(headers, lines, numbers=range(1, len(names) + 1))


def environment_table(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    """What the board said of itself at the start and the end of a run."""
    lines = []
    for name in sorted({*before, *after}):
        values = (plain(side.get(name), name) for side in (before, after))
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cell(value) for value in values)}</tr>')
    return table(["Condition", "At the start", "At the end"], lines) if lines else ""


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


def section(title: str, caption: str, *parts: str) -> str:
    note = f'<p class="note">{escape(caption)}</p>' if caption else ""
    return f"<section><h2>{escape(title)}</h2>{note}{''.join(parts)}</section>"


def nothing(text: str) -> list[str]:
    return [f"<p>{escape(text)}</p>"]
