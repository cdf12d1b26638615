"""Options that several commands have, and what their words stand for."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer

from edgedeploy.errors import SpecError

PRECISIONS = ("int8", "int8-dynamic", "float16", "bfloat16", "int8-weights", "int4-weights", "float32")
COLOURS = ("rgb", "bgr", "grey")


def complete_target(incomplete: str) -> list[str]:
    """Names of all installed targets, of other packages too; nothing of them is imported."""
    names = {entry.name for entry in entry_points(group="edgedeploy.targets")}
    return sorted(name for name in names if name.startswith(incomplete))


def complete_board(incomplete: str) -> list[str]:
    """Words that need no study file."""
    from edgedeploy.spec.boards import EMULATED_WORD, MACHINES

    words = ("local", "none", "emulated", *(f"{EMULATED_WORD}{machine}" for machine in MACHINES))
    return [word for word in words if word.startswith(incomplete)]


def complete_precision(incomplete: str) -> list[str]:
    return [name for name in PRECISIONS if name.startswith(incomplete)]


def complete_colour(incomplete: str) -> list[str]:
    return [name for name in COLOURS if name.startswith(incomplete)]


OutFolder = Annotated[Path, typer.Option("--out", help="New folder for the artifact.", show_default=False)]
OwnTask = Annotated[
    str | None,
    typer.Option("--task", help="Your own task, file.py:factory, instead of an .onnx file.", show_default=False),
]
BoardWord = Annotated[
    str | None,
    typer.Option(
        "--board",
        help="Such as local, user@host, emulated:arm64.",
        show_default=False,
        autocompletion=complete_board,
    ),
]
BuiltFor = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        help="What an .onnx file is built for, one target (onnxruntime).",
        show_default=False,
        autocompletion=complete_target,
    ),
]
BuiltIn = Annotated[
    str,
    typer.Option(
        "--precision",
        help="int8, int8-dynamic, float16, bfloat16, int8-weights, int4-weights, float32: what the target builds.",
        autocompletion=complete_precision,
    ),
]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        help="Shape of an input that the model leaves open: image=1,3,320,320; may be given again.",
        show_default=False,
    ),
]
Colour = Annotated[
    str | None,
    typer.Option(
        help="Order of the model's channels, for images: rgb, bgr or grey.",
        show_default=False,
        autocompletion=complete_colour,
    ),
]
Mean = Annotated[
    str | None, typer.Option(help="Subtracted from pixels of 0 to 255: one number, or one per channel: 124,116,104.")
]
Std = Annotated[str | None, typer.Option(help="What pixels are divided by after that, as --mean.")]
ValueRange = Annotated[
    str | None,
    typer.Option(
        help="Values of image files that are black and white, such as 0,4095; raw, or window for DICOM.",
        show_default=False,
    ),
]
Page = Annotated[
    int | None, typer.Option(min=1, help="Page of image files that have several, from 1.", show_default=False)
]
StudyFile = Annotated[
    Path | None,
    typer.Option(
        "--study", help="Study file that describes the board; --board is then its name there.", show_default=False
    ),
]
BoardPython = Annotated[
    str | None, typer.Option("--board-python", help="Python on the board (python3).", show_default=False)
]


def one_target(named: list[str]) -> str:
    """The target of a command that builds one artifact. Raises ``SpecError`` where several are named: the last one would be
    built, and the others be missed."""
    if len(named) > 1:
        asked = " ".join(f"--target {name}" for name in named)
        raise SpecError(asked, "one artifact is for one target", "Name one, and run the command once for each")
    return named[0]


Pick = Annotated[bool, typer.Option("--pick", help="The study's pick.")]
OfVariant = Annotated[
    str | None,
    typer.Option("--variant", help="Digest of a measured variant (its beginning; `front --json`).", show_default=False),
]


def pick_or_variant(pick: bool, variant: str | None) -> str | None:
    """The variant that is named, None for the study's pick. Raises ``SpecError`` where both are asked for, or neither."""
    if pick == (variant is not None):
        given = "both were given" if pick else "neither was given"
        raise SpecError("--pick and --variant", given, "Give --pick, or --variant with a digest of `front --json`")
    return variant


def board_named(word: str | None, study: Path | None, python: str | None) -> Any:
    """The table of the board. Raises ``SpecError`` where none is named."""
    from edgedeploy.spec.boards import board_of_word
    from edgedeploy.spec.study import load_spec

    if study is not None:
        if python is not None:
            raise SpecError("--board-python", "--study names the board's Python", "Write it into the study file")
        return load_spec(study)[0].board(word)
    if word is None:
        raise SpecError("--board", "it is missing", "Name one, such as --board local or --board user@host")
    return board_of_word(word, python)


def images_table(
    colour: str | None, mean: str | None, std: str | None, value_range: str | None = None, page: int | None = None
) -> dict[str, Any] | None:
    """The table of a study file that says how images become inputs; None where none of the options was given."""
    given = {"colour": colour, "mean": mean, "std": std}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if len(missing) == len(given) and value_range is None and page is None:
        return None
    if missing:
        example = "For example --colour rgb --mean 0 --std 255"
        raise SpecError(
            "--colour, --mean and --std", f"{', '.join(missing)} is not given", f"Give all three. {example}"
        )
    table: dict[str, Any] = {
        "colour": colour,
        "mean": _numbers("--mean", str(mean)),
        "std": _numbers("--std", str(std)),
    }
    if value_range is not None:
        words = value_range in ("raw", "window")
        table["value_range"] = value_range if words else _numbers("--value-range", value_range)
    return table if page is None else {**table, "page": page}


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        found = f"got {text!r}"
        raise SpecError(option, found, "One number, or one per channel: 123.7,116.3,103.5") from None
