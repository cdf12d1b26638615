"""A bundle's files, read once: the bytes that are hashed are the bytes that are used."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Union

from edgedeploy.runtime.bundle.archive import read_archive
from edgedeploy.runtime.bundle.names import (
    MOST_BUNDLE_BYTES,
    MOST_FILE_BYTES,
    MOST_FILES,
    SIGNATURE,
    check_name,
    check_names,
)
from edgedeploy.runtime.faults import BundleError

Place = Union[str, "os.PathLike[str]", int]
"""A path, or the descriptor of an open folder, which no renaming leads elsewhere."""

_MOST_DEPTH = 32
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Tree:
    """``files`` are the bytes by name, ``digests`` their SHA-256 in hex."""

    files: Mapping[str, bytes]
    digests: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        """Raises ``malformed`` for names that a bundle may not have."""
        check_names(self.files)
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()}
        object.__setattr__(self, "files", MappingProxyType(dict(self.files)))
        object.__setattr__(self, "digests", MappingProxyType(digests))

    def read(self, name: str) -> bytes:
        """Raises ``malformed`` for a file that is not there."""
        try:
            return self.files[name]
        except KeyError:
            raise BundleError("malformed", f"it has no file {name!r}") from None

    @property
    def identity(self) -> str:
        """SHA-256 in hex over names and digests of all files but the signature: two bundles of one identity are the same."""
        signed = {name: digest for name, digest in self.digests.items() if name != SIGNATURE}
        return hashlib.sha256(json.dumps(signed, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @property
    def size_bytes(self) -> int:
        return sum(len(data) for data in self.files.values())


def read_tree(place: Place) -> Tree:
    """All files of the bundle in a folder or an archive (see :mod:`edgedeploy.runtime.bundle.archive`), each read once.

    Raises :class:`BundleError`: ``malformed`` for what may not be in a bundle (links of both kinds, devices, pipes, empty
    folders, bad names, too much of anything), ``unreadable`` for what cannot be read, or changes while it is.
    """
    try:
        root = _opened(place)
        try:
            status = os.fstat(root)
            if stat.S_ISDIR(status.st_mode):
                return Tree(dict(_Walk().files(root, "")))
            if not stat.S_ISREG(status.st_mode):
                raise BundleError("unreadable", f"{_named(place)} is {_kind(status.st_mode)}")
            with os.fdopen(os.dup(root), "rb") as stream:
                return Tree(read_archive(stream, status.st_size))
        finally:
            os.close(root)
    except OSError as exc:
        raise BundleError("unreadable", f"{_named(exc.filename or place)}: {exc.strerror or exc}") from exc
    except MemoryError:
        raise BundleError("unreadable", "its files are larger than the memory that is free here") from None


def _opened(place: Place) -> int:
    """What the user named may be a link; nothing in it may."""
    if isinstance(place, int):
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place)
    return os.open(os.fspath(place), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


class _Walk:
    """One walk through one folder, by descriptors: a folder that is exchanged meanwhile leads nowhere else."""

    def __init__(self) -> None:
        self.left_bytes = MOST_BUNDLE_BYTES
        self.left_files = MOST_FILES

    def files(self, folder: int, prefix: str) -> Iterator[tuple[str, bytes]]:
        if prefix.count("/") > _MOST_DEPTH:
            raise BundleError("malformed", f"{prefix!r} is nested deeper than {_MOST_DEPTH} folders")
        entries = self._entries(folder, prefix)
        for entry in entries:
            name = prefix + entry
            check_name(name)
            status = os.stat(entry, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                yield from self._inside(folder, entry, name)
            elif stat.S_ISREG(status.st_mode):
                yield name, self._read(folder, entry, name, status)
            else:
                raise BundleError(
                    "malformed", f"{name!r} is {_kind(status.st_mode)}, and only plain files may be there"
                )

    def _entries(self, folder: int, prefix: str) -> list[str]:
        entries = []
        with os.scandir(folder) as found:
            for entry in found:
                self.left_files -= 1  # folders count too: one that is not empty has a file
                if self.left_files < -MOST_FILES:
                    raise BundleError("malformed", f"it has more than {MOST_FILES} files")
                entries.append(entry.name)
        if not entries:
            raise BundleError("malformed", f"folder {prefix or '.'!r} is empty: no signature covers it")
        return sorted(entries)

    def _inside(self, folder: int, entry: str, name: str) -> Iterator[tuple[str, bytes]]:
        inner = os.open(entry, _OPEN | os.O_DIRECTORY, dir_fd=folder)
        try:
            yield from self.files(inner, f"{name}/")
        finally:
            os.close(inner)

    def _read(self, folder: int, entry: str, name: str, seen: os.stat_result) -> bytes:
        descriptor = os.open(entry, _OPEN, dir_fd=folder)
        with os.fdopen(descriptor, "rb", buffering=0) as stream:
            status = os.fstat(descriptor)
            if (status.st_dev, status.st_ino) != (seen.st_dev, seen.st_ino) or not stat.S_ISREG(status.st_mode):
                raise BundleError("unreadable", f"{name!r} was exchanged while it was read")
            if status.st_nlink != 1:
                raise BundleError("malformed", f"{name!r} has a second hard link, by which it could be changed")
            if status.st_size > MOST_FILE_BYTES or status.st_size > self.left_bytes:
                raise BundleError("malformed", f"{name!r} has {status.st_size} bytes, more than a bundle may have")
            self.left_bytes -= status.st_size
            data = _exactly(stream.fileno(), status.st_size)
        if data is None:
            raise BundleError("unreadable", f"{name!r} changed while it was read")
        return data


def _exactly(descriptor: int, size_bytes: int) -> bytes | None:
    """All bytes of a file that has ``size_bytes``; None when it has more or fewer."""
    pieces = []
    left = size_bytes + 1
    while left > 0:
        piece = os.read(descriptor, min(left, 1 << 30))
        if not piece:
            break
        pieces.append(piece)
        left -= len(piece)
    data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return data if len(data) == size_bytes else None


def _kind(mode: int) -> str:
    names = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return names.get(stat.S_IFMT(mode), "a device")


def _named(place: object) -> str:
    return f"descriptor {place}" if isinstance(place, int) else os.fsdecode(place)  # type: ignore[arg-type]
