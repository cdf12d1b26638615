"""Everything that a night leaves for people and for CI, in one call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgedeploy.nightly.results.kept import Earlier, write_night
from edgedeploy.records.night import Night


@dataclass(frozen=True)
class Written:
    """Where a night's results lie. ``damaged`` are files of other nights that could not be read."""

    night: Night
    folder: Path
    night_json: Path
    damaged: tuple[str, ...] = ()


def write_results(night: Night, earlier: Iterable[Night], out: Path) -> Written:
    """Write the night into the folder ``out``, its JSON file first. ``earlier`` are nights before it, oldest first, each
    read once (:class:`Earlier` reads them from ``out``). Raises ``StorageError``, ``ValueError`` where the night's name is
    no date."""
    path = write_night(night, out)
    damaged = earlier.damaged if isinstance(earlier, Earlier) else ()
    return Written(night, out, path, damaged)
