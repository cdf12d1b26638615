"""What all commands share: the application, its consoles, exit codes, tables and JSON."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from edgedeploy._version import __version__
from edgedeploy.cli.loudness import FlagsAnywhere, loudness, package_log_shown
from edgedeploy.errors import SpecError

app = typer.Typer(
    cls=FlagsAnywhere,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
out = Console(soft_wrap=True)

EXIT_GOAL_NOT_MET = 1
EXIT_BOARD = 3
EXIT_PARTIAL = 4

Folder = Annotated[Path, typer.Argument(help="A study's folder (the --out of a search).", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


class FirstUnlessTold(TyperGroup):
    """A group whose ``first`` command is meant when none is named: ``boards study.toml`` is ``boards look study.toml``."""

    first = ""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = bool(args) and (args[0] in self.commands or args[0] == "--help")
        named |= ctx.resilient_parsing and not args  # a shell asks which commands there are
        return super().parse_args(ctx, args if named else [self.first, *args])


def _print_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"edgedeploy {__version__}\n")
        raise typer.Exit


@app.callback()
def whole_command_line(
    context: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what is done, with the time.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Warnings, errors and the result only.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Get a neural network onto the box it must run on, with proof. Options of this list may also follow the command."""
    if verbose and quiet:
        raise SpecError("--verbose and --quiet", "both were given", "Give one of them, or neither")
    loudness.verbose, loudness.quiet = verbose, quiet
    context.with_resource(package_log_shown())
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error: a name may be no Unicode


def print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def print_table(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=escape(title), title_justify="left")
    for header in headers:
        table.add_column(escape(header), overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    Console(width=None if out.is_terminal else 160).print(table)
