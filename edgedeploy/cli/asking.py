"""What ``edgedeploy init`` asks on a terminal: each answer is checked as it is given, and asked for again until it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import typer

from edgedeploy.cli.loudness import print_line
from edgedeploy.cli.options import board_named, images_table
from edgedeploy.errors import BoardError, DataError, EdgeDeployError, SpecError
from edgedeploy.files.homes import with_home
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.spec.boards import BoardTable
from edgedeploy.study.beginning import (
    Beginning,
    check_board,
    check_data,
    check_images,
    check_model,
    check_task,
    holds_images,
    known_shapes,
    open_shape,
    targets_of,
)
from edgedeploy.study.oneshot.desk import parse_shapes

T = TypeVar("T")
USUAL_BOARD: Final = "local"
IMAGES: Final = {
    "colour": ("Order of the model's channels (rgb, bgr, grey)", "rgb"),
    "mean": ("Mean that is subtracted from pixels of 0 to 255", "0"),
    "std": ("What they are divided by then", "255"),
}


def ask_for_missing(given: Beginning, python: str | None) -> Beginning:
    """``given`` with what it lacks. What was given is checked before the first question, and raises; what is asked is asked
    again until it holds. ``python`` is the interpreter on the board."""
    targets_of(given)
    if given.task is None:
        given = _with_cases(_with_model(given))
    else:
        check_task(given)
    return given if given.board else replace(given, board=_ask_board(given, python))


def _with_model(given: Beginning) -> Beginning:
    if given.model is None:
        given = replace(given, model=_ask("Model (.onnx file)", _sound_model))
    assert given.model is not None
    check_model(given.model)
    return replace(given, shapes=_ask_shapes(given.model, given.shapes))


def _with_cases(given: Beginning) -> Beginning:
    """The folder and how its images are read: together they make inputs, so together they are asked again."""
    assert given.model is not None
    _, inputs = known_shapes(given.model, given.shapes)
    asked, table = given, dict(given.images or {})
    while True:
        if given.data is None:
            usual = str(asked.data) if asked.data and table else None  # what fits may be the answers on images
            place = _ask("Folder with inputs (images, .npy or .npz)", partial(_sound_data, inputs), usual)
            asked = replace(asked, data=place)
        if given.images is None and asked.data is not None and holds_images(asked.data):
            check_data(asked.data, inputs)
            table = _ask_images(inputs, table)
            asked = replace(asked, images=table)
        try:
            check_task(asked)
        except (SpecError, DataError) as exc:
            if given.data is not None:
                raise
            print_line(str(exc))
            asked = replace(asked, images=given.images)
        else:
            return asked


def _ask_images(inputs: Sequence[TensorSpec], before: Mapping[str, Any]) -> dict[str, Any]:
    """The table of how images become inputs, key by key; ``before`` is what was answered last."""
    table: dict[str, Any] = {}
    for key, (question, first) in IMAGES.items():
        last = before.get(key, first)
        usual = last if isinstance(last, str) else ",".join(f"{number:g}" for number in last)
        table = _ask(question, partial(_with_image_key, inputs, table, key), usual)
    return table


def _with_image_key(inputs: Sequence[TensorSpec], table: Mapping[str, Any], key: str, answer: str) -> dict[str, Any]:
    """``table`` with the answer. Keys that are still to be asked have what fits every model."""
    words = {"colour": "rgb", "mean": "0", "std": "1", key: answer}
    found = images_table(words["colour"], words["mean"], words["std"])
    assert found is not None
    known = {**table, key: found[key]}
    check_images({**found, **known}, inputs)
    return known


def _ask_shapes(model: Path, given: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """The shapes that were given, and those that have to be asked because the model leaves them open."""
    shapes = {name: tuple(shape) for name, shape in given.items()}
    while (left_open := open_shape(model, shapes)) is not None:
        print_line(str(left_open))
        shapes = _ask("Shape, such as image=1,3,320,320", partial(_with_shape, model, shapes))
    return shapes


def _with_shape(model: Path, shapes: Mapping[str, tuple[int, ...]], answer: str) -> dict[str, tuple[int, ...]]:
    told = {**shapes, **parse_shapes([answer])}
    open_shape(model, told)  # raises for a shape that is not the model's
    return told


def _ask_board(given: Beginning, python: str | None) -> BoardTable:
    """A board that answers, or that the user names twice: it may not be switched on yet."""
    usual, unheard = USUAL_BOARD, ""
    while True:
        word, table = _ask("Board (local, user@host, emulated:arm64)", lambda word: (word, _table(word, python)), usual)
        if word in (USUAL_BOARD, unheard):  # this host is looked at with the whole study
            return table
        try:
            check_board(table, given)
        except BoardError as exc:
            print_line(f"{exc}. To take it as it is, name it again")
            usual = unheard = word
        except EdgeDeployError as exc:
            print_line(str(exc))
        else:
            return table


def _table(word: str, python: str | None) -> BoardTable:
    table: BoardTable = board_named(word, None, python)
    return table


def _sound_model(answer: str) -> Path:
    path = with_home(answer)
    check_model(path)
    return path


def _sound_data(inputs: Sequence[TensorSpec], answer: str) -> Path:
    path = with_home(answer)
    check_data(path, inputs)
    return path


def _ask(question: str, sound: Callable[[str], T], usual: str | None = None) -> T:
    """What ``sound`` makes of the first answer that it does not refuse with an ``EdgeDeployError``."""
    while True:
        answer = str(typer.prompt(question, default=usual, err=True)).strip()
        try:
            return sound(answer)
        except EdgeDeployError as exc:
            print_line(str(exc))
