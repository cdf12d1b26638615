"""Folders of evidence: one file for each record, named by what it holds. Whatever else lies there is no evidence.

Disks fail, people edit, and programs that keep folders in step leave copies beside the files. A stray file (empty, half,
of another study, of a newer version, a copy under another name, a link) stops nobody: a reader goes on without it and says
so, and the search, which owns the folder, moves it to ``set-aside/``, so that what it held is measured again.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from edgedeploy.errors import DataError
from edgedeploy.files import PARTIAL_PREFIX, parsed
from edgedeploy.records.measurement import Failure, Measurement
from edgedeploy.study.measured import measurement_of
from edgedeploy.study.migrations import Kind, NewerFile, upgraded
from edgedeploy.study.reading import FAULTS, fault

T = TypeVar("T", Measurement, Failure)

SET_ASIDE: Final = "set-aside"
SUPERSEDED: Final = "superseded"
"""Below ``failures/``: what was believed of a variant before it was tried again."""

MAX_RECORD_BYTES: Final = 1 << 28
STUDY_KEY: Final = "study"
"""Where a record has the id of its study; files of before have none."""

_RECORD: Final = re.compile(r"[0-9a-f]{8,64}(-[0-9]+)?\.json")
_COPY: Final = re.compile(r"conflict|~$|^\.#|^#|\([0-9]+\)|copy|\.(bak|orig|swp|tmp)$", re.IGNORECASE)


@dataclass(frozen=True)
class Stray:
    """Something in a folder of evidence that is none, and why."""

    path: Path
    why: str

    @property
    def name(self) -> str:
        return f"{self.path.parent.name}/{self.path.name}"


@dataclass(frozen=True)
class EvidenceFolder(Generic[T]):
    """One folder of records. ``make`` reads a record, ``fits`` says why one does not belong here (empty: it does),
    ``numbered`` folders hold several records of a variant; ``also`` are names of what else belongs here."""

    name: str
    kind: Kind
    make: Callable[[Mapping[str, Any]], T]
    fits: Callable[[T], str] = lambda item: ""
    numbered: bool = False
    also: tuple[str, ...] = ()

    def entries(self, root: Path) -> Iterator[Path]:
        """Everything in the folder but files that are being written. Raises ``DataError`` where no folder can be read."""
        folder = root / self.name
        try:
            paths = sorted(folder.iterdir())
        except FileNotFoundError:
            return
        except OSError as exc:
            raise DataError(f"study folder {folder}", fault(exc), "Put the folder itself there") from None
        yield from (path for path in paths if path.name not in self.also and not path.name.startswith(PARTIAL_PREFIX))

    def path(self, root: Path, digest: str) -> Path:
        return root / self.name / f"{digest}.json"

    def read(self, path: Path, study: str) -> T | Stray:
        """The record in a file, of the study with the id ``study`` (empty: not known)."""
        try:
            told = _not_a_record(path)
            if told:
                return Stray(path, told)
            data = parsed(path.read_bytes())
            item = self.make(upgraded(self.kind, data))
        except NewerFile as exc:
            return Stray(path, str(exc))
        except (OSError, *FAULTS) as exc:
            return Stray(path, fault(exc))
        digest = item.variant.digest
        stem = path.stem.rpartition("-")[0] if self.numbered else path.stem
        if stem != digest:
            return Stray(path, f"its name is not the digest of what it holds ({digest})")
        if study and data.get(STUDY_KEY, study) != study:
            return Stray(path, "it is of another study")
        unfit = self.fits(item)
        return Stray(path, unfit) if unfit else item


MEASUREMENTS: Final = EvidenceFolder(
    "measurements",
    "measurement",
    measurement_of,
    lambda item: "" if item.valid and item.split != "confirmation" else "it is no valid measurement of the search",
)
INVALID: Final = EvidenceFolder(
    "invalid",
    "measurement",
    measurement_of,
    lambda item: "it is a valid measurement, among invalid ones" if item.valid else "",
    numbered=True,
)
CONFIRMATION: Final = EvidenceFolder(
    "confirmation",
    "measurement",
    measurement_of,
    lambda item: "" if item.split == "confirmation" else "it is not of the confirmation split",
    also=("openings.jsonl",),
)
FAILURES: Final = EvidenceFolder("failures", "failure", Failure.from_json, also=(SUPERSEDED,))
ALL: Final = (MEASUREMENTS, INVALID, CONFIRMATION, FAILURES)


def _not_a_record(path: Path) -> str:
    """Why a directory entry cannot be a record, seen without reading it; empty when it can."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return "it is a link, which is not followed"
    if not stat.S_ISREG(found.st_mode):
        return "it is no file"
    if not _RECORD.fullmatch(path.name):
        return "it is a copy that another program made" if _COPY.search(path.name) else "no record has such a name"
    if found.st_size > MAX_RECORD_BYTES:
        return f"it has {found.st_size} bytes, more than the {MAX_RECORD_BYTES} of any record"
    return ""


def move_aside(path: Path, root: Path) -> Path:
    """Move what lies at ``path`` below ``root`` to ``set-aside/`` there, under a name that is free. Raises ``OSError``."""
    name = "--".join(path.relative_to(root).parts)
    place = root / SET_ASIDE
    place.mkdir(exist_ok=True)
    number, target = 1, place / name
    while os.path.lexists(target):
        number += 1
        target = place / f"{name}.{number}"
    path.rename(target)
    return target
