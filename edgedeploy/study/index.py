"""An index of a study's measurements: what fronts and bookkeeping need of each, beside the evidence, without raw series.

``index.jsonl`` is no evidence. Its first line says what it was made for (the study, its seed, its objectives, this very
code); each further line has a file's name, size, times and inode, and what was made of that file. A line counts while its
file is the same and its own checksum holds; anything else, and a folder without an index, is read from the evidence. It may
be deleted at any time: the next look or search makes it again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy._version import __version__
from edgedeploy.errors import EdgeDeployError
from edgedeploy.evidence.bootstrap import RESAMPLES, Resampler
from edgedeploy.evidence.derived import Derived, derive, without_series
from edgedeploy.files import append_line, write_atomic
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import digest_of
from edgedeploy.spec.goals import objectives_of
from edgedeploy.spec.study import StudySpec
from edgedeploy.study.evidence_files import MEASUREMENTS
from edgedeploy.study.reading import FAULTS
from edgedeploy.study.store import Store

NAME: Final = "index.jsonl"
SCHEMA: Final = 1
LARGEST_BYTES: Final = 1 << 30
"""A larger file is none of ours: a variant takes about 20 KB."""

_CHECK: Final = 16  # characters of a line's checksum
_MADE_BY: Final = ("evidence", "records", "runtime/wire", "runtime/scenarios", "study/index.py")
"""The code that the numbers hang on."""

Stamp = tuple[int, ...]


@dataclass(frozen=True)
class Summary:
    """A measurement without its raw series, and what a front takes from these."""

    measurement: Measurement
    derived: Derived


class Index:
    """Summaries of the valid measurements of ``store``. Nothing is written before :meth:`save`. ``study`` is the content of
    the study's ``study.json``."""

    def __init__(self, store: Store, study: Mapping[str, Any], spec: StudySpec, resamples: int = RESAMPLES) -> None:
        task_metrics = {name: MetricInfo.from_json(info) for name, info in study["task_metrics"].items()}
        self._store = store
        self._path = store.root / NAME
        self._seed, self._resamples = spec.study.seed, resamples
        self._compared = [goal.metric for goal in objectives_of(spec, spec.metric_table(task_metrics))]
        made_for = {"study": study.get("id"), "seed": self._seed, "resamples": resamples, "compared": self._compared}
        self._head = _line({"schema": SCHEMA, "code": _code(), **made_for})
        self._lines: dict[str, bytes] = {}
        self._new: dict[str, bytes] = {}
        self._whole = False
        """Whether the file is ours and undamaged, so that lines may be added to it; else it is written anew."""
        self._live = False
        self._load()

    def summaries(self) -> list[Summary]:
        """Of every valid measurement. Raises what the store raises for the files that have to be read."""
        found = map(self.summary, self._digests())
        return [item for item in found if item is not None]

    def summary(self, digest: str) -> Summary | None:
        """None when there is no such measurement. Raises what the store raises."""
        stamp = _stamp(self._store.root / "measurements" / f"{digest}.json")
        found = self._known(digest, stamp)
        if found is not None:
            return found
        item = self._store.measurement(digest)
        if item is None:
            return None
        derived = derive(item, Resampler(self._seed, self._resamples), self._compared)
        found = Summary(without_series(item), derived)
        if stamp is not None and item.digest == digest and item.valid:
            self._add(digest, stamp, found)
        return found

    def save(self, live: bool = False) -> None:
        """Write what is not yet in the file, if it can be written; the caller owns the folder, or nobody does. With ``live``
        each later summary is written as it is made."""
        self._live = live
        with suppress(OSError, EdgeDeployError, *FAULTS):  # it is worth nothing but time
            gone = set(self._lines) - set(self._digests())
            if not self._whole or len(gone) > len(self._lines) / 2:
                lines = [line for digest, line in {**self._lines, **self._new}.items() if digest not in gone]
                write_atomic(self._path, b"".join([self._head, *lines]))
                self._whole = True
            elif self._new:
                append_line(self._path, b"".join(self._new.values()).removesuffix(b"\n"))
        if live:
            self._lines = {}  # the run keeps what it read itself
        self._new = {}

    def save_unless_owned(self) -> None:
        """:meth:`save`, unless a search has the folder: that writes its own. A search that starts meanwhile loses time at
        worst, because the file is replaced whole and each line has a checksum."""
        if self._new and not _is_owned(self._store.root):
            self.save()

    def _digests(self) -> list[str]:
        return [path.stem for path in MEASUREMENTS.entries(self._store.root) if path.suffix == ".json"]

    def _known(self, digest: str, stamp: Stamp | None) -> Summary | None:
        line = self._lines.get(digest)
        if line is None or stamp is None:
            return None
        with suppress(*FAULTS):
            data = json.loads(line[_CHECK:])
            if tuple(data["stamp"]) == stamp:
                found = Summary(Measurement.from_json(data["measurement"]), Derived.from_json(data["derived"]))
                return found if found.measurement.digest == digest else None
        return None

    def _add(self, digest: str, stamp: Stamp, found: Summary) -> None:
        data = {"digest": digest, "stamp": stamp}
        line = _line({**data, "measurement": found.measurement.as_json(), "derived": found.derived.as_json()})
        if not self._live:
            self._new[digest] = line
        elif self._whole:
            with suppress(OSError, EdgeDeployError):
                append_line(self._path, line.removesuffix(b"\n"))

    def _load(self) -> None:
        """Take in the lines that are whole; of several for one file the last counts."""
        try:
            with os.fdopen(os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
                if os.fstat(stream.fileno()).st_size > LARGEST_BYTES or stream.readline(LARGEST_BYTES) != self._head:
                    return
                count = damaged = 0
                for line in stream:
                    count += 1
                    if line[:_CHECK] == _check(line[_CHECK:]):
                        digest = line[_CHECK:].partition(b'"digest": "')[2].partition(b'"')[0]
                        self._lines[digest.decode()] = line
                    else:
                        damaged += 1
                self._whole = not damaged and count <= 2 * len(self._lines)
        except (OSError, ValueError):
            return


def _line(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value, allow_nan=False).encode() + b"\n"
    return _check(text) + text


def _check(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:_CHECK].encode()


def _stamp(path: Path) -> Stamp | None:
    """What tells a file from an older or another one; None when there is none."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _is_owned(root: Path) -> bool:
    """Whether a process holds the folder, or that cannot be told."""
    try:
        descriptor = os.open(root / ".lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


@cache
def _code() -> str:
    """A digest of the code that the numbers hang on: whoever changes it gets another."""
    root = Path(__file__).parents[1]
    places = [root / name for name in _MADE_BY]
    paths = sorted(path for place in places for path in (place.rglob("*.py") if place.is_dir() else (place,)))
    texts = {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    return digest_of({"numpy": np.__version__, "version": __version__, "texts": texts})
