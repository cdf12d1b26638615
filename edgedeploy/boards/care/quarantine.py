"""Boards in quarantine: one small file each on this host, until somebody removes it (``edgedeploy boards --lift``).

Measurements of a board that reboots during jobs, or hangs so that its processes cannot be killed, cannot be trusted,
and every study that tries it waits for its timeouts. The record identifies the machine itself, because studies may name
it differently.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from edgedeploy.errors import Quarantined, SpecError, nearest
from edgedeploy.files import read_json, write_json
from edgedeploy.records.board import BoardInfo


@dataclass(frozen=True)
class Record:
    """``identity`` is ``BoardInfo.machine``; ``name`` is its name in the study that put it into
    quarantine."""

    identity: str
    name: str
    cause: str
    since_utc: str


class Quarantine:
    """The records in one folder: ``$EDGEDEPLOY_STATE/quarantine``, or below the user's state folder."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or state_folder() / "quarantine"

    def records(self) -> Iterator[Record]:
        for path in sorted(self.folder.glob("*.json")):
            yield Record(**read_json(path))

    def of(self, board: BoardInfo) -> Record | None:
        """Also one that was made before host keys and serial numbers told clones apart, or without SSH."""
        for machine in (board.machine, board.identity):
            if self._path(machine).is_file():
                return Record(**read_json(self._path(machine)))
        return None

    def check(self, board: BoardInfo) -> None:
        """Raises ``Quarantined`` for a board in quarantine."""
        record = self.of(board)
        if record is not None:
            raise _error(record)

    def put(self, board: BoardInfo, cause: str) -> Quarantined:
        """Put a board into quarantine; returns the error that says so."""
        record = Record(board.machine, board.name, cause, datetime.now(UTC).isoformat(timespec="seconds"))
        write_json(self._path(board.machine), asdict(record))
        return _error(record)

    def lift(self, name: str) -> tuple[Record, ...]:
        """Remove every record of that name. Raises ``SpecError`` when there is none."""
        found = tuple(record for record in self.records() if record.name == name)
        if not found:
            names = [record.name for record in self.records()]
            raise SpecError(f"board {name!r}", "it is not in quarantine", nearest(name, names))
        for record in found:
            self._path(record.identity).unlink()
        return found

    def _path(self, identity: str) -> Path:
        return self.folder / f"{identity[:32]}.json"


def state_folder() -> Path:
    """Where this user's programs keep what outlives a study."""
    own = os.environ.get("EDGEDEPLOY_STATE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "edgedeploy"


def remedy_of(record: Record) -> str:
    return f"Repair the board, then: edgedeploy boards --lift {record.name!r}"


def _error(record: Record) -> Quarantined:
    return Quarantined(
        f"board {record.name!r}", f"it is in quarantine since {record.since_utc}: {record.cause}", remedy_of(record)
    )
