"""Where in a study or lab file an error is: the file, the line, the key, and the nearest known name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

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
    """1-based line of a key path in TOML text (best effort: tables, arrays of tables, then the leaf's line)."""
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
    problem = problems[0]
    key = _key_path(problem["loc"]) or "(whole file)"
    more = f" ({len(problems) - 1} more after this one)" if len(problems) > 1 else ""
    if problem["type"] == "extra_forbidden":
        return source.error(
            key, f"unknown key{more}", nearest(str(problem["loc"][-1]), _known_keys(problem["loc"][:-1], model))
        )
    if problem["type"] == "missing":
        return source.error(key, f"this key is required and missing{more}")
    text = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "tuple_type":
        one = isinstance(problem["input"], dict) and isinstance(problem["loc"][-1], str)
        remedy = f"Write [[{problem['loc'][-1]}]], once for each" if one else 'Write it in brackets, such as ["a", "b"]'
        return source.error(key, f"{'one table where several may stand' if one else 'expected a list'}{more}", remedy)
    tables = ".".join(part for part in problem["loc"] if isinstance(part, str))
    hidden = isinstance(problem["input"], (dict, list)) or not (public or is_public(tables, problem["input"]))
    got = "" if hidden or "got" in text else f", but got {problem['input']!r}"
    return source.error(key, f"{text}{got}{more}")


def _known_keys(location: Sequence[int | str], model: Any) -> list[str]:
    for part in location:
        if isinstance(part, int):
            continue
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        annotation = fields[part].annotation
        model = annotation if isinstance(annotation, type) else annotation.__args__[0]
    return [field.alias or name for name, field in model.model_fields.items()]
