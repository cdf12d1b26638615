"""The agent's folder on a board, and JSON files in it that are never seen half-written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedeploy.runtime.faults import RuntimeFault

PART_PREFIX = ".part-"
"""How the name of a file begins that is being written: it is no file of what it lies among yet."""

_PIECE_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_JOB_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Root:
    """The agent's folder on a board.

    ``blobs/SHA256`` (content-addressed uploads), ``jobs/ID`` (one run each), ``board.lock`` (held by the lease),
    ``lease.json`` (who holds it, with its fencing token).
    """

    folder: Path

    @property
    def lock(self) -> Path:
        return self.folder / "board.lock"

    @property
    def lease(self) -> Path:
        return self.folder / "lease.json"

    @property
    def blobs(self) -> Path:
        return self.folder / "blobs"

    @property
    def jobs(self) -> Path:
        return self.folder / "jobs"

    def blob(self, sha256: str) -> Path:
        if not _SHA256.fullmatch(sha256):
            raise RuntimeFault("bad_job", f"{sha256!r} is no SHA-256")
        return self.blobs / sha256

    def job(self, job_id: str) -> Path:
        if not _JOB_ID.fullmatch(job_id):
            raise RuntimeFault("bad_job", f"{job_id!r} is no job id")
        return self.jobs / job_id


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes as 64 hex digits, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while True:
            piece = stream.read(_PIECE_BYTES)
            if not piece:
                return digest.hexdigest()
            digest.update(piece)


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` in one step: a reader sees the old or the new text, never a part. It is not flushed to disk."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with _gone_if_not_whole(part):
        part.write_text(json.dumps(value, allow_nan=False), encoding="utf-8")
        part.replace(path)


def read_json(path: Path) -> Any:
    """The value, or None when the file is absent or is not JSON (after a full disk or a power loss)."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_durably(path: Path, data: bytes) -> None:
    """Replace ``path`` in one step, on the disk before this returns: after a power cut it is the old or the new one."""
    part = path.with_name(f"{PART_PREFIX}{path.name}")
    with _gone_if_not_whole(part):
        write_synced(part, data)
        part.replace(path)
    sync_folder(path.parent)


@contextlib.contextmanager
def _gone_if_not_whole(part: Path) -> Iterator[None]:
    """Removes the half file that a full disk leaves."""
    try:
        yield
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and have its bytes on the disk; its name is there once its folder is synced."""
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def print_json(value: Any) -> None:
    """A line on standard output. Raises :class:`RuntimeFault` ``output_lost`` where it goes nowhere: a full disk, a reader
    that is gone."""
    try:
        sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")
        sys.stdout.flush()
    except OSError as exc:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still in the buffer has no place either
        raise RuntimeFault("output_lost", f"standard output: {exc.strerror or exc}") from exc


def tell(text: str) -> None:
    """A line on standard error. Where that goes nowhere, the exit status says it alone."""
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def sync_folder(folder: Path) -> None:
    """Have the names in ``folder`` on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
