"""Rows of a table of bars: what a row is, where a kit's rows are found, how they are made and printed.

A kit is a folder beside the benchmark that prints its table. Its modules list functions in their ``ROWS``; each makes one
row from what the command line asked, and its name is the row's name on the command line.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from benchmarks import FOLDER


@dataclass(frozen=True)
class Row:
    """What was asked, what was found (with its error), the bar in words, and whether it holds; no bar always holds."""

    what: str
    found: str
    bar: str = ""
    holds: bool = True


RowMaker = Callable[[Any], Row]
"""Takes the ``Asked`` of its kit."""


def makers_of(kit: str, parts: Sequence[str] = ()) -> dict[str, RowMaker]:
    """Every row of the folder ``kit`` by its name: of its modules ``parts`` in that order, or of all that
    have a ``ROWS``."""
    names = parts or sorted(path.stem for path in (FOLDER / kit).glob("*.py") if path.stem != "__init__")
    modules = [import_module(f"benchmarks.{kit}.{name}") for name in names]
    found = [maker for module in modules for maker in getattr(module, "ROWS", ())]
    return {maker.__name__: maker for maker in found}


def made(makers: Mapping[str, RowMaker], names: Sequence[str] | None, asked: object) -> list[Row]:
    """The rows ``names``, all by default. Each is told to standard error when it is there, with what it took."""
    rows = []
    for name in names or makers:
        started_s = time.perf_counter()
        rows.append(makers[name](asked))
        sys.stderr.write(f"{name}: {rows[-1].found} ({time.perf_counter() - started_s:.1f} s)\n")
    return rows


def table(title: str, rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        f"| {row.what} | {row.bar} | {row.found} | {('held' if row.holds else 'MISSED') if row.bar else ''} |"
        for row in rows
    ]
    return "\n".join([f"| {title} | bar | found | |", "|---|---|---|---|", *lines, ""])
