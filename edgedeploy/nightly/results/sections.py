"""What the Markdown summary and the lab page say of one night, as blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from edgedeploy.evidence.quantities import heading
from edgedeploy.nightly.results.numbers import loss_text
from edgedeploy.nightly.results.words import (
    NAMES,
    WORST_FIRST,
    accept_line,
    alarm_line,
    answer,
    in_order,
    several,
)
from edgedeploy.records.night import Night, Outcome, SeriesVerdict, Verdict
from edgedeploy.report.blocks import Cell, Fact, Line, Section, Summary, Table, Text, Tile
from edgedeploy.report.tables import line
from edgedeploy.report.words import PROVENANCE_TEXT

MOST_LINES: Final = 200
"""Of a table in the summary: GitHub takes 1 MiB a step."""

MOST_POINTS: Final = 12
"""On the first screen."""

_LISTED: Final[tuple[tuple[str, Outcome], ...]] = (
    ("What became worse", "regression"),
    ("What is shipped changed", "artifact"),
    ("Boards that changed or failed", "board"),
    ("This host or the lab failed", "infrastructure"),
)


def summary_of(night: Night, meta: Sequence[str] = ()) -> Summary:
    """The first screen: the answer, how many of each, what to look at, and whether anybody was told."""
    counts = Counter(verdict.outcome for verdict in night.verdicts)
    tiles = [Tile(NAMES[name][1], str(counts[name]), ()) for name in WORST_FIRST if counts[name]]
    facts = [Fact(title, points=_points(night, outcome)) for title, outcome in _LISTED if counts[outcome]]
    facts += [Fact("What to do", [accept_line(night)])] if accept_line(night) else []
    facts += [Fact("Entries on boards tonight", tiles=tiles)] if tiles else []
    facts += [Fact("The message", [alarm_line(night)])] if alarm_line(night) else []
    clean = not (counts["regression"] or counts["artifact"])
    words = [
        f"night of {night.night}",
        *meta,
        several(len(night.boards), "board"),
        f"{hours(night.budget_s)} of budget",
    ]
    return Summary(night.lab, provenance_of(night), ", ".join(words), clean, answer(night), facts)


def provenance_of(night: Night) -> str:
    """Of the boards that answered; of several kinds all, and ``not measured`` where none did."""
    found = {board.provenance for board in night.boards}
    return ", ".join(name for name in PROVENANCE_TEXT if name in found) or "not measured"


def _points(night: Night, outcome: Outcome) -> list[str]:
    found = [verdict for verdict in in_order(night.verdicts) if verdict.outcome == outcome]
    points = [f"{verdict.entry} on {verdict.board}: {verdict.reason}" for verdict in found[:MOST_POINTS]]
    return [*points, f"and {len(found) - MOST_POINTS} more, below"] if len(found) > MOST_POINTS else points


def summary_sections(night: Night, damaged: Sequence[str] = ()) -> list[Section]:
    """Of the Markdown page; nothing that is as it was."""
    found = [
        worse_section(night.verdicts, MOST_LINES),
        changed_section(night.verdicts, MOST_LINES),
        not_run_section(night.verdicts, {}, MOST_LINES),
        damaged_section(damaged),
    ]
    return [section for section in found if section is not None]


def worse_section(verdicts: Iterable[Verdict], most: int) -> Section | None:
    """Each number and each answer that became worse, with its limit."""
    lines = []
    for verdict in in_order(list(verdicts)):
        if verdict.outcome != "regression":
            continue
        worse = [series for series in verdict.series if series.status == "regression"]
        lines += [_series_line(verdict, series) for series in worse]
        if verdict.golden is not None:
            changed = verdict.golden.changed
            lines += [
                line(verdict.entry, verdict.board, f"golden output {name}", "changed", "", "", verdict.owner)
                for name in changed
            ]
        if not worse and not (verdict.golden and verdict.golden.changed):
            lines.append(line(verdict.entry, verdict.board, "", verdict.reason, "", "", verdict.owner))
    headers = ("Entry", "Board", "Metric", "Against the baseline", "Limit", "Sessions", "Owner")
    return _tabled("What became worse", "", headers, lines, most, numbers=(3, 4, 5))


def _series_line(verdict: Verdict, series: SeriesVerdict) -> Line:
    name = Cell(heading(series.metric), hint=series.reason)
    numbers = (loss_text(series.loss, series.metric), loss_text(series.limit, series.metric), series.sessions)
    return line(verdict.entry, verdict.board, name, *numbers, verdict.owner)


def changed_section(verdicts: Iterable[Verdict], most: int) -> Section | None:
    """Artifacts, boards and failures: which of the three questions it is."""
    lines = [
        line(verdict.entry, verdict.board, question, text, verdict.owner)
        for verdict in in_order(list(verdicts))
        for question, text in _changes(verdict)
    ]
    caption = "A new board key starts a new history: its numbers are compared with none of the old one."
    return _tabled("What changed or failed", caption, ("Entry", "Board", "Which", "What", "Owner"), lines, most)


def _changes(verdict: Verdict) -> list[tuple[str, str]]:
    found = [("artifact", text) for text in verdict.artifact_changes]
    found += [("board", text) for text in verdict.board_changes]
    if verdict.outcome in ("board", "infrastructure") and verdict.reason not in [text for _, text in found]:
        found.append((verdict.outcome, f"{verdict.error}: {verdict.reason}" if verdict.error else verdict.reason))
    return found + [("note", text) for text in verdict.notes]


def not_run_section(verdicts: Iterable[Verdict], last: dict[tuple[str, str], str], most: int) -> Section | None:
    """The queue: ``last`` is the night on which an entry was measured on a board."""
    left = [verdict for verdict in in_order(list(verdicts)) if verdict.outcome == "not_run"]
    lines = [
        line(one.entry, one.board, f"{one.importance:g}", one.reason, last.get((one.entry, one.board), ""), one.owner)
        for one in left
    ]
    headers = ("Entry", "Board", "Importance", "Why", "Last measured", "Owner")
    return _tabled("Not run", "What is next, the most important first.", headers, lines, most, numbers=(2,))


def damaged_section(damaged: Sequence[str]) -> Section | None:
    lines = [line(name) for name in damaged]
    caption = "These nights are left out of the trend; the others are whole."
    return _tabled("Files of other nights that cannot be read", caption, ("File",), lines, MOST_LINES)


def _tabled(
    title: str, caption: str, headers: Sequence[str], lines: Sequence[Line], most: int, numbers: Sequence[int] = ()
) -> Section | None:
    if not lines:
        return None
    rest = len(lines) - most
    more = [Text(f"and {rest} more: the night's JSON file has all", "note")] if rest > 0 else []
    return Section(title, caption, [Table(headers, lines[:most], numbers), *more])


def hours(seconds: float) -> str:
    """``6.0 h``, ``45 min``."""
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"
