"""Commands that a study begins with: a study file for one's own model, and the files that ship."""

from __future__ import annotations

import os
import sys
from importlib import resources
from importlib.abc import Traversable
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer
from rich.markup import escape

from edgedeploy.cli.app import app, out, print_json
from edgedeploy.cli.loudness import print_line, say
from edgedeploy.cli.options import (
    BoardPython,
    BoardWord,
    Colour,
    Mean,
    OwnTask,
    Page,
    Shapes,
    Std,
    ValueRange,
    board_named,
    complete_target,
    images_table,
)
from edgedeploy.errors import BoardError, DataError, SpecError, nearest
from edgedeploy.files import place_told, write_new

TASK_FILE = "my_task.py"
OF_PYTHON = {"study.toml": "python.toml", TASK_FILE: "my_task.py.txt"}
"""Files of the recipe ``python`` by the name that they are to have."""


@app.command()
def init(
    model: Annotated[
        Path | None, typer.Option(help="An .onnx file, or a checkpoint with --task.", show_default=False)
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of images, .npy or .npz files, or of folders named by split; for .onnx.", show_default=False
        ),
    ] = None,
    board: BoardWord = None,
    task: OwnTask = None,
    out_file: Annotated[Path, typer.Option("--out", help="Study file to write.")] = Path("study.toml"),
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Runtime to build for; may be given again (those installed).", autocompletion=complete_target
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the study (the model's).", show_default=False)] = "",
    colour: Colour = None,
    mean: Mean = None,
    std: Std = None,
    value_range: ValueRange = None,
    page: Page = None,
    shape: Shapes = None,
    board_python: BoardPython = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Write a study file for a model, its data and a board. What is not given is asked on a terminal.

    \b
    Example: edgedeploy init --model unet.onnx --data images/ --colour grey --mean 0 --std 255 --board edge@cart-3.lab
    """
    from edgedeploy.study.beginning import Beginning
    from edgedeploy.study.oneshot.desk import parse_shapes

    if out_file.exists() and not force:
        raise SpecError(f"--out {out_file}", "it exists already", "Add --force to replace it, or choose another path")
    made_of = Beginning(
        out=out_file,
        board=None if board is None else board_named(board, None, board_python),
        model=model,
        data=data,
        task=task,
        name=name,
        targets=tuple(target or ()),
        images=images_table(colour, mean, std, value_range, page),
        shapes=parse_shapes(shape or []),
    )
    if _on_terminal():
        from edgedeploy.cli.asking import ask_for_missing

        made_of = ask_for_missing(made_of, board_python)
    _write_checked(made_of)
    out.print(f"Study file: {escape(str(out_file))}", highlight=False)
    command = f"edgedeploy search {quote(str(out_file))} --out {quote(f'runs/{out_file.stem}')}"
    out.print(f"Next: {escape(command)}", highlight=False)


def _write_checked(made_of: Any) -> None:
    """Write the study file if everything but the board is in order; a board that does not answer is said."""
    from edgedeploy.api import Study
    from edgedeploy.spec.study import parse_spec
    from edgedeploy.study.beginning import study_text, written
    from edgedeploy.study.oneshot.model import for_command

    text = study_text(made_of)
    with written(made_of.out, text):
        try:
            info = Study(*parse_spec(text, made_of.out)).check()  # under the name that the user gave
        except (SpecError, DataError) as exc:
            raise (for_command(exc, made_of.data, "--data") if made_of.data else exc) from None
        except BoardError as exc:
            print_line(f"The study file is in order. Its board does not answer yet: {exc}")
        else:
            say(f"Board {info.name}: {info.cpu}, {info.cores} cores, runtimes {', '.join(info.runtimes)}.")


def _on_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def _complete_recipe(incomplete: str) -> list[str]:
    return sorted(name for name in _recipes() if name.startswith(incomplete))


@app.command()
def recipe(
    name: Annotated[
        str | None,
        typer.Argument(
            help="demo, onnx, python, my_task.py, ...",
            show_default=False,
            autocompletion=_complete_recipe,
        ),
    ] = None,
    within: Annotated[
        str | None, typer.Option(help="Fit the demo to this host: time that it may take, such as '17 min'.")
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Write the recipe's files into this folder.", show_default=False)
    ] = None,
) -> None:
    """Print a study file that ships; without a name, list them. `python` comes with a task file.

    \b
    Example: edgedeploy recipe python --out my-study
    """
    files = _recipes()
    if name is None:
        sys.stdout.write("\n".join(sorted(files)) + "\n")
        return
    if name not in files:
        raise SpecError(f"recipe {name!r}", "there is none of that name", nearest(name, files))
    text = files[name].read_text(encoding="utf-8")
    if within is not None:
        text = _fitted(name, text, within)
    if out_folder is None:
        sys.stdout.write(text)
        if name == "python":
            say(f"Its task: edgedeploy recipe {TASK_FILE}; or --out FOLDER writes both.")
        return
    both = {shown: files[shown if shown == TASK_FILE else name].read_text("utf-8") for shown in OF_PYTHON}
    _write_files(out_folder, both if name in ("python", TASK_FILE) else {"study.toml": text})


def _recipes() -> dict[str, Traversable]:
    found = {path.name: path for path in resources.files("edgedeploy.study.recipes").iterdir()}
    studies = {name.removesuffix(".toml"): path for name, path in found.items() if name.endswith(".toml")}
    return {**studies, TASK_FILE: found[OF_PYTHON[TASK_FILE]]}


def _fitted(name: str, text: str, within: str) -> str:
    from edgedeploy.diagnose.fitting import fit_recipe
    from edgedeploy.records.units import parse_quantity

    try:
        within_s = parse_quantity(within, "s")
    except ValueError as exc:
        raise SpecError("--within", str(exc)) from None
    text, said = fit_recipe(name, text, within_s)
    say(f"Fitted to this host: {said}.")
    return text


def _write_files(folder: Path, files: dict[str, str]) -> None:
    there = [name for name in files if os.path.lexists(folder / name)]
    if there:
        raise SpecError(f"--out {folder}", f"{there[0]} is there already", "Choose another folder")
    for name, text in files.items():
        with place_told(folder / name):
            write_new(folder / name, text.encode())  # through no link
        out.print(escape(str(folder / name)), highlight=False)


@app.command()
def schema(
    lab: Annotated[bool, typer.Option("--lab", help="Of lab files, for `edgedeploy nightly`.")] = False,
) -> None:
    """Print the JSON schema of study files. Editors complete and check by it where a study file begins with
    `#:schema ./study.schema.json`.

    \b
    Example: edgedeploy schema > study.schema.json
    """
    from edgedeploy.spec.schema import lab_schema, study_schema

    print_json(lab_schema() if lab else study_schema())
