"""Commands that run a study: the search, and a board that is offered to a cluster."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgedeploy.cli.app import EXIT_GOAL_NOT_MET, EXIT_PARTIAL, app
from edgedeploy.cli.loudness import print_line, say
from edgedeploy.cli.watch import Watch

if TYPE_CHECKING:
    from edgedeploy.api import StudyResult


@app.command()
def search(
    study: Annotated[Path, typer.Argument(help="Study file (TOML).", show_default=False)],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder of the study.", show_default=False)],
    trials: Annotated[int | None, typer.Option(min=1, help="Variants to evaluate, instead of the file's.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what the folder holds.")] = False,
    task_changed: Annotated[
        bool, typer.Option("--task-changed", help="Resume although the task's files changed; the report says so.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="With --resume: try variants again that are stored as failed.")
    ] = False,
    board: Annotated[str | None, typer.Option(help="Board of the study file to measure on (the first one).")] = None,
    boards: Annotated[
        str | None, typer.Option(help="Several boards of one kind that share the work: a,b,c.", show_default=False)
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="PostgreSQL URL for the history of proposals.", show_default=False)
    ] = None,
    dask: Annotated[
        str | None, typer.Option(help="Dask scheduler whose workers have the boards.", show_default=False)
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option(help="Log the variants to MLflow there: sqlite:///mlflow.db.", show_default=False)
    ] = None,
    no_confirm: Annotated[bool, typer.Option("--no-confirm", help="Leave the confirmation split closed.")] = False,
) -> None:
    """Search, measure and keep. Ctrl-C leaves a folder that --resume goes on with.

    \b
    Example: edgedeploy search study.toml --out runs/cart --board cart
    """
    from edgedeploy.api import load_study
    from edgedeploy.cli.show import show_front
    from edgedeploy.study.options import RunOptions

    options = RunOptions(
        out=out_folder,
        trials=trials,
        resume=resume,
        task_changed=task_changed,
        retry_failed=retry_failed,
        board=board,
        boards=() if boards is None else tuple(name.strip() for name in boards.split(",")),
        storage=storage,
        dask=dask,
        mlflow=mlflow,
        confirm=not no_confirm,
    )
    try:
        with Watch() as watch:
            result = load_study(study).run(options, observer=watch)
    except KeyboardInterrupt:
        print_line(f"Interrupted. {out_folder} is usable as it is; --resume goes on.")
        raise typer.Exit(EXIT_PARTIAL) from None
    _tell_end(result, study, out_folder)
    show_front(out_folder, as_json=False, none=EXIT_PARTIAL if result.partial else EXIT_GOAL_NOT_MET)


def _tell_end(result: StudyResult, study: Path, out_folder: Path) -> None:
    say(f"{result.evaluated} variants evaluated; ended because of: {result.reason}.")
    if result.reason == "wall_clock":
        missing = f"{result.wanted - result.evaluated} of {result.wanted} variants are missing: the time is over"
        cut = f" ({result.cut})" if result.cut else ""
        again = f"{shlex.quote(str(study))} --out {shlex.quote(str(out_folder))} --resume"
        print_line(f"{missing}{cut}. Go on: edgedeploy search {again}")


@app.command()
def work(
    study: Annotated[Path, typer.Argument(help="Study or lab file that describes the board.", show_default=False)],
    board: Annotated[str, typer.Option(help="The board that this process has.", show_default=False)],
    dask: Annotated[str, typer.Option(help="Address of the Dask scheduler: tcp://host:8786.", show_default=False)],
) -> None:
    """Offer one board to a Dask cluster. The scheduler or Ctrl-C ends it; `search --dask` and `nightly --dask`
    measure on it.

    \b
    Example: edgedeploy work study.toml --board cart --dask tcp://lab-host:8786
    """
    from edgedeploy.lab.cluster import work as serve
    from edgedeploy.spec.lab import board_in

    serve(board_in(study, board).model_dump(), dask)
