"""Where a study's folder may lie, and whose it is: one process at a time writes to it."""

from __future__ import annotations

import fcntl
import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edgedeploy.errors import SpecError
from edgedeploy.files import lock_file, raise_if_disk
from edgedeploy.study.mounts import network_file_system

LOOK_S: Final = 0.1
LOOKS: Final = 10
"""A reader that asks whether somebody has the folder holds its lock for an instant, which a busy machine makes longer:
so often it is looked again whether the lock is free."""


def check_place(root: Path) -> None:
    """See :meth:`edgedeploy.study.store.Store.check_place`."""
    asked, remedy = f"study folder {root}", "Choose another --out"
    try:
        root.stat()
    except FileNotFoundError:
        pass  # it will be made
    except OSError as exc:  # a file in the way, a loop of links, a name that is too long
        raise SpecError(asked, exc.strerror or str(exc), remedy) from None
    base = next(path for path in (root, *root.absolute().parents) if path.exists())
    if not os.access(base, os.W_OK):
        raise SpecError(asked, f"{base} cannot be written to", remedy)
    found = network_file_system(root)
    if found is not None:
        raise SpecError(
            asked,
            f"it is on a network file system ({found}), where SQLite's locks cannot be relied on",
            "Choose an --out on a disk of this machine",
        )


@contextmanager
def held(root: Path) -> Iterator[None]:
    """The folder, which is made if it is not there, is this process's meanwhile; a killed one frees it. Raises
    ``SpecError`` where another has it, or nothing can be written, ``StorageError`` for a full disk."""
    with _lock_file(root) as stream:
        if not _taken(stream) and not any(_taken(stream, after_s=LOOK_S) for _ in range(LOOKS)):
            raise SpecError(
                f"study folder {root}", "another process is writing to it", "Wait for it, or choose another --out"
            )
        yield


def _lock_file(root: Path) -> io.BufferedRandom:
    try:
        root.mkdir(parents=True, exist_ok=True)
        return lock_file(root / ".lock")
    except OSError as exc:
        raise_if_disk(exc, root / ".lock")  # told with what to do, whichever file it is
        asked, found = f"study folder {root}", f"nothing can be written there ({exc.strerror or exc})"
        raise SpecError(asked, found, "Choose another --out") from None


def _taken(stream: io.BufferedRandom, after_s: float = 0.0) -> bool:
    """Whether the lock is this process's now."""
    time.sleep(after_s)
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
