"""Tells this host's full or failing disk from a fault of what was being made on it.

A toolchain that cannot write says so in words of its own, or writes half a file and says nothing.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from edgedeploy.errors import StorageError, Unsupported
from edgedeploy.files import PARTIAL_PREFIX, disk_told, raise_if_disk

ROOM_BYTES: Final = 64 << 10
"""What must still fit after a build for its files to be whole for sure."""

CLEAR_BYTES: Final = 64 << 20
"""With less room than this, a build that failed is not known to have failed for a reason of its own."""

_SAID: Final = re.compile(
    rf"{os.strerror(errno.ENOSPC)}|{os.strerror(errno.EDQUOT)}|{os.strerror(errno.EFBIG)}|{os.strerror(errno.EROFS)}"
    r"|(database or )?disk is full|not enough (disk )?space|status -25\b",  # -25: SIGXFSZ, a file beyond the limit
    re.IGNORECASE,
)


def require_whole(folder: Path) -> None:
    """Raises ``StorageError`` where a file below ``folder``, just made, may have been cut off: nothing more fits on that
    disk, or the file is as large as files may be."""
    limit_bytes, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit_bytes != resource.RLIM_INFINITY:
        for path in folder.rglob("*"):
            if path.is_file() and path.stat().st_size >= limit_bytes:
                raise_if_disk(OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path)), path)
    with disk_told(folder.parent), tempfile.TemporaryFile(prefix=PARTIAL_PREFIX, dir=folder, buffering=0) as probe:
        size_bytes = ROOM_BYTES if limit_bytes == resource.RLIM_INFINITY else min(ROOM_BYTES, limit_bytes)
        os.posix_fallocate(probe.fileno(), 0, size_bytes)


def raise_if_of_the_disk(exc: Exception, folder: Path) -> None:
    """Raises ``StorageError`` where a full or failing disk may be why ``exc`` was raised in making something in ``folder``:
    it says so, or there is so little room left that nobody can tell."""
    for cause in _chain(exc):
        if isinstance(cause, OSError):
            raise_if_disk(cause, folder)
    said = next((match for cause in _chain(exc) if (match := _SAID.search(str(cause)))), None)
    remedy = "Free space there, then run it again: nothing is stored against the variant"
    if said:
        raise StorageError(f"write {folder}", f"{said.group()} ({exc})", remedy) from exc
    if isinstance(exc, Unsupported):
        return  # the target refused it by its own rules, before it wrote anything
    for place in (folder, Path(tempfile.gettempdir())):
        free_bytes = _free_bytes(place)
        if free_bytes is not None and free_bytes < CLEAR_BYTES:
            found = f"a build failed with {free_bytes >> 20} MiB free there, which may be why ({exc})"
            raise StorageError(f"build in {place}", found, remedy) from exc


def _free_bytes(place: Path) -> int | None:
    try:
        found = os.statvfs(place)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def _chain(exc: BaseException) -> Iterable[BaseException]:
    found: BaseException | None = exc
    for _ in range(20):  # a circle of causes is possible
        if found is None:
            return
        yield found
        found = found.__cause__ or found.__context__
