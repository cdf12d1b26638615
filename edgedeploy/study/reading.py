"""Reading the files of a study's folder: each gives its record, or one typed error that says what to do about it.

Disks fail and people edit: a file may hold anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from edgedeploy.errors import DataError
from edgedeploy.files import parsed, write_atomic

T = TypeVar("T")

FAULTS: Final = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading a record raises when the data is not of its form; ``UnicodeDecodeError`` is a ``ValueError``."""


def read_record(path: Path, make: Callable[[dict[str, Any]], T], remedy: str) -> T:
    """What ``make`` makes of the JSON object in the file. Raises ``DataError``, which ends with ``remedy``."""
    try:
        return make(parsed(path.read_bytes()))
    except (OSError, *FAULTS) as exc:
        raise DataError(f"study file {path}", fault(exc), remedy) from None


def read_text(path: Path, remedy: str) -> str:
    """The text of a UTF-8 file. Raises ``DataError``, which ends with ``remedy``."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as exc:
        raise DataError(f"study file {path}", fault(exc), remedy) from None


def read_lines(path: Path, make: Callable[[dict[str, Any]], T]) -> list[T]:
    """What ``make`` makes of each line, a JSON object; nothing when there is no file. Raises ``DataError``.

    A last line that is no JSON is left out: a host that died tore it.
    """
    remedy = "Move the file away, or remove that line"
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise DataError(f"study file {path}", fault(exc), "Move it away") from None
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            if number < len(lines) or not _is_torn(line):
                found.append(make(parsed(_whole(line))))
        except FAULTS as exc:
            raise DataError(f"line {number} of study file {path}", fault(exc), remedy) from None
    return found


def drop_torn_end(path: Path) -> None:
    """Cut the torn last line off a line file, so that the next line is not appended to it."""
    if not path.is_file():
        return
    data = path.read_bytes()
    *whole, last = data.splitlines(keepends=True) or [b""]
    if last and _is_torn(last):
        write_atomic(path, b"".join(whole))
    elif last and not last.endswith(b"\n"):
        write_atomic(path, data + b"\n")


def fault(exc: Exception) -> str:
    """What is wrong with a file, for people."""
    first = (str(exc) or type(exc).__name__).splitlines()[0]
    told = {
        UnicodeDecodeError: "it is not UTF-8 text",
        json.JSONDecodeError: f"it is no JSON ({first})",
        FileNotFoundError: "it is gone",
        OSError: f"it cannot be read ({getattr(exc, 'strerror', None) or first})",
        KeyError: f"it lacks {first}",
        RecursionError: "it is nested too deeply",
    }
    return next((text for kind, text in told.items() if isinstance(exc, kind)), first)


def _is_torn(line: bytes) -> bool:
    try:
        json.loads(_whole(line))
    except (ValueError, RecursionError):
        return True
    return False


def _whole(line: bytes) -> bytes:
    """The line; without the torn one before it, where an older version appended to that."""
    start = line.rfind(b'{"')
    if start > 0 and line.startswith(b"{"):
        try:
            json.loads(line)
        except (ValueError, RecursionError):
            return line[start:]
    return line
