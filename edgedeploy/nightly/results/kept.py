"""The JSON file of each night: written whole, read back within limits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgedeploy import files
from edgedeploy.records.night import FORMAT, VERSION, Night

MOST_NIGHTS: Final = 400
"""That a trend is made of, the newest: a year and a month."""

MOST_BYTES: Final = 1 << 26
"""Of one night's file; one of 1,000 series has less than 1 MB."""

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_NAME: Final = re.compile(r"night-(\d{4}-\d{2}-\d{2})\.json")


def night_path(folder: Path, night: str) -> Path:
    """Raises ``ValueError`` where ``night`` is no date: it becomes part of a file's name."""
    if not _DATE.fullmatch(night):
        raise ValueError(f"a night is named by its date (2026-11-29), but got {night!r}")
    return folder / f"night-{night}.json"


def write_night(night: Night, folder: Path) -> Path:
    """Raises ``StorageError`` where the disk is full or fails."""
    path = night_path(folder, night.night)
    files.write_json(path, night.as_json())
    return path


def read_night(path: Path) -> Night:
    """Raises ``OSError``, ``ValueError`` or ``RecursionError`` for what is no night's file."""
    data = files.parsed(files.read_plain(path, MOST_BYTES))
    if data.get("format") != FORMAT:
        raise ValueError(f"its format is {str(data.get('format'))[:40]!r}, not {FORMAT!r}")
    if data.get("version") != VERSION:
        raise ValueError(f"it has version {str(data.get('version'))[:40]}, and this release reads {VERSION}")
    night = Night.from_json(data)
    if night_path(path.parent, night.night).name != path.name:
        raise ValueError(f"it is of the night {night.night}")
    return night


class Earlier:
    """The nights of a folder before the night ``before``, oldest first, one in memory at a time; the newest
    :data:`MOST_NIGHTS` of them. ``damaged`` names files that could not be read, once they were asked for: a file of another
    night ends none."""

    def __init__(self, folder: Path, before: str) -> None:
        self.folder = folder
        self.before = before
        self.damaged: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Night]:
        self.damaged = ()
        for path in self._paths():
            try:
                night = read_night(path)
            except (OSError, ValueError, RecursionError) as exc:
                self.damaged += (f"{path.name}: {_reason(exc)}",)
            else:
                yield night

    def _paths(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        dated = [(found[1], path) for path in self.folder.iterdir() if (found := _NAME.fullmatch(path.name))]
        return [path for date, path in sorted(dated) if date < self.before][-MOST_NIGHTS:]


def _reason(exc: Exception) -> str:
    text = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
    return " ".join(text.split())[:300]
