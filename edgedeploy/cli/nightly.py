"""``edgedeploy nightly``: what is shipped, measured on its boards, and what changed since it was accepted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from edgedeploy.cli.app import EXIT_PARTIAL, AsJson, FirstUnlessTold, app, out, print_json, print_table
from edgedeploy.cli.loudness import print_line
from edgedeploy.cli.watch import Watch, duration

if TYPE_CHECKING:
    from edgedeploy.nightly.night import Forecast

LabFile = Annotated[Path, typer.Argument(metavar="LAB", help="Lab file (TOML).", show_default=False)]


class RunsUnlessTold(FirstUnlessTold):
    """``nightly lab.toml`` is ``nightly run lab.toml``."""

    first = "run"


nightly = typer.Typer(
    cls=RunsUnlessTold,
    rich_markup_mode=None,
    help="""Measure what is shipped on its boards, night by night.

    Without a command it runs one: `edgedeploy nightly lab.toml --dry-run` is `edgedeploy nightly run lab.toml --dry-run`.
    """,
)
app.add_typer(nightly, name="nightly")


@nightly.command()
def run(
    lab: LabFile,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run, where and for how long: no board is touched.")
    ] = False,
    night: Annotated[
        str,
        typer.Option(
            help="The day (UTC) that the night began on, to go on with an older one.",
            show_default=False,
        ),
    ] = "",
    dask: Annotated[
        str | None,
        typer.Option(
            help="Address of a Dask scheduler whose workers have the boards (`edgedeploy work`).", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure every entry of a lab beside its frozen baseline. It keeps inside the budget; a night that was cut off goes on.

    Exits 0 when nothing became worse, 1 for a regression or a changed artifact, 3 for boards or this host, 4 when the budget
    was not enough.

    \b
    Example: edgedeploy nightly lab.toml
    """
    from edgedeploy.nightly.cluster import parts_of
    from edgedeploy.nightly.night import forecast, run_night
    from edgedeploy.nightly.place import Lab

    loaded = Lab.load(lab)
    if dry_run:
        found = forecast(loaded, night)
        if as_json:
            print_json(found.as_json())
        else:
            _show(found)
        return
    try:
        with Watch("sessions") as watch, parts_of(dask) as parts:
            written = run_night(loaded, night, observer=watch, parts=parts, idle=dask is None)
    except KeyboardInterrupt:
        print_line("Interrupted. What was measured is kept; the same command goes on.")
        raise typer.Exit(EXIT_PARTIAL) from None
    if as_json:
        print_json(written.night.as_json())
    else:
        for line in written.lines():
            out.print(escape(line), highlight=False)
    raise typer.Exit(written.exit_code)


@nightly.command()
def accept(
    lab: LabFile,
    entry: Annotated[str, typer.Argument(metavar="ID", help="The entry's id in the lab file.", show_default=False)],
    why: Annotated[str, typer.Option(help="Why what is shipped now is right: it is logged.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Hold an entry against what it ships now, from tonight on. Nothing else ever moves what it is held against.

    \b
    Example: edgedeploy nightly accept lab.toml thyroid --why "release 4: new calibration, agreed with the clinic"
    """
    from edgedeploy.nightly.accept import accept as move
    from edgedeploy.nightly.place import Lab

    found = move(Lab.load(lab), entry, why)
    if as_json:
        print_json(found.as_json())
        return
    was = f"instead of {found.was}" if found.was else "for the first time"
    was = "again: it is the same as before, and its history begins anew" if found.was == found.now else was
    out.print(escape(f"{found.entry}: {found.now} is accepted {was} (number {found.number}, {found.who})"))


def _show(found: Forecast) -> None:
    rows = [
        (
            turn.pair.board,
            duration(turn.begins_s),
            turn.pair.entry,
            str(turn.pair.sessions),
            duration(turn.pair.expected_s),
        )
        for turn in sorted(found.planned.turns, key=lambda turn: (turn.begins_s, turn.pair.board))
    ]
    title = (
        f"{found.lab}, night {found.night}: {duration(found.planned.ends_s)} of {duration(found.left_s)} that are left"
    )
    print_table(title, ("Board", "Begins after", "Entry", "Sessions", "Takes about"), rows)
    for pair, why in found.planned.left_out.items():
        out.print(escape(f"Not run: {pair.entry} on {pair.board}: {why}"), highlight=False)
    if found.done:
        out.print(f"{found.done} sessions of this night are measured already.", highlight=False)
