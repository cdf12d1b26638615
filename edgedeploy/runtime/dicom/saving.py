"""A DICOM file is written whole, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def save(data: Any, where: Path) -> None:
    """Write the data set ``data`` to ``where``, through a file beside it."""
    part = where.with_name(where.name + ".part")
    try:
        data.save_as(part, enforce_file_format=True)
        part.replace(where)
    except BaseException:
        if part.is_file():
            part.unlink()
        raise
