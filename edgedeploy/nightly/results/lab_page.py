"""The lab's page: is each board well, what did it do, what waits for it, since when is it what it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from edgedeploy.nightly.results.history import History, OfBoard
from edgedeploy.nightly.results.sections import (
    changed_section,
    damaged_section,
    hours,
    not_run_section,
    summary_of,
    worse_section,
)
from edgedeploy.nightly.results.words import several
from edgedeploy.records.night import BoardHealth, BoardState, Night
from edgedeploy.report.blocks import Cell, Line, Section, Summary, Table
from edgedeploy.report.html import document, template_file
from edgedeploy.report.tables import line

RECENT: Final = 30
"""Nights that utilisation and trouble are looked at over."""

MOST_LINES: Final = 5_000
SHORT_KEY: Final = 12
"""Characters of a key on the page; pointing at it shows all."""

DASH: Final = "\N{EN DASH}"


def lab_page(night: Night, history: History, damaged: Sequence[str]) -> str:
    """``history`` has tonight in it. The page needs no network."""
    sections = [section for section in lab_sections(night, history, damaged) if section is not None]
    return night_document("lab.html", lab_summary(night, history), sections)


def night_document(
    template: str,
    summary: Summary,
    sections: Sequence[Section],
    scripts: Mapping[str, str] = MappingProxyType({}),
    **more: object,
) -> str:
    """A page of the nightly lab in the report's look. ``scripts`` are its own, by their names in the template: a browser
    runs those alone that the page's policy names."""
    content = {"summary": summary, "sections": sections, "charts": {}, **more}
    return document(template, content, {"behaviour": template_file("behaviour.js"), **scripts})


def lab_summary(night: Night, history: History) -> Summary:
    return summary_of(night, [f"{several(len(history.nights), 'night')} known"])


def lab_sections(night: Night, history: History, damaged: Sequence[str]) -> list[Section | None]:
    last = {
        (entry, board): history.nights[of.measured]
        for (entry, board), of in history.pairs.items()
        if of.measured is not None
    }
    return [
        boards_section(night, history),
        worse_section(night.verdicts, MOST_LINES),
        changed_section(night.verdicts, MOST_LINES),
        not_run_section(night.verdicts, last, MOST_LINES),
        states_section(night, history),
        trouble_section(history),
        damaged_section(damaged),
    ]


def boards_section(night: Night, history: History) -> Section:
    headers = (
        "Board",
        "State",
        "Busy tonight",
        f"Busy, {RECENT} nights",
        "Not run",
        "Last answer",
        "Key",
        "Unchanged since",
    )
    lines = [_board_line(health, history, night) for health in sorted(night.boards, key=_trouble_first)]
    caption = (
        "Busy is the share of the budget in which a board measured. One in quarantine waits for somebody to release it."
    )
    return Section("Boards", caption, [Table(headers, lines, (2, 3, 4), "sortable", named=True)])


def _trouble_first(health: BoardHealth) -> tuple[bool, bool, str]:
    return (not health.quarantined, health.answered, health.name)


def _board_line(health: BoardHealth, history: History, night: Night) -> Line:
    board = history.boards[health.name]
    word, why = state_words(health)
    tonight = health.busy_s / night.budget_s if night.budget_s > 0 else 0.0
    recent = recent_busy(board, len(history.nights))
    answered = history.nights[board.answered] if board.answered is not None else "never"
    return line(
        Cell(health.name, health.provenance, sort=health.name),
        Cell(word, why, sort=word),
        Cell(f"{tonight:.0%}", hours(health.busy_s), sort=tonight),
        Cell(f"{recent:.0%}", sort=recent),
        Cell(str(health.waiting), sort=health.waiting),
        Cell(answered, sort=answered),
        _key_cell(board.state),
        _since_cell(board, history),
        looks=("base",) if word != "serves" else (),
    )


def state_words(health: BoardHealth) -> tuple[str, str]:
    """One word, and why it is not ``serves``."""
    if health.quarantined:
        return "quarantined", health.quarantined
    if not health.answered:
        return "no answer", health.error
    return ("failed", health.error) if health.error else ("serves", "")


def recent_busy(board: OfBoard, nights: int) -> float:
    """The mean share over the last nights in which the lab had the board."""
    shares = [share for place, share in board.busy.items() if place >= nights - RECENT]
    return sum(shares) / len(shares) if shares else 0.0


def _key_cell(state: BoardState | None) -> Cell:
    if state is None:
        return Cell(DASH, sort="")
    return Cell(state.key[:SHORT_KEY], hint=state.key, sort=state.key)


def _since_cell(board: OfBoard, history: History) -> Cell:
    if board.state is None:
        return Cell(DASH, sort="")
    age = len(history.nights) - board.since
    words = f"{age} {'night' if age == 1 else 'nights'}{' or longer' if board.since == 0 else ''}"
    return Cell(history.nights[board.since], words, sort=history.nights[board.since])


def states_section(night: Night, history: History) -> Section:
    """What each board was when it was last seen."""
    lines = []
    for health in night.boards:
        state = history.boards[health.name].state
        if state is not None:
            clock = f"{state.cpu_mhz:.0f} MHz" if state.cpu_mhz is not None else DASH
            heat = f"{state.temperature_c:.0f} \N{DEGREE SIGN}C" if state.temperature_c is not None else DASH
            mode = Cell(state.power_mode or DASH, state.governor)
            system = Cell(state.os, state.image)
            lines.append(
                line(
                    health.name, state.cpu, system, state.runtime, state.python, mode, clock, heat, state.serial or DASH
                )
            )
    headers = (
        "Board",
        "Processor",
        "System and image",
        "Runtime",
        "Python",
        "Power mode",
        "Clock",
        "Temperature",
        "Serial",
    )
    return Section("What the boards are", "As each was last seen.", [Table(headers, lines, named=True)])


def trouble_section(history: History) -> Section | None:
    """Nights without an answer or in quarantine, and changes, of the last ones."""
    first = max(0, len(history.nights) - RECENT)
    lines = []
    for name, board in history.boards.items():
        found = [(place, "trouble", text) for place, text in board.unwell.items()]
        found += [(mark.night, "change", mark.text) for mark in board.marks]
        lines += [(place, name, kind, text) for place, kind, text in found if place >= first]
    if not lines:
        return None
    ordered = sorted(lines, key=lambda one: (-one[0], one[1], one[2]))[:MOST_LINES]
    rows = [line(history.nights[place], *rest) for place, *rest in ordered]
    title = f"Trouble and changes of {RECENT} nights"
    return Section(title, "", [Table(("Night", "Board", "Kind", "What"), rows)], folded=True)
