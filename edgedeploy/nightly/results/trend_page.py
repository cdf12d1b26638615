"""The trend page: every number of every entry on every board over the nights, a chart at a time, drawn when asked for.

A history belongs to a board's key: where the key changes, the line is broken. Below the chart stands what happened: changes
of the board, its image, runtime and tools, accepted baselines, changed artifacts. The page holds its data in few bytes
(``packed.py``), so that a year of 1,000 series opens at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

from edgedeploy.evidence.change_points import change_points
from edgedeploy.evidence.quantities import heading
from edgedeploy.nightly.results.history import STATUSES, History, Line, Mark, Pair
from edgedeploy.nightly.results.lab_page import lab_summary, night_document
from edgedeploy.nightly.results.numbers import is_log_ratio, loss_text, shown
from edgedeploy.nightly.results.packed import packed, scale_of
from edgedeploy.nightly.results.sections import damaged_section
from edgedeploy.records.night import Night
from edgedeploy.report import blocks
from edgedeploy.report.blocks import Cell, Section, Table
from edgedeploy.report.html import plotly, template_file
from edgedeploy.report.plot import BLUE, GREY, ORANGE, plain_layout
from edgedeploy.report.tables import line

MOST_SERIES: Final = 6_000
"""On the page: those of tonight's worst first. The nights' JSON files have all."""

MOST_LOOKED_AT: Final = 200
"""Series whose changes of level are looked for, in the page's order: it takes some milliseconds each, and half a second
where there is one."""

MOST_CHANGES: Final = 300
COLOURS: Final = {"ok": BLUE, "young": GREY, "suspect": ORANGE, "regression": ORANGE, "missing": GREY}
SYMBOLS: Final = {
    "ok": "circle",
    "young": "circle-open",
    "suspect": "diamond-open",
    "regression": "diamond",
    "missing": "x",
}
NAMES: Final = {"ok": "within its limit", "young": "young", "suspect": "suspect", "regression": "regression"}
CHART_HEIGHT: Final = 420

Found = tuple[Pair, str, Line]


def trend_page(night: Night, history: History, damaged: Sequence[str]) -> str:
    """``history`` has tonight in it. The page needs no network."""
    series = in_order(history)
    sections = [
        attention_section(series[:MOST_SERIES], history),
        changes_section(history),
        damaged_section(damaged),
        every_section(series[:MOST_SERIES], history),
    ]
    return night_document(
        "trend.html",
        lab_summary(night, history),
        [section for section in sections if section is not None],
        {"plotly": plotly(), "behind": template_file("trend.js")},
        trend=data_of(series[:MOST_SERIES], history),
        left_out=max(0, len(series) - MOST_SERIES),
    )


def in_order(history: History) -> list[Found]:
    """Tonight's worst first; then by name."""
    rank = {"regression": 0, "suspect": 1, "missing": 2, "young": 3, "ok": 4}
    tonight = len(history.nights) - 1

    def key(found: Found) -> tuple[int, str, str, str]:
        pair, metric, one = found
        status = STATUSES[one.status[-1]]
        return (rank[status] if one.at[-1] == tonight else len(rank), *pair, metric)

    return sorted(history.lines(), key=key)


def anchor(pair: Pair, metric: str) -> str:
    """What stands behind ``#`` in a link to the chart of a series."""
    return "show/" + "/".join(quote(part, safe="", errors="replace") for part in (*pair, metric))


def attention_section(series: Sequence[Found], history: History) -> Section | None:
    tonight = len(history.nights) - 1
    found = [
        one for one in series if one[2].at[-1] == tonight and STATUSES[one[2].status[-1]] in ("regression", "suspect")
    ]
    if not found:
        return None
    caption = "A link draws the number over time."
    return Section("What to look at", caption, [_table(found, history, "")])


def every_section(series: Sequence[Found], history: History) -> Section:
    caption = "The latest number of each, against the frozen baseline; larger is worse."
    return Section("All numbers", caption, [_table(series, history, "sortable")], folded=True)


def _table(series: Sequence[Found], history: History, look: Any) -> Table:
    headers = ("Entry", "Board", "Metric", "Against the baseline", "Limit", "State", "Night")
    return Table(headers, [_line(found, history) for found in series], (3, 4), look, named=True)


def _line(found: Found, history: History) -> blocks.Line:
    pair, metric, one = found
    status, night, last = STATUSES[one.status[-1]], history.nights[one.at[-1]], one.last
    loss, limit = (last.loss, last.limit) if last is not None else (None, None)
    return line(
        Cell(pair.entry, sort=pair.entry, link=anchor(pair, metric)),
        Cell(pair.board, sort=pair.board),
        Cell(heading(metric), sort=heading(metric)),
        Cell(loss_text(loss, metric), sort="" if loss is None else shown(loss, metric)),
        Cell(loss_text(limit, metric), sort="" if limit is None else shown(limit, metric)),
        Cell(status, hint=last.reason if last is not None else "", sort=status),
        Cell(night, sort=night),
        looks=("base",) if status in ("regression", "suspect") else (),
    )


def changes_section(history: History) -> Section | None:
    """Of boards and of the lab, newest first; those of an entry stand below its chart."""
    found = [(mark.night, "", mark.text) for mark in history.marks]
    found += [(mark.night, name, mark.text) for name, board in history.boards.items() for mark in board.marks]
    found += [(mark.night, entry, mark.text) for entry, marks in history.accepted.items() for mark in marks]
    if not found:
        return None
    ordered = sorted(found, key=lambda one: (-one[0], one[1], one[2]))[:MOST_CHANGES]
    lines = [line(history.nights[place], name or "the lab's tools", text) for place, name, text in ordered]
    return Section("What changed when", "", [Table(("Night", "Board or entry", "What"), lines)], folded=True)


def data_of(series: Sequence[Found], history: History) -> dict[str, Any]:
    """What ``trend.js`` reads. Names stand once, and everything else names them by their places."""
    entries, boards, metrics = (
        (_places(names) for names in zip(*((*pair, metric) for pair, metric, _ in series), strict=True))
        if series
        else ({}, {}, {})
    )
    pairs = {pair: history.pairs[pair] for pair, _, _ in series}
    return {
        "nights": history.nights,
        "entries": list(entries),
        "boards": list(boards),
        "metrics": [[name, heading(name), int(is_log_ratio(name))] for name in metrics],
        "series": [
            [entries[pair.entry], boards[pair.board], metrics[metric], scale_of(one)] for pair, metric, one in series
        ],
        "keys": {_pair(pair, entries, boards): _marks(of.keys) for pair, of in pairs.items()},
        "marks": {
            "lab": _marks(history.marks),
            "boards": {
                str(place): _marks(history.boards[name].marks)
                for name, place in boards.items()
                if name in history.boards
            },
            "entries": {
                str(place): _marks(history.accepted[name])
                for name, place in entries.items()
                if name in history.accepted
            },
            "series": level_marks(series[:MOST_LOOKED_AT], history),
            "pairs": {_pair(pair, entries, boards): _marks(of.marks) for pair, of in pairs.items() if of.marks},
        },
        "looks": [[name, COLOURS[name], SYMBOLS[name], NAMES.get(name, name)] for name in STATUSES],
        "layout": plain_layout("", "", "", CHART_HEIGHT),
        "grey": GREY,
        "blue": BLUE,
        "points": packed([one for _, _, one in series], len(history.nights)),
    }


def level_marks(series: Sequence[Found], history: History) -> dict[str, list[list[Any]]]:
    """Where a series changed its level, by its place. A history is of one board key: each is looked at by itself. These are
    marks for people; an alarm comes from no such mark."""
    found = {}
    for place, (pair, metric, one) in enumerate(series):
        starts = {mark.night for mark in history.pairs[pair].keys}
        parts: list[list[int]] = [[]]
        for index, night in enumerate(one.at):
            parts += [[]] if night in starts else []
            parts[-1] += [index] if math.isfinite(one.loss[index]) else []
        marks = [mark for part in parts for mark in _levels(part, metric, one)]
        if marks:
            found[str(place)] = _marks(marks)
    return found


def _levels(part: Sequence[int], metric: str, one: Line) -> list[Mark]:
    return [
        Mark(
            one.at[part[point.index]],
            f"level {loss_text(point.after, metric)}, before {loss_text(point.before, metric)}",
        )
        for point in change_points([one.loss[index] for index in part])
    ]


def _places(names: Sequence[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(sorted(set(names)))}


def _pair(pair: Pair, entries: dict[str, int], boards: dict[str, int]) -> str:
    return f"{entries[pair.entry]},{boards[pair.board]}"


def _marks(marks: Sequence[Mark]) -> list[list[Any]]:
    return [[mark.night, mark.text] for mark in marks]
