"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import io
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL_PREFIX = ".part-"


def write_atomic(path: Path, data: bytes) -> None:
    """Write beside the target, flush to disk, rename over it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{PARTIAL_PREFIX}{uuid.uuid4().hex}")
    try:
        with part.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """A compressed ``.npz`` of plain arrays, whole or not at all."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(path, buffer.getvalue())


def read_arrays(path: Path) -> dict[str, Any]:
    """The arrays of an ``.npz`` by name; one that holds pickled objects raises ``ValueError``."""
    import numpy as np

    with np.load(path, allow_pickle=False) as data:
        return {name: data[name] for name in data.files}


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
    """An empty folder to fill. It becomes ``path`` when the block ends, and is removed when the block raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{PARTIAL_PREFIX}{uuid.uuid4().hex}")
    part.mkdir()
    try:
        yield part
        if path.exists():
            shutil.rmtree(path)
        part.replace(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def remove_partials(root: Path) -> None:
    """Remove the half-written files and folders that a killed process left below ``root``."""
    for path in root.rglob(f"{PARTIAL_PREFIX}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
