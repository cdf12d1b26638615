"""A night as JUnit, for CI.

- GitLab keys cases by ``classname`` and ``name``, takes the first of a pair, and shows neither message nor type: no two
  cases are alike, and the numbers stand in the element's text too.
- XML 1.0 has no word for most control characters and for halves of characters; one of them makes a whole file unreadable,
  so they are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final, Literal
from xml.etree import ElementTree  # writes only; nothing is parsed here

from edgedeploy.nightly.results.numbers import numbers_text
from edgedeploy.records.night import GoldenCheck, Night, SeriesVerdict, Verdict

Kind = Literal["passed", "failure", "error", "skipped"]

MOST_CHARACTERS: Final = 4_000
"""Of one text: GitLab reads files below 30 MB."""

_NO_XML: Final = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Case:
    """One line of a CI's list. ``text`` has what the list does not show."""

    classname: str
    name: str
    kind: Kind
    type: str = ""
    message: str = ""
    text: str = ""


def junit(night: Night) -> bytes:
    """The file. Times are the budget's seconds that boards measured."""
    found = (case for verdict in night.verdicts for case in cases_of(verdict))
    cases = list(unlike(chain(found, told_cases(night))))
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(case.kind == "failure" for case in cases)),
        "errors": str(sum(case.kind == "error" for case in cases)),
        "skipped": str(sum(case.kind == "skipped" for case in cases)),
        "time": f"{sum(board.busy_s for board in night.boards):.3f}",
    }
    root = ElementTree.Element("testsuites", {"name": clean(f"edgedeploy nightly {night.lab}"), **counts})
    moment = {"timestamp": clean(night.started_utc)} if night.started_utc else {}
    suite = ElementTree.SubElement(root, "testsuite", {"name": clean(f"{night.lab} {night.night}"), **counts, **moment})
    for case in cases:
        suite.append(_element(case))
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def clean(text: str) -> str:
    """``text`` without what no XML file may have, and not longer than a list has room for."""
    kept = _NO_XML.sub("", text)
    return kept if len(kept) <= MOST_CHARACTERS else f"{kept[:MOST_CHARACTERS]} [...]"


def cases_of(verdict: Verdict) -> Iterator[Case]:
    """The three questions apart: the artifact, the board, then answers and numbers."""
    where = f"{verdict.entry}.{verdict.board}"
    if verdict.outcome == "not_run":
        yield Case(where, "board", "skipped", "NotRun", verdict.reason, verdict.reason)
    else:
        yield artifact_case(where, verdict)
        yield board_case(where, verdict)
    if verdict.golden is not None:
        yield golden_case(where, verdict.golden)
    for series in verdict.series:
        yield series_case(where, verdict, series)
    if verdict.outcome == "regression" and not _shown_above(verdict):
        yield Case(where, "verdict", "failure", "Regression", verdict.reason, verdict.reason)


def _shown_above(verdict: Verdict) -> bool:
    """Whether a golden output or a number is the regression; a verdict is never lost between its parts."""
    changed = verdict.golden is not None and bool(verdict.golden.changed)
    return changed or any(series.status == "regression" for series in verdict.series)


def artifact_case(where: str, verdict: Verdict) -> Case:
    if not verdict.artifact_changes and verdict.outcome != "artifact":
        return Case(where, "artifact", "passed")
    text = "\n".join(verdict.artifact_changes) or verdict.reason
    return Case(where, "artifact", "failure", "ArtifactChanged", _first(text), text)


def board_case(where: str, verdict: Verdict) -> Case:
    text = "\n".join(verdict.board_changes) or verdict.reason
    if verdict.outcome in ("board", "infrastructure"):
        return Case(where, "board", "error", fault_type(verdict), _first(verdict.reason), f"{verdict.reason}\n{text}")
    return Case(where, "board", "passed", text=text if verdict.board_changes else "")


def fault_type(verdict: Verdict) -> str:
    """``BoardUnreachable``, ``BoardChanged``; of this host or the lab the error's own name."""
    if verdict.outcome == "infrastructure":
        return verdict.error or "Infrastructure"
    return f"Board{verdict.error.removeprefix('Board')}" if verdict.error else "BoardChanged"


def golden_case(where: str, golden: GoldenCheck) -> Case:
    text = "\n".join(
        f"{name}: relative L2 distance {worst:.3g}, allowed {golden.tolerance.get(name, float('nan')):.3g}"
        for name, worst in golden.worst.items()
    )
    if not golden.changed:
        return Case(where, "golden outputs", "passed", text=text)
    message = f"golden outputs changed: {', '.join(golden.changed)}"
    return Case(where, "golden outputs", "failure", "Regression", message, f"{message}\n{text}")


def series_case(where: str, verdict: Verdict, series: SeriesVerdict) -> Case:
    text = numbers_text(series)
    if series.status == "regression":
        return Case(where, series.metric, "failure", "Regression", series.reason, text)
    if series.status == "ok":
        return Case(where, series.metric, "passed", text=text)
    if series.status == "missing" and verdict.outcome in ("board", "infrastructure"):
        return Case(where, series.metric, "error", fault_type(verdict), series.reason or verdict.reason, text)
    return Case(where, series.metric, "skipped", series.status.capitalize(), f"{series.status}: {series.reason}", text)


def told_cases(night: Night) -> list[Case]:
    """An alarm that could not be sent is an error of its own: nobody was told of the failures above."""
    if night.told is None or night.told.state not in ("failed", "unknown"):
        return []
    return [
        Case(f"edgedeploy nightly.{night.lab}", "alarm", "error", "AlarmFailed", night.told.detail, night.told.detail)
    ]


def unlike(cases: Iterable[Case]) -> Iterator[Case]:
    """No two with one name: of ``a.b`` on ``c`` and ``a`` on ``b.c`` the second gets a number."""
    seen: set[tuple[str, str]] = set()
    for case in cases:
        where, name, number = clean(case.classname), clean(case.name), 1
        while (where, name) in seen:
            number += 1
            name = f"{clean(case.name)} ({number})"
        seen.add((where, name))
        yield replace(case, classname=where, name=name)


def _element(case: Case) -> ElementTree.Element:
    element = ElementTree.Element("testcase", {"classname": case.classname, "name": case.name})
    if case.kind == "passed":
        if case.text:
            ElementTree.SubElement(element, "system-out").text = clean(case.text)
        return element
    found = ElementTree.SubElement(element, case.kind, {"type": clean(case.type), "message": clean(case.message)})
    found.text = clean(case.text)
    return element


def _first(text: str) -> str:
    return text.partition("\n")[0]
