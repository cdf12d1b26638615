"""Everything that a night leaves for people and for CI, in one call.

The order is that of what may not be lost: the night's own file, what CI reads, the message to a person, the pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edgedeploy import files
from edgedeploy.nightly.results.alarm import tell
from edgedeploy.nightly.results.history import History
from edgedeploy.nightly.results.junit import junit
from edgedeploy.nightly.results.kept import Earlier, write_night
from edgedeploy.nightly.results.lab_page import lab_page
from edgedeploy.nightly.results.sections import summary_of, summary_sections
from edgedeploy.nightly.results.trend_page import trend_page
from edgedeploy.nightly.results.words import closing_lines, exit_code
from edgedeploy.records.night import Night
from edgedeploy.report.markdown import markdown

JUNIT: Final = "junit.xml"
SUMMARY: Final = "summary.md"
TREND: Final = "trend.html"
LAB: Final = "lab.html"


@dataclass(frozen=True)
class Written:
    """Where a night's results lie. ``night`` says what became of its message; ``damaged`` are files of other nights that
    could not be read."""

    night: Night
    night_json: Path
    junit: Path
    summary: Path
    trend: Path
    lab: Path
    damaged: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        return exit_code(self.night)

    def lines(self) -> list[str]:
        """What a terminal shows last."""
        return closing_lines(self.night, (self.lab, self.trend), self.damaged)


def write_results(night: Night, earlier: Iterable[Night], out: Path, alarm: Sequence[str] = ()) -> Written:
    """Write the night into the folder ``out``: its JSON file first, then what CI reads, the message by the command
    ``alarm`` (its argv; none, no message), the pages. Called again for the same night, it writes all of it anew and sends
    nothing a second time.

    ``earlier`` are the lab's nights, oldest first, each read once (:class:`Earlier` reads them from ``out``); this night
    and those after it are left out. Raises ``StorageError`` where the disk is full or fails, ``ValueError`` where the
    night's name is no date.
    """
    written = _for_ci(night, out)
    told = tell(night, alarm, out, [f"{written.lab}", f"{written.trend}"])
    if told is not None:
        written = _for_ci(replace(night, told=told), out)
    history = History()
    for one in earlier:
        if one.night < night.night:
            history.add(one)
    damaged = earlier.damaged if isinstance(earlier, Earlier) else ()
    history.add(written.night)
    _write(written.lab, lab_page(written.night, history, damaged))
    _write(written.trend, trend_page(written.night, history, damaged))
    if damaged:
        _write(written.summary, summary_text(written.night, damaged))
    return replace(written, damaged=damaged)


def _for_ci(night: Night, out: Path) -> Written:
    written = Written(night, write_night(night, out), out / JUNIT, out / SUMMARY, out / TREND, out / LAB)
    files.write_atomic(written.junit, junit(night))
    _write(written.summary, summary_text(night, ()))
    return written


def summary_text(night: Night, damaged: Sequence[str]) -> str:
    """Markdown for a CI's page of the run."""
    return markdown(summary_of(night), summary_sections(night, damaged))


def _write(path: Path, text: str) -> None:
    """Halves of characters, which a board's answer may hold, are written as a question mark."""
    files.write_atomic(path, text.encode("utf-8", "replace"))
