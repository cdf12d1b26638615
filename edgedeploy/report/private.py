"""A study file as a report may show it: a report is handed on, and its study file with it."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final

from edgedeploy.spec.public import private_words, published

NOT_READ: Final = "The study file is left out: it cannot be read, so nobody can tell what is private in it."
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def shown(study_text: str) -> str:
    """The study file with the values of :data:`edgedeploy.spec.public.PUBLIC`, and without its author's comments, which may
    say anything; :data:`NOT_READ` for one that is no TOML."""
    try:
        return toml_text(published(tomllib.loads(study_text)))
    except (tomllib.TOMLDecodeError, RecursionError):
        return NOT_READ


def private_in(study_text: str) -> tuple[str, ...]:
    """The words of a study file that are not to be handed on; none of one that cannot be read."""
    try:
        return private_words(tomllib.loads(study_text))
    except (tomllib.TOMLDecodeError, RecursionError):
        return ()


def toml_text(data: Mapping[str, Any]) -> str:
    """Plain keys first, then a table or an array of tables each."""
    lines = [f"{_key(name)} = {_value(value)}" for name, value in data.items() if not _is_table(value)]
    for name, value in data.items():
        for table in value if isinstance(value, list) else [value]:
            if _is_table(value):
                head = f"[[{_key(name)}]]" if isinstance(value, list) else f"[{_key(name)}]"
                lines += ["", head, *(f"{_key(key)} = {_value(item)}" for key, item in table.items())]
    return "\n".join(lines).strip("\n") + "\n"


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        inside = ", ".join(f"{_key(name)} = {_value(item)}" for name, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    return str(value).lower() if isinstance(value, bool) else str(value)
