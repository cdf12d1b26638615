"""Tables of bars: what a row is, where a kit's rows are found, what the command line asks of them, how they are printed.

A kit is a folder beside the benchmark that prints its table. Its modules list functions in their ``ROWS``; each makes one
row from what the command line asked, and its name is the row's name on the command line.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import Any, Final

from benchmarks import FOLDER, parser_of
from benchmarks.shared.host import circumstances

LEAST: Final = "least"


@dataclass(frozen=True)
class Row:
    """What was asked, what was found (with its error), the bar in words, and whether it holds; no bar always holds."""

    what: str
    found: str
    bar: str = ""
    holds: bool = True


def count(default: int, what: str) -> int:
    """A field of an ``Asked`` that counts something, at least 1; ``what`` is its help."""
    found: int = field(default=default, metadata={"help": what, LEAST: 1})
    return found


@dataclass(frozen=True)
class Asked:
    """What the command line asks of every row: an option for each field. ``seed`` is that of everything that is made up or
    trained."""

    seed: int = field(default=0, metadata={"help": "of all of them"})


RowMaker = Callable[[Any], Row]
"""Takes the ``Asked`` of its table."""


@dataclass(frozen=True)
class Table:
    """A benchmark that prints rows: its name and help on the command line, the heading of its rows, the folder of its kit
    with the ``parts`` that have rows (all modules by default), and the class of what is asked."""

    name: str
    text: str | None
    heading: str
    kit: str
    parts: Sequence[str] = ()
    asked: type[Asked] = Asked

    def main(self, argv: Sequence[str]) -> int:
        """The exit code: with --check 1 where a bar does not hold."""
        parser = self.parser()
        return self.run(parser, parser.parse_args(argv))

    def parser(self) -> argparse.ArgumentParser:
        parser = parser_of(self.name, self.text)
        names = list(makers_of(self.kit, self.parts))
        text = "these rows alone"
        parser.add_argument("--only", nargs="+", action="extend", choices=names, help=text, metavar="ROW")
        for option in fields(self.asked):
            text = f"{option.metadata['help']} ({option.default})"
            parser.add_argument(f"--{option.name}", type=int, default=option.default, help=text)
        parser.add_argument("--check", action="store_true", help="exit 1 when a bar does not hold")
        return parser

    def run(self, parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
        """Make and print the rows that ``given`` asks for; ``parser`` says what is wrong with a count."""
        options = fields(self.asked)
        wrong = [
            f"--{option.name}" for option in options if getattr(given, option.name) < option.metadata.get(LEAST, 0)
        ]
        if wrong:
            parser.error(f"at least 1 is needed of {' and '.join(wrong)}")
        asked = self.asked(**{option.name: getattr(given, option.name) for option in options})
        rows = made(makers_of(self.kit, self.parts), given.only, asked)
        sys.stdout.write(f"{circumstances()}\n\n{table(self.heading, rows)}")
        return int(given.check and not all(row.holds for row in rows))


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
