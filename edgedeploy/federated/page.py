"""The table site x board: in the terminal, as Markdown and as one HTML file; and release.json."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgedeploy.federated.messages import BaselineSaid, CellSaid
from edgedeploy.federated.release import Release, SiteState, endpoint_of, label
from edgedeploy.files import write_atomic, write_json
from edgedeploy.records.units import human
from edgedeploy.records.variant import Scalar
from edgedeploy.report.markdown import escaped

_STYLE = (
    "body{font:15px system-ui;margin:2rem}table{border-collapse:collapse}"
    "td,th{border:1px solid #999;padding:.3rem .6rem;text-align:left}"
)


def headings(states: Sequence[SiteState]) -> tuple[str, ...]:
    """Of the columns of :func:`rows_of`, with the metric that the release is judged by."""
    metric = next((state.metric for state in states), "")
    numbers = (metric, f"Worst case ({metric})", f"Loss of {metric} (bound)", "Latency p99")
    return "Site", "Board", "Variant", "Artifact", "Cases", *numbers, "Verdict"


def rows_of(
    states: Sequence[SiteState], candidates: Sequence[dict[str, Scalar]], release: Release
) -> list[tuple[str, ...]]:
    """A line for each cell: the float baseline of a site, then what was tried there."""
    return [row for state in states for row in _site_rows(state, candidates, release)]


def _site_rows(
    state: SiteState, candidates: Sequence[dict[str, Scalar]], release: Release
) -> Iterator[tuple[str, ...]]:
    found = state.measured
    if found is None or found.board is None or found.baseline is None:
        yield state.name, "", "", "", "", "", "", "", "", "no answer yet" if state.failed is None else "failed"
        return
    board = f"{found.board.name} ({found.board.provenance}, {found.board.arch})"
    yield state.name, board, "float32 baseline", *_numbers(found.baseline), "baseline"
    for cell in found.cells:
        taken = release.chosen.get(state.name) == cell.candidate
        verdict = "shown" + (_confirmed(state) if taken else "") if taken else state.why_not(cell) or "not picked"
        name = label(candidates[cell.candidate])
        bits = f" (the board chose {cell.weight_bits} bits)" if cell.weight_bits and "bit" not in name else ""
        yield state.name, board, name + bits, *_numbers(cell, state.metric), verdict


def _confirmed(state: SiteState) -> str:
    said = state.confirmed.confirmed if state.confirmed else None
    if said is None:
        return ", not confirmed yet"
    again = f" (cases that {said.opened_before} earlier releases looked at)" if said.opened_before else ""
    return f", {said.outcome} on {said.cases} cases{again}"


def _numbers(item: CellSaid | BaselineSaid, metric: str = "") -> tuple[str, ...]:
    if isinstance(item, BaselineSaid):
        return item.artifact, str(item.cases), _number(item.accuracy), _number(item.worst), "", ""
    p99 = f"none: {item.no_p99}" if item.no_p99 else "none"
    if item.p99_ns is not None:
        beside = f" (baseline beside {human(item.p99_beside_ns, 'ns')})" if item.p99_beside_ns else ""
        p99 = human(item.p99_ns, "ns") + beside
    loss = ""
    if (first := endpoint_of(item, metric)) is not None:
        bound = "no bound" if first.lower is None else f"at most {-first.lower:.4f}"
        loss = f"{-first.gain:+.4f} ({bound}, margin {first.margin:g})"
    return item.artifact or "", str(item.cases), _number(item.accuracy), _number(item.worst), loss, p99


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def sentences(states: Sequence[SiteState], candidates: Sequence[dict[str, Scalar]], release: Release) -> list[str]:
    """What the table comes to, and what a mean over sites would have hidden."""
    lines = []
    for mean in release.means:
        bad = [
            state.name
            for state in states
            if state.measured and (cell := state.measured.cell(mean.candidate)) and state.why_not(cell)
        ]
        said = "within the widest margin" if mean.within else "beyond the widest margin"
        hides = (
            f", and hides {', '.join(bad)}"
            if bad and mean.within
            else f"; not shown at {', '.join(bad)}"
            if bad
            else ""
        )
        lines.append(
            f"{label(candidates[mean.candidate])}: the mean over {mean.sites} sites loses {-mean.gain:.4f}, {said}{hides}."
        )
    for name, numbers in release.mended.items():
        failed = ", ".join(label(candidates[number]) for number in numbers)
        lines.append(f"{name} was mended: {failed} was not shown, {label(candidates[release.chosen[name]])} is.")
    lines += [f"{name} fails: {why}." for name, why in release.failing.items()]
    lines += [f"{name} could not do it ({kind}): its own log says why." for name, kind in release.broken.items()]
    closing = {
        "released": f"Released: all {len(states)} sites have a candidate that is shown by their margin and confirmed.",
        "refused": f"Refused: {len(release.failing)} of {len(states)} sites fail.",
        "undecided": "Undecided: answers are missing.",
    }
    return [*lines, closing[release.outcome]]


def write_pages(
    out: Path,
    name: str,
    facts: dict[str, Any],
    states: Sequence[SiteState],
    candidates: Sequence[dict[str, Scalar]],
    release: Release,
) -> None:
    """``release.json``, ``release.md`` and ``release.html`` in ``out``. Raises ``StorageError``."""
    rows, said = rows_of(states, candidates, release), sentences(states, candidates, release)
    answers = {state.name: [one.model_dump(mode="json") for one in state.answers] for state in states}
    margins = {state.name: state.margin for state in states}
    kept = {
        "schema": 1,
        "name": name,
        **facts,
        **release.as_json(),
        "candidates": list(candidates),
        "margins": margins,
        "answers": answers,
    }
    write_json(out / "release.json", kept)
    write_atomic(out / "release.md", _markdown(name, headings(states), rows, said).encode())
    write_atomic(out / "release.html", _html(name, headings(states), rows, said).encode())


def _markdown(name: str, heads: Sequence[str], rows: Sequence[Sequence[str]], said: Sequence[str]) -> str:
    table = [
        [escaped(cell) for cell in heads],
        ["---"] * len(heads),
        *[[escaped(cell) for cell in row] for row in rows],
    ]
    lines = [f"# {escaped(name)}", "", *(f"{escaped(line)}\n" for line in said)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in table), ""])


def _html(name: str, heads: Sequence[str], rows: Sequence[Sequence[str]], said: Sequence[str]) -> str:
    def cells(kind: str, row: Sequence[str]) -> str:
        return "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in row)

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    text = "".join(f"<p>{html.escape(line)}</p>" for line in said)
    title = html.escape(name)
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    table = f"<table><tr>{cells('th', heads)}</tr>{body}</table>"
    return f'<!doctype html><html lang="en"><head>{head}</head><body><h1>{title}</h1>{text}{table}</body></html>\n'
