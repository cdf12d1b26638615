"""Commands that look at what is here: targets, boards, this host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from edgedeploy.cli.app import EXIT_BOARD, EXIT_PARTIAL, AsJson, FirstUnlessTold, app, out, print_json, print_table
from edgedeploy.cli.loudness import print_line, say


@app.command()
def targets(as_json: AsJson = False) -> None:
    """Backend toolchains: which work here, and what mends the others.

    \b
    Example: edgedeploy targets --json
    """
    from edgedeploy.diagnose.doctor import target_findings

    _show_findings("Targets", target_findings, as_json)


class LooksUnlessTold(FirstUnlessTold):
    """``boards study.toml`` is ``boards look study.toml``."""

    first = "look"


boards = typer.Typer(cls=LooksUnlessTold, rich_markup_mode=None, help="Look at boards, or create an emulated one.")
app.add_typer(boards, name="boards")


@boards.command()
def create(
    machine: Annotated[str, typer.Argument(help="arm64, arm64-system or x86-avx2.", show_default=False)],
) -> None:
    """Make an emulated processor ready on this host. An Arm board's image is built once (root; downloads packages).

    \b
    Example: edgedeploy boards create arm64
    """
    from edgedeploy.boards.creating import create as make

    try:
        make(machine, say)
    except KeyboardInterrupt:
        print_line("Interrupted: nothing half-built was kept.")
        raise typer.Exit(EXIT_PARTIAL) from None
    out.print(f'Ready: [[boards]] kind = "emulated:{machine}"', highlight=False, markup=False)


@boards.command()
def look(
    study: Annotated[
        Path | None, typer.Argument(help="Study file whose boards to look at.", show_default=False)
    ] = None,
    catalog: Annotated[bool, typer.Option("--catalog", help="Describe the kinds of board that are known.")] = False,
    as_json: AsJson = False,
    lift: Annotated[str | None, typer.Option(help="Take this board out of quarantine.", show_default=False)] = None,
) -> None:
    """Reach each board of a study file, and say what it is. Without a file, those that need none.

    \b
    Example: edgedeploy boards study.toml
    """
    if catalog:
        _show_catalog(as_json)
        return
    if lift is not None:
        from edgedeploy.boards.care.quarantine import Quarantine

        for record in Quarantine().lift(lift):
            out.print(escape(f"{record.name} is free again; it was set aside for: {record.cause}"), highlight=False)
        return
    from edgedeploy.diagnose.doctor import DEFAULT_BOARDS, board_findings
    from edgedeploy.spec.study import load_spec

    tables = DEFAULT_BOARDS if study is None else load_spec(study)[0].boards
    _show_findings("Boards", lambda: board_findings(tables), as_json)


def _show_catalog(as_json: bool) -> None:
    from edgedeploy.boards.catalog import load_catalog

    found = load_catalog()
    if as_json:
        print_json([board.as_json() for board in found])
        return
    for board in found:
        rows = [[kind, text, board.sources[source]] for kind, text, source in board.lines()]
        print_table(f"{board.id}: {board.name}", ["what", "fact", "source"], rows)


@app.command()
def doctor(
    study: Annotated[
        Path | None, typer.Argument(help="Study file that describes the board.", show_default=False)
    ] = None,
    board: Annotated[str | None, typer.Option(help="Look at this board alone.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Everything a study needs on this host and its boards. Of each board, which precisions are worth trying.

    \b
    Example: edgedeploy doctor study.toml --board cart
    """
    from edgedeploy.diagnose.doctor import (
        DEFAULT_BOARDS,
        board_findings,
        choose_boards,
        machine_findings,
        study_findings,
        target_findings,
        warm_start_findings,
    )
    from edgedeploy.spec.study import load_spec

    spec, source = (None, None) if study is None else load_spec(study)
    tables = DEFAULT_BOARDS if spec is None else spec.boards
    if board is not None:
        chosen = choose_boards(tables, board)
        _show_findings("Doctor", lambda: board_findings(chosen), as_json)
        return

    def look() -> list[Any]:
        of_study = [] if spec is None else study_findings(spec.task.model_dump(), spec.space)
        of_study += [] if spec is None or source is None else warm_start_findings(spec, source)
        return [*machine_findings(), *of_study, *target_findings(), *board_findings(tables)]

    _show_findings("Doctor", look, as_json)


def _show_findings(title: str, look: Callable[[], Sequence[Any]], as_json: bool) -> None:
    findings = look()
    if as_json:
        print_json([finding.as_json() for finding in findings])
    else:
        marks = {True: "ok", False: "MISSING", None: "-"}
        rows = [[finding.what, marks[finding.ok], finding.found, finding.remedy] for finding in findings]
        print_table(title, ["what", "", "found", "what to do"], rows)
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(EXIT_BOARD)
