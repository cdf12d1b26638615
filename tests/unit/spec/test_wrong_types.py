"""A value of a wrong type is refused at its own key, in words of the file: TOML has types, and pydantic's are not its."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from edgedeploy.spec.lab import LabSpec
from edgedeploy.spec.source import SpecSource, first_error, key_text
from edgedeploy.spec.study import StudySpec

DEMO = (resources.files("edgedeploy.study.recipes") / "demo.toml").read_text(encoding="utf-8")
LAB = (
    '[lab]\nname = "a"\n[[boards]]\nname = "b"\nkind = "local"\n[[entries]]\nid = "c"\nstudy = "d"\n'
    '[[idle.studies]]\nfile = "e"\nout = "f"\nboard = "b"\n'
)
WHOLE: dict[type[BaseModel], dict[str, Any]] = {StudySpec: tomllib.loads(DEMO), LabSpec: tomllib.loads(LAB)}
EXTRA = '[[only]]\nparameter = "width"\nwhen = { precision = "int8" }\n'


def bare(kind: Any) -> Any:
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    members = [member for member in get_args(kind) if member is not type(None)]
    return bare(members[0]) if type(None) in get_args(kind) and len(members) == 1 else kind


def keys_of(table: type[BaseModel], at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    for name, field in table.model_fields.items():
        place, kind = (*at, field.alias or name), bare(field.annotation)
        inner = bare(get_args(kind)[0]) if get_origin(kind) is tuple else None
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            place, kind = (*place, 0), inner
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys_of(kind, place)
        else:
            yield place
        if name == "only":
            yield (*place, "when", "width")


KEYS = [(spec, key) for spec in WHOLE for key in keys_of(spec)]


def told(spec: type[BaseModel], key: tuple[str | int, ...], value: Any) -> str | None:
    """What is said where ``key`` is ``value``, None where nothing is."""
    data: Any = tomllib.loads(DEMO + EXTRA) if spec is StudySpec else tomllib.loads(LAB)
    here = data
    for part, following in pairwise(key):
        here = here.setdefault(part, [{}] if following == 0 else {}) if isinstance(part, str) else here[part]
    here[key[-1]] = value
    try:
        spec.model_validate(data)
    except ValidationError as exc:
        return str(first_error(exc, SpecSource(Path("study.toml"), ""), spec, public=True))
    return None


@pytest.mark.parametrize("value", [{"wrong": [{}]}, [[[]]], True], ids=["table", "lists", "boolean"])
@pytest.mark.parametrize(("spec", "key"), KEYS, ids=[".".join(map(str, key)) for _, key in KEYS])
def test_every_key_is_named_as_the_file_has_it(spec: type[BaseModel], key: tuple[str | int, ...], value: Any) -> None:
    text = told(spec, key, value)
    if text is None:  # options of a task and plans are open; true is a value that many keys have
        assert key == ("task", "options") or value is True
        return
    written = key_text("".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).removeprefix("."))
    start = f"study.toml: {written}"
    if text.startswith("study.toml: (whole file)"):  # a rule of several keys came first
        return
    assert text.startswith(start), text
    rest = text.removeprefix(start).partition(":")[0]
    assert not rest.replace(", wrong", "").replace(".wrong", "").replace(" number 1", ""), text


def test_a_value_of_several_kinds_says_all_of_them() -> None:
    """It was `parameter.str: expected a text`."""
    assert told(StudySpec, ("only", 0, "parameter"), 1) == (
        "study.toml: only number 1, parameter: Input should be a valid string or a list, but got 1"
    )
    entry = told(StudySpec, ("only", 0, "parameter"), ["width", 1]) or ""
    assert entry.startswith("study.toml: only number 1, parameter number 2: Input should be a valid string")


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        (("search", "more_boards"), 1, "Input should be a valid boolean, but got 1"),
        (("search", "more_boards"), "true", "Input should be a valid boolean, but got 'true'"),
        (("search", "stop_gain"), "0.1", "Input should be a valid number, but got '0.1'"),
        (("search", "stop_gain"), True, "Input should be a valid number, but got True"),
        (("budget", "trials"), "9", "Input should be a valid integer, but got '9'"),
        (("budget", "trials"), 9.0, "Input should be a valid integer, but got 9.0"),
        (("constraints", 0, "at_most"), True, "Input should be a valid number or a valid string, but got True"),
    ],
)
def test_a_number_is_no_text_and_a_boolean_no_number(key: tuple[str | int, ...], value: Any, found: str) -> None:
    assert (told(StudySpec, key, value) or "").endswith(f": {found}")


def test_a_whole_number_is_a_number_and_texts_have_units() -> None:
    assert told(StudySpec, ("search", "stop_gain"), 0) is None
    assert told(StudySpec, ("budget", "wall_clock"), "3 h") is None
