"""Writing files so that a reader never sees half of one, and no link leads a write elsewhere."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, cast

from edgedeploy.errors import DISK_REMEDIES, SpecError, StorageError

PARTIAL_PREFIX: Final = ".part-"
"""As :data:`edgedeploy.runtime.files.PART_PREFIX`, which boards have too."""

_APPENDING: Final = threading.Lock()


@contextmanager
def disk_told(path: Path) -> Iterator[None]:
    """Turns what a full or failing disk answers in the block, which writes ``path``, into ``StorageError``; any other
    ``OSError`` stays what it is."""
    try:
        yield
    except OSError as exc:
        raise_if_disk(exc, path)
        raise


def raise_if_disk(exc: OSError, path: Path) -> None:
    """Raises ``StorageError`` where ``exc``, met in writing ``path``, is a full or failing disk's answer."""
    named = Path(os.fsdecode(exc.filename)) if isinstance(exc.filename, (str, bytes)) else path
    if exc.errno not in DISK_REMEDIES or (exc.errno == errno.EIO and path.parent not in (named, *named.parents)):
        return  # a disk that cannot be read elsewhere is none that cannot be written here
    if any(part.startswith(PARTIAL_PREFIX) for part in named.parts):
        named = path  # what is being made, by the name that people know
    again = "then run it again: what is stored is whole, and a search goes on with --resume"
    raise StorageError(f"write {named}", os.strerror(exc.errno), f"{DISK_REMEDIES[exc.errno]}, {again}") from exc


@contextmanager
def place_told(path: Path) -> Iterator[None]:
    """Turns what the file system answers to a ``path`` that the user named, and nothing can be written at, into
    ``SpecError``; of another file an ``OSError`` stays what it is."""
    try:
        yield
    except OSError as exc:
        named = Path(os.fsdecode(exc.filename)) if isinstance(exc.filename, (str, bytes)) else None
        own = path.absolute()
        taken = isinstance(exc, FileExistsError) and named == path
        if taken or named is None or not _of_writing(named.absolute(), own):
            raise
        raise SpecError(f"write {path}", os.strerror(exc.errno or 0), "Give a path that can be written to") from exc


def _of_writing(named: Path, path: Path) -> bool:
    """Whether it is the path, a folder around it, or what is written beside it until it is whole."""
    beside = named.relative_to(path.parent).parts if named.is_relative_to(path.parent) else ()
    return named in (path, *path.parents) or (bool(beside) and beside[0].startswith(PARTIAL_PREFIX))


def write_atomic(path: Path, data: bytes) -> None:
    """Write beside the target, flush to disk, rename over it; a link at ``path`` is replaced, never followed. Raises
    ``StorageError`` where the disk is full or fails, ``OSError`` for what else there is."""
    with disk_told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_or_nothing(path) as stream:
            stream.write(data)


@contextmanager
def whole_or_nothing(path: Path) -> Iterator[IO[bytes]]:
    """A stream beside ``path`` that takes its place when it is on the disk, and is gone when that fails."""
    part = path.with_name(f"{PARTIAL_PREFIX}{uuid.uuid4().hex}")
    try:
        with part.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_new(path: Path, data: bytes) -> None:
    """Write a file that is not there yet, whole or not at all. Raises ``FileExistsError`` for a path that something lies at,
    a link that leads nowhere too, and what :func:`write_atomic` raises."""
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    write_atomic(path, data)


def append_line(path: Path, line: bytes) -> None:
    """Append a whole line to a file that may end in a torn one, or nothing: threads take turns, a disk that takes half of it
    is told, and a kill can tear the last line only. A link is not followed: a folder from elsewhere could have the lines
    written into any file of this user's.

    Raises ``StorageError`` where the disk is full or fails, ``OSError`` for what else there is.
    """
    with _APPENDING, disk_told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            try:
                _write_all(descriptor, b"\n" * torn + line + b"\n")
            except OSError:
                with suppress(OSError):
                    os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    """A disk that is nearly full takes part of a write without an error, and tells it at the next."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


@contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """A file of this host to write what comes from elsewhere: each write raises ``StorageError`` where this disk is full or
    fails, so that it is not taken for the other side's fault."""
    with disk_told(path):
        raw = path.open("wb", buffering=0)
    with raw:
        yield cast("IO[bytes]", _Written(raw.fileno(), path))


class _Written:
    """The part of a file object that a transfer uses, without a buffer that is written only when the file is closed."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self._path = path

    def write(self, data: bytes) -> int:
        with disk_told(self._path):
            _write_all(self._descriptor, data)
        return len(data)


def lock_file(path: Path) -> io.BufferedRandom:
    """A file to lock, opened and made if need be; what it holds stays, and a link is not followed. Raises ``OSError``."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    return os.fdopen(descriptor, "r+b")


def write_json(path: Path, value: object) -> None:
    """Write ``value`` with sorted keys and a final newline, so that equal values give equal bytes. NaN raises
    ``ValueError``."""
    text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False)
    write_atomic(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """The value. Raises ``OSError`` or ``ValueError``, where the agent's :func:`edgedeploy.runtime.files.read_json` gives
    None."""
    return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill. It becomes ``path`` when the block ends, and is removed when the block raises; a link at
    ``path`` is replaced, never followed. Raises ``StorageError`` where the disk is full or fails, in the block too."""
    with disk_told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{PARTIAL_PREFIX}{uuid.uuid4().hex}")
        part.mkdir()
        try:
            yield part
            remove(path)
            part.replace(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove what lies at ``path``, if anything does: a folder with all that is in it, a link itself."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_partials(root: Path) -> None:
    """Remove the half-written files and folders that a killed process left below ``root``, following no link."""
    for folder, folders, files in os.walk(root):
        halves = [name for name in (*folders, *files) if name.startswith(PARTIAL_PREFIX)]
        for name in halves:
            path = Path(folder, name)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        folders[:] = [name for name in folders if name not in halves]
