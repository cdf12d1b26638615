"""JSON that anything may have written, read within limits."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from pathlib import Path
from typing import Any, Final, NoReturn

MOST_DEPTH: Final = 64
"""Objects and lists inside one another in JSON: what edgedeploy writes has twelve at most."""

_LONG_NUMBER: Final = re.compile(rb"[0-9]{19}")
_HUGE_NUMBER: Final = re.compile(rb"[0-9]{100}|[eE]\+?[0-9]{3}")
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_LARGEST: Final = 2**63
LARGEST_FLOAT: Final = 1e100
"""Nothing that is measured has more, and the square of it is a number still."""


MOST_FILE_BYTES: Final = 1 << 28
"""Of a file that is read at once: the largest records have some MB."""


def read_plain(path: Path, most_bytes: int = MOST_FILE_BYTES) -> bytes:
    """The bytes of a plain file. Raises ``OSError``, also for a file of more than ``most_bytes`` and for what is none: of a
    pipe a reader would wait for ever, a device has no end."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no plain file", str(path))
        if status.st_size > most_bytes:
            raise OSError(errno.EFBIG, f"it has {status.st_size} bytes, at most {most_bytes} are read", str(path))
        return stream.read(most_bytes)


def parsed(data: bytes) -> dict[str, Any]:
    """The JSON object in the bytes of a file or an answer that anything may have written.

    Raises ``ValueError`` (also for NaN, infinities, numbers beyond :data:`LARGEST_FLOAT`, whole numbers beyond 64 bits and
    halves of characters) and ``RecursionError`` for what is nested deeper than :data:`MOST_DEPTH`.
    """
    value = parsed_value(data)
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, not an object")
    return value


def parsed_value(data: bytes) -> Any:
    """As :func:`parsed`, of what need not be an object."""
    if not data.strip():
        raise ValueError("it is empty")
    text = data.decode("utf-8")
    whole = _bounded if _LONG_NUMBER.search(data) else None  # a call for each number is slow
    broken = _finite if _HUGE_NUMBER.search(data) else None
    value = json.loads(text, parse_constant=_no_number, parse_int=whole, parse_float=broken)
    _check_depth(value)
    if _SURROGATE.search(data):
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # half of a character cannot be written anywhere
    return value


def _check_depth(value: Any) -> None:
    """Raises ``RecursionError``: whoever reads or writes the value goes down it."""
    layer = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MOST_DEPTH):
        inner: list[Any] = []
        for item in layer:
            inside = item.values() if isinstance(item, dict) else item
            inner += [part for part in inside if isinstance(part, (dict, list))]
        if not inner:
            return
        layer = inner
    raise RecursionError("it is nested too deeply")


def _bounded(digits: str) -> int:
    if len(digits) > 20 or abs(int(digits)) >= _LARGEST:
        raise ValueError(f"a number of {len(digits.lstrip('-'))} digits is not of its form")
    return int(digits)


def _finite(text: str) -> float:
    value = float(text)
    if abs(value) > LARGEST_FLOAT:
        raise ValueError(f"{text[:20]} is too large: at most {LARGEST_FLOAT:g} is read")
    return value


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")
