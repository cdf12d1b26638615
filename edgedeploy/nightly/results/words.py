"""What a night says, in sentences, for the terminal, the message and the pages alike, and its exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edgedeploy.records.night import Night, Outcome, Verdict

EXIT_CODES: Final[dict[Outcome, int]] = {
    "regression": 1,
    "artifact": 1,
    "board": 3,
    "infrastructure": 3,
    "not_run": 4,
    "ok": 0,
    "young": 0,
}

WORST_FIRST: Final[tuple[Outcome, ...]] = tuple(EXIT_CODES)

TOLD: Final[tuple[Outcome, ...]] = WORST_FIRST[:4]
"""What somebody has to look at."""

NAMES: Final[dict[Outcome, tuple[str, str]]] = {
    "regression": ("regression", "regressions"),
    "artifact": ("changed artifact", "changed artifacts"),
    "board": ("board that changed or failed", "boards that changed or failed"),
    "infrastructure": ("failure of this host or the lab", "failures of this host or the lab"),
    "not_run": ("not run", "not run"),
    "ok": ("as before", "as before"),
    "young": ("too young to judge", "too young to judge"),
}
"""One of them, several of them."""

MOST_LISTED: Final = 50
"""On a terminal and in a message; the pages have all."""


def exit_code(night: Night) -> int:
    """0 ok, 1 a regression or a changed artifact, 3 a board or the infrastructure, 4 partial: the first of 1, 3, 4 that
    there is. A message that could not be sent was of a regression, whose 1 stands."""
    codes = {EXIT_CODES[verdict.outcome] for verdict in night.verdicts}
    return next((code for code in (1, 3, 4) if code in codes), 0)


def counted(night: Night) -> str:
    """``2 regressions, 1 changed artifact, 40 as before``: of entries on boards, worst first."""
    counts = Counter(verdict.outcome for verdict in night.verdicts)
    parts = [f"{counts[name]} {NAMES[name][counts[name] != 1]}" for name in WORST_FIRST if counts[name]]
    return ", ".join(parts) or "nothing was due"


def answer(night: Night) -> str:
    """One sentence: whether somebody has to look."""
    counts = Counter(verdict.outcome for verdict in night.verdicts)
    worse = [f"{counts[name]} {NAMES[name][counts[name] != 1]}" for name in WORST_FIRST[:2] if counts[name]]
    if worse:
        return " and ".join(worse)
    judged = counts["ok"]
    rest = [name for name in WORST_FIRST[2:] if counts[name] and name != "ok"]
    if not judged:
        return "Nothing was judged" if night.verdicts else "Nothing was due"
    return "No regression" if not rest else f"No regression in the {judged} that were judged"


def headline(night: Night) -> str:
    """``edgedeploy nightly, imaging, 2026-11-29: 2 regressions, 40 as before``"""
    worse = any(verdict.outcome in ("regression", "artifact") for verdict in night.verdicts)
    said = counted(night) if worse else f"{_lower(answer(night))} ({counted(night)})"
    return one_line(f"edgedeploy nightly, {night.lab}, {night.night}: {said}")


def listed(night: Night, outcomes: Sequence[Outcome] = TOLD) -> list[str]:
    """A line for each entry on a board that ended so, worst first."""
    found = [verdict for verdict in in_order(night.verdicts) if verdict.outcome in outcomes]
    lines = [line_of(verdict) for verdict in found[:MOST_LISTED]]
    rest = len(found) - len(lines)
    return [*lines, f"and {rest} more, on the lab page"] if rest else lines


def line_of(verdict: Verdict) -> str:
    """``regression: thyroid on cart: 12.3 % slower than its baseline (imaging@example.org)``"""
    owner = f" ({verdict.owner})" if verdict.owner else ""
    return one_line(f"{verdict.outcome.replace('_', ' ')}: {verdict.entry} on {verdict.board}: {verdict.reason}{owner}")


def in_order(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Worst first, then the most important."""
    rank = {name: place for place, name in enumerate(WORST_FIRST)}
    return sorted(verdicts, key=lambda one: (rank[one.outcome], -one.importance, one.entry, one.board))


def alarm_line(night: Night) -> str:
    """What became of the message, empty where none was due."""
    if night.told is None:
        return "" if not night.alarms else "No message was sent: the lab file has no [alarm] command"
    words = {
        "sent": "The alarm command has the message",
        "earlier": "The message of this night was sent before: there is one a night",
        "failed": "NOBODY WAS TOLD: the alarm command failed",
        "unknown": "IT IS NOT KNOWN WHETHER ANYBODY WAS TOLD",
    }
    detail = f": {night.told.detail}" if night.told.detail else ""
    return one_line(f"{words[night.told.state]}{detail}")


def accept_line(night: Night) -> str:
    """What to do where other things are shipped than were accepted, empty where none are."""
    other = [item for item in in_order(night.verdicts) if item.artifact_changes and not item.error]
    names = list(dict.fromkeys(item.entry for item in other))
    if not names:
        return ""
    word = names[0] if len(names) == 1 else "ENTRY"
    return one_line(f"Where what is shipped changed on purpose: edgedeploy nightly accept LAB.toml {word} --why TEXT")


def several(count: int, word: str) -> str:
    """``1 board``, ``2 boards``"""
    return f"{count} {word}{'' if count == 1 else 's'}"


def closing_lines(night: Night, pages: Sequence[Path], damaged: Sequence[str] = ()) -> list[str]:
    """What ``edgedeploy nightly`` prints last: the answer, a line for each that somebody has to look at, what became of the
    message, where the pages are."""
    lines = [headline(night), *listed(night)]
    lines += [accept_line(night)] if accept_line(night) else []
    lines += [alarm_line(night)] if alarm_line(night) else []
    lines += [one_line(f"left out of the trend, cannot be read: {name}") for name in damaged]
    return [*lines, *map(str, pages)]


def one_line(text: str) -> str:
    """Without line breaks and control characters: a board's answer moves no cursor."""
    return "".join(letter if letter.isprintable() else " " for letter in " ".join(text.split()))


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
