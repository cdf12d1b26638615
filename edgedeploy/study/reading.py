"""Reading the files of a study's folder: each gives its record, or one typed error that says what to do about it.

Disks fail and people edit: a file may hold anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from edgedeploy.errors import DataError
from edgedeploy.files import append_line, parsed, read_plain, write_atomic

T = TypeVar("T")

FAULTS: Final = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading a record raises when the data is not of its form; ``UnicodeDecodeError`` is a ``ValueError``."""


def read_record(path: Path, make: Callable[[dict[str, Any]], T], remedy: str) -> T:
    """What ``make`` makes of the JSON object in the file. Raises ``DataError``, which ends with ``remedy``."""
    try:
        return make(parsed(read_plain(path)))
    except (OSError, *FAULTS) as exc:
        raise DataError(f"study file {path}", fault(exc), remedy) from None


def read_text(path: Path, remedy: str) -> str:
    """The text of a UTF-8 file. Raises ``DataError``, which ends with ``remedy``."""
    try:
        return read_plain(path).decode("utf-8")
    except (OSError, ValueError) as exc:
        raise DataError(f"study file {path}", fault(exc), remedy) from None


def read_good_lines(path: Path, make: Callable[[dict[str, Any]], T]) -> list[T | None]:
    """What ``make`` makes of each line, a JSON object, and None for a damaged one; nothing when there is no file. Raises
    ``DataError`` for a file that cannot be read at all.

    A last line that is no JSON is left out: a host that died tore it.
    """
    found: list[T | None] = []
    lines = _lines(path)
    for number, line in enumerate(lines, start=1):
        try:
            found.append(make(parsed(_whole(line))))
        except FAULTS:
            if number < len(lines) or not _is_torn(line):
                found.append(None)
    return found


def drop_lines(path: Path, is_good: Callable[[dict[str, Any]], object], aside: Path) -> int:
    """Move the damaged lines of a line file to the file ``aside``, and cut a torn last line off, so that the next line is
    not appended to it. Returns how many were moved. Raises ``DataError`` and ``StorageError``."""
    drop_torn_end(path)
    good, bad = [], []
    for line in _lines(path):
        try:
            is_good(parsed(_whole(line)))
            good.append(line)
        except FAULTS:
            bad.append(line)
    if bad:
        for line in bad:
            append_line(aside, line)
        write_atomic(path, b"".join(line + b"\n" for line in good))
    return len(bad)


def drop_torn_end(path: Path) -> None:
    """Cut the torn last line off a line file, so that the next line is not appended to it. Raises what :func:`drop_lines`
    raises."""
    lines = _lines(path)
    if not lines:
        return
    if _is_torn(lines[-1]):
        write_atomic(path, b"".join(line + b"\n" for line in lines[:-1]))


def _lines(path: Path) -> list[bytes]:
    try:
        return read_plain(path).splitlines()
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise DataError(f"study file {path}", fault(exc), "Move it away") from None


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
