"""The TOML of a study or lab file as plain data, within limits: whoever wrote it may be anybody."""

from __future__ import annotations

import math
import stat
import tomllib
from collections.abc import Iterator
from datetime import date, time
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import SpecError
from edgedeploy.spec.source import STUDY_FILE, SpecSource

MOST_DEPTH: Final = 16
"""Tables and arrays inside one another: a task's options, the deepest there are, have six."""

LARGEST: Final = 2**63
"""TOML's whole numbers are those of 64 bits."""


MAX_SPEC_BYTES: Final = 1 << 20


def read_file(path: Path, kind: str = STUDY_FILE, missing: str = "Check its path") -> str:
    """The text of a spec of at most :data:`MAX_SPEC_BYTES`. Raises ``SpecError``, with ``missing`` as the remedy where there
    is no such file."""
    asked = f"{kind} {path}"
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise SpecError(asked, "it is no file", f"Name the {kind} itself")
        if found.st_size > MAX_SPEC_BYTES:
            raise SpecError(asked, f"it is larger than {MAX_SPEC_BYTES} bytes", f"A {kind} is a few KB of TOML")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(asked, "there is no such file", missing) from None
    except (OSError, UnicodeDecodeError) as exc:
        raise SpecError(asked, f"it cannot be read ({exc})") from None


def read_toml(source: SpecSource) -> dict[str, Any]:
    """The tables of the text. Raises ``SpecError`` for what is no TOML, is nested deeper than :data:`MOST_DEPTH`, or holds
    NaN, an infinity, a whole number beyond 64 bits, or a date."""
    asked = f"{source.kind} {source.path}"
    try:
        data = tomllib.loads(source.text)
    except RecursionError:
        raise SpecError(asked, "it is nested too deeply", f"At most {MOST_DEPTH} tables and arrays deep") from None
    except ValueError as exc:  # TOMLDecodeError, and Python's own for thousands of digits
        raise SpecError(asked, f"not TOML: {str(exc).partition(';')[0]}") from None
    for key, value in _values(data, source):
        problem = _problem(value)
        if problem:
            raise source.error(key, problem)
    return data


def _problem(value: Any) -> str:
    """What is wrong with a value that is neither table nor array; empty for nothing."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"expected a finite number, but got {value}"
    if isinstance(value, int) and not -LARGEST <= value < LARGEST:
        return "expected a number of 64 bits, but got one of more"
    if isinstance(value, str) and "\0" in value:
        return "a text with a NUL in it"
    return "no key takes a date or a time" if isinstance(value, (date, time)) else ""


def _values(data: dict[str, Any], source: SpecSource) -> Iterator[tuple[str, Any]]:
    """Every value by its dotted key, without recursion. Raises ``SpecError`` for what is nested too deeply."""
    layer: list[tuple[str, Any]] = [("", data)]
    for _ in range(MOST_DEPTH):
        inner: list[tuple[str, Any]] = []
        for key, value in layer:
            for place, item in _inside(key, value):
                if isinstance(item, (dict, list)):
                    inner.append((place, item))
                else:
                    yield place, item
        layer = inner
    if layer:
        key = layer[0][0][:80]
        raise source.error(key, f"it is nested too deeply: at most {MOST_DEPTH} tables and arrays")


def _inside(key: str, value: Any) -> list[tuple[str, Any]]:
    """What a table or an array holds, each with its key path."""
    if isinstance(value, list):
        return [(f"{key}[{index}]", item) for index, item in enumerate(value)]
    return [(f"{key}.{name}" if key else name, item) for name, item in value.items()]
