"""Where in a study or lab file an error is: the file, the line, the key, and the nearest known name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from edgedeploy.errors import SpecError, nearest
from edgedeploy.spec.public import is_public

STUDY_FILE: Final = "study file"


class SpecSource:
    """Where a spec came from: turns a key path into an error that names file, line and key. ``kind`` says what the file
    is. In a key path, places in lists count from 0 in brackets: ``try[0].width``."""

    def __init__(self, path: Path, text: str, kind: str = STUDY_FILE) -> None:
        self.path = path
        self.text = text
        self.kind = kind

    def error(self, key: str, found: str, remedy: str = "") -> SpecError:
        line = line_of(self.text, key)
        where = f"{self.path}:{line}" if line else str(self.path)
        return SpecError(f"{where}: {_short(key_text(key), MOST_KEY)}", _short(found, MOST_FOUND), remedy)


MOST_KEY, MOST_FOUND = 200, 1000
"""Characters of a message that are read: a study file may hold a name of a megabyte."""


def _short(text: str, most: int) -> str:
    """One line of at most so many characters."""
    line = " ".join(text.split("\n"))
    return line if len(line) <= most else f"{line[:most]} ..."


_PLACE: Final = re.compile(r"\[(\d+)\](\.?)")


def key_text(key: str) -> str:
    """A key path for people, who count the entries of a list from 1: ``try number 1, width``."""
    return _PLACE.sub(lambda found: f" number {int(found[1]) + 1}{', ' if found[2] else ''}", key)


def _key_path(location: Sequence[int | str]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")


def line_of(text: str, key: str) -> int | None:
    """1-based line of a key path in TOML text (best effort: tables, arrays of tables, then the leaf's line; of a key in an
    inline table, the line of that table)."""
    found, parent = _own_line(text, key), key.rpartition(".")[0]
    return line_of(text, parent) if found is None and parent else found


def _own_line(text: str, key: str) -> int | None:
    parts = _PLACE.sub(r".\1\2", key).split(".")
    leaf = next((part for part in reversed(parts) if not part.isdigit()), parts[-1])
    before = parts[: parts.index(leaf)]
    tables = [part for part in before if not part.isdigit()]
    wanted = next((int(part) for part in (before if tables else parts) if part.isdigit()), 0)
    header = re.compile(r"^\s*\[+\s*([A-Za-z0-9_.\- ]+?)\s*\]+")
    current, seen, start = "", -1, None
    for number, line in enumerate(text.splitlines(), 1):
        if match := header.match(line):
            current = match.group(1)
            if current == ".".join(tables or [leaf]):
                seen += 1
                if seen == wanted:
                    start = number
        elif (
            current == ".".join(tables) and seen in (wanted, -1) and re.match(rf"^\s*\"?{re.escape(leaf)}\"?\s*=", line)
        ):
            return number
    return start


def first_error(exc: ValidationError, source: SpecSource, model: type[BaseModel], *, public: bool = False) -> SpecError:
    """The first problem as one line, which quotes no private value of a study file; a ``public`` file has none.
    Unknown keys come first, because other problems may follow from them."""
    problems = sorted(exc.errors(), key=lambda item: item["type"] != "extra_forbidden")
    places = [_walked(item["loc"], model)[0] for item in problems]
    first = _deepest(places)
    problem, place = problems[first], places[first]
    here = [item for item, found in zip(problems, places, strict=True) if found == place]
    others = {tuple(found) for found in places if found != place[: len(found)]}
    key = _key_path(place) or "(whole file)"
    more = f" ({len(others)} more after this one)" if others else ""
    if problem["type"] == "extra_forbidden":
        return source.error(key, f"unknown key{more}", nearest(str(place[-1]), _known_keys(place[:-1], model)))
    if problem["type"] == "missing":
        return source.error(key, f"this key is required and missing{more}")
    text = _together([item["msg"].removeprefix("Value error, ") for item in here])
    if problem["type"] == "tuple_type" and len(here) == 1:
        one = isinstance(problem["input"], dict) and isinstance(place[-1], str)
        remedy = f"Write [[{place[-1]}]], once for each" if one else 'Write it in brackets, such as ["a", "b"]'
        return source.error(key, f"{'one table where several may stand' if one else 'expected a list'}{more}", remedy)
    tables = ".".join(part for part in place if isinstance(part, str))
    hidden = isinstance(problem["input"], (dict, list, tuple)) or not (public or is_public(tables, problem["input"]))
    got = "" if hidden or "got" in text else f", but got {problem['input']!r}"
    return source.error(key, f"{text}{got}{more}")


def _deepest(places: Sequence[Sequence[int | str]]) -> int:
    """Which problem to tell: the first, or what lies inside it. Of a list where a text may stand too, both kinds have
    problems, and only that of the list says which entry it is."""
    inside = [number for number, place in enumerate(places) if place[: len(places[0])] == places[0]]
    return max(inside, key=lambda number: (len(places[number]), -number))


_EXPECTED: Final = "Input should be "


def _together(messages: Sequence[str]) -> str:
    """What one value should be, where it may be of several kinds and is of none."""
    if len(messages) < 2 or not all(text.startswith(_EXPECTED) for text in messages):
        return messages[0]
    kinds = dict.fromkeys(text.removeprefix(_EXPECTED).replace("a valid tuple", "a list") for text in messages)
    return f"{_EXPECTED}{' or '.join(kinds)}"


def _walked(location: Sequence[int | str], model: Any) -> tuple[list[int | str], Any]:
    """The location as the file has it, and the type of what is there. Where a value may be of several kinds, pydantic puts
    the name of the kind that it tried into the location, such as ``parameter.str``."""
    place: list[int | str] = []
    kind = model
    for part in location:
        kind = _plain(kind)
        if isinstance(part, int):
            kind = get_args(kind)[0] if get_origin(kind) in (tuple, list) else kind
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            fields = {field.alias or name: field for name, field in kind.model_fields.items()}
            kind = fields[part].annotation if part in fields else None
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
        else:
            continue
        place.append(part)
    return place, _plain(kind)


def _plain(kind: Any) -> Any:
    """The type without what is noted beside it, and without None."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, UnionType):
        members = [member for member in get_args(kind) if member is not type(None)]
        return _plain(members[0]) if len(members) == 1 else kind
    return kind


def _known_keys(location: Sequence[int | str], model: Any) -> list[str]:
    kind = _walked(location, model)[1]
    return [field.alias or name for name, field in kind.model_fields.items()]
