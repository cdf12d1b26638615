"""What a run knows of its folder's evidence without reading it again: every file is read once, and again when it changed.

The files are the only truth. What is kept here is held against each file's size and time of change before it is believed,
so that a file that was removed, added or replaced by hand counts at once. Raw series, most of a file, are left out.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from edgedeploy.errors import DataError
from edgedeploy.evidence.derived import without_series
from edgedeploy.records.measurement import Failure, Measurement
from edgedeploy.records.variant import Variant
from edgedeploy.study.index import Index
from edgedeploy.study.reading import fault
from edgedeploy.study.store import Store

T = TypeVar("T")
Stamp = tuple[int, int, int]


@dataclass
class _Files(Generic[T]):
    """The files of one folder by digest, each with what it held when it was read."""

    folder: Path
    read: Callable[[str], T | None]
    kept: dict[str, tuple[Stamp, T]]

    def one(self, digest: str) -> T | None:
        return self._at(digest, self.folder / f"{digest}.json")

    def all(self) -> list[T]:
        try:
            with os.scandir(self.folder) as entries:
                names = sorted(entry.name for entry in entries if entry.name.endswith(".json"))
        except FileNotFoundError:
            names = []
        except OSError as exc:
            raise DataError(f"study folder {self.folder}", fault(exc), "Put the folder itself there") from None
        found = [self._at(name.removesuffix(".json"), self.folder / name) for name in names]
        return [item for item in found if item is not None]

    def _at(self, digest: str, path: Path) -> T | None:
        try:
            status = path.stat()
        except FileNotFoundError:
            self.kept.pop(digest, None)
            return None
        stamp = (status.st_size, status.st_mtime_ns, status.st_ino)
        if digest not in self.kept or self.kept[digest][0] != stamp:
            item = self.read(digest)
            if item is None:
                return None
            self.kept[digest] = (stamp, item)
        return self.kept[digest][1]


class Known:
    """The valid measurements and the failures of a study's folder, read with the help of its ``index``, if any. Threads may
    share it. Reading raises what the :class:`Store` raises."""

    def __init__(self, store: Store, index: Index | None = None) -> None:
        self.index = index

        def measured(digest: str) -> Measurement | None:
            if self.index is not None:
                found = self.index.summary(digest)
                return None if found is None else found.measurement
            item = store.measurement(digest)
            return None if item is None else without_series(item)

        self._store = store
        self._measurements = _Files(store.root / "measurements", measured, {})
        self._failures = _Files(store.root / "failures", store.failure, {})
        self._reading = threading.RLock()

    def keep_index(self, opened: Callable[[Store], Index | None]) -> None:
        """Write the index from now on; the caller owns the folder. A study that has just been made has its index
        ``opened``."""
        with self._reading:
            self.index = self.index or opened(self._store)
            self._measurements.all()  # what the index has is read before it is let go
            if self.index is not None:
                self.index.save(live=True)

    def measurement(self, digest: str) -> Measurement | None:
        with self._reading:
            return self._measurements.one(digest)

    def failure(self, digest: str) -> Failure | None:
        with self._reading:
            return self._failures.one(digest)

    def measurements(self) -> list[Measurement]:
        with self._reading:
            return self._measurements.all()

    def variants(self) -> list[Variant]:
        """Every variant that has an outcome, in the order they were evaluated."""
        with self._reading:
            outcomes: list[Measurement | Failure] = [*self._measurements.all(), *self._failures.all()]
        found = [(item.created_utc, item.variant.digest, item.variant) for item in outcomes]
        return [variant for _, _, variant in sorted(found, key=lambda entry: entry[:2])]
