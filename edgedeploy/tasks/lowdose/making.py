"""Pairs of files from scans of made-up slices, made once and kept: ``low/NNNN.tif`` and ``normal/NNNN.tif``, float32 in
HU.

They lie in the user's cache, in a folder that is named by all that decides them, and appear there whole: whoever makes
the same pairs at the same time gets the first one's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from edgedeploy.errors import SpecError
from edgedeploy.records.variant import digest_of
from edgedeploy.tasks.lowdose.phantoms import Slice, phantom
from edgedeploy.tasks.lowdose.scan import Scanner, scanned

LOW: Final = "low"
NORMAL: Final = "normal"
GROUPS: Final = "groups.csv"
RELEASE: Final = 1
"""Raised when the same settings make other pairs."""


@dataclass(frozen=True)
class Making:
    """``cases`` slices of ``side`` pixels, each of a body of its own, scanned with ``photons`` a ray across
    ``field_mm``."""

    cases: int
    side: int
    photons: float
    field_mm: float
    seed: int

    @property
    def digest(self) -> str:
        return digest_of({**vars(self), "release": RELEASE})[:16]


def made_pairs(making: Making, cache: Path | None = None) -> Path:
    """The folder of the pairs, made where it is not there yet: about 0.13 s for a slice of 128 x 128 on one core.
    Raises ``ModuleNotFoundError`` without scikit-image, ``SpecError`` for a cache that cannot be written to, or is full."""
    base = cache_folder() if cache is None else cache
    folder = base / making.digest
    if folder.is_dir():
        return folder
    try:
        base.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".part-", dir=base) as scratch:
            whole = Path(scratch) / making.digest
            _write(making, whole)
            try:
                whole.rename(folder)
            except OSError:
                if not folder.is_dir():  # nobody else was faster: the disk is at fault
                    raise
    except OSError as exc:
        remedy = "Let EDGEDEPLOY_CACHE name a folder that can be written to, or `root` real pairs"
        raise SpecError(f"keep made slices in {base}", os.strerror(exc.errno or 0), remedy) from exc
    return folder


def cache_folder() -> Path:
    """EDGEDEPLOY_CACHE, else the user's cache folder."""
    own = os.environ.get("EDGEDEPLOY_CACHE")
    base = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgedeploy"
    return base / "low-dose-ct"


def _write(making: Making, folder: Path) -> None:
    scanner = Scanner(making.photons, making.field_mm)
    for half in (LOW, NORMAL):
        (folder / half).mkdir(parents=True)
    rows = ["image,group"]
    for number in range(making.cases):
        name = f"{number:04d}.tif"
        # seeds of two numbers: slice and noise of a case do not hang on how many cases there are
        low, normal = scanned(phantom(making.side, (making.seed, number)), scanner, (making.seed, number, 1))
        _save(folder / LOW / name, low)
        _save(folder / NORMAL / name, normal)
        rows.append(f"{name},body {number:04d}")
    (folder / GROUPS).write_text("\n".join(rows) + "\n", encoding="utf-8")


def _save(path: Path, values: Slice) -> None:
    from PIL import Image

    Image.fromarray(values).save(path, compression="tiff_deflate")
