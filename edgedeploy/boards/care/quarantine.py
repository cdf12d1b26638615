"""Boards in quarantine: one small file each on this host, until somebody removes it (``edgedeploy boards --lift``).

Measurements of a board that reboots during jobs, or hangs so that its processes cannot be killed, cannot be trusted,
and every study that tries it waits for its timeouts. The record identifies the machine itself, because studies may name
it differently.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

from edgedeploy.errors import Quarantined, SpecError, StorageError, nearest
from edgedeploy.files import parsed, write_json
from edgedeploy.records.board import BoardInfo
from edgedeploy.runtime.wire.serde import from_json

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Record:
    """``identity``, ``serial`` and ``host_key`` are those of ``BoardInfo``; ``name`` is its name in the study that put it
    into quarantine."""

    identity: str
    name: str
    cause: str
    since_utc: str
    serial: str = ""
    host_key: str = ""

    def is_of(self, board: BoardInfo) -> bool:
        """What one of the two does not tell (a board that was reached without SSH, say) does not set them apart."""
        serial = self.serial if self.serial and board.serial else board.serial
        return not board.other_machine(replace(board, identity=self.identity, serial=serial, host_key=self.host_key))


class Quarantine:
    """The records in one folder: ``$EDGEDEPLOY_STATE/quarantine``, or below the user's state folder."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or state_folder() / "quarantine"

    def records(self) -> Iterator[Record]:
        for path in sorted(self.folder.glob("*.json")):
            yield _read(path)

    def of(self, board: BoardInfo) -> Record | None:
        """The record of this machine: of its installation, unless serial number or host key say that it is a clone."""
        return next((record for record in self.records() if record.is_of(board)), None)

    def check(self, board: BoardInfo) -> None:
        """Raises ``Quarantined`` for a board in quarantine."""
        record = self.of(board)
        if record is not None:
            raise _error(record)

    def put(self, board: BoardInfo, cause: str) -> Quarantined:
        """Put a board into quarantine; returns the error that says so."""
        now_utc = datetime.now(UTC).isoformat(timespec="seconds")
        record = Record(board.identity, board.name, cause, now_utc, board.serial, board.host_key)
        write_json(self._path(record), asdict(record))
        return _error(record)

    def lift(self, name: str) -> tuple[Record, ...]:
        """Remove every record of that name. Raises ``SpecError`` when there is none."""
        found = tuple(record for record in self.records() if record.name == name)
        if not found:
            names = [record.name for record in self.records()]
            raise SpecError(f"board {name!r}", "it is not in quarantine", nearest(name, names))
        for record in found:
            self._path(record).unlink()
        return found

    def _path(self, record: Record) -> Path:
        apart = [text for text in (record.serial, record.host_key) if text]
        clone = sha256("\n".join(apart).encode()).hexdigest()[:16] if apart else ""
        # What a board says that it is may be anything, also a path: only a digest is a name as it stands.
        own = record.identity if _DIGEST.fullmatch(record.identity) else sha256(record.identity.encode()).hexdigest()
        return self.folder / f"{own[:32]}{clone}.json"


def _read(path: Path) -> Record:
    """Raises ``StorageError``: a record that cannot be read may be the one of the board that is asked for."""
    try:
        return from_json(Record, parsed(path.read_bytes()), kept=True)
    except (OSError, ValueError, RecursionError) as exc:
        found = f"it is damaged ({exc})"
        raise StorageError(f"board in quarantine {path}", found, "Remove it when the board is sound") from exc


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
