"""``edgedeploy audit``: what a compressed model gives away, and what may sleep in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from edgedeploy.cli.app import EXIT_GOAL_NOT_MET, EXIT_PARTIAL, AsJson, Folder, app, out, print_json
from edgedeploy.cli.older import PickTookAWord
from edgedeploy.cli.options import OfVariant, Pick, pick_or_variant


@app.command(cls=PickTookAWord)
def audit(
    folder: Folder,
    pick: Pick = False,
    variant: OfVariant = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder for it (DIR/audit/DIGEST).", show_default=False)
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="One of residuals, triggers, disagreement, robustness, text, membership; may be given again (all).",
            show_default=False,
        ),
    ] = None,
    minutes: Annotated[float, typer.Option(help="What each part may take at most.")] = 5.0,
    shadows: Annotated[int, typer.Option(help="Shadow models for membership inference: each is a training.")] = 0,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Ask one variant what accuracy does not say.

    Looks for sleeping backdoors, disagreement, disturbed images, text in images and membership inference.

    \b
    Exit code 1 where a sleeping backdoor is found, 4 where the time of a part was over: run it again, whole parts are kept.
    Example: edgedeploy audit runs/cart --pick --minutes 5
    """
    from edgedeploy.diagnose.audit.run import audit as make
    from edgedeploy.study.bundle.choice import PICK

    def tell(line: str) -> None:
        if not as_json:
            out.print(escape(line), highlight=False)

    wanted = pick_or_variant(pick, variant) or PICK
    made = make(folder, wanted, out=out_folder, only=only or (), minutes=minutes, shadows=shadows, seed=seed, tell=tell)
    if as_json:
        print_json(made.as_json())
    else:
        out.print(
            escape(f"{made.verdict} What each part cannot show stands beside it: {made.folder / 'audit.md'}"),
            highlight=False,
        )
    if made.plant:
        raise typer.Exit(EXIT_GOAL_NOT_MET)
    if made.incomplete:
        raise typer.Exit(EXIT_PARTIAL)
