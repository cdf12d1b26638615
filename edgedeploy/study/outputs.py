"""The outputs of measured variants, which the report draws pictures of: kept for front, baselines and likely picks.

They are by far the largest part of a measurement (tens of megabytes for images), and the report shows the pick's and the
baseline's alone. All can be made again by measuring again; nothing else reads them. They are removed one file at a time,
after the evidence of what beats them is stored, so that a kill at any point leaves too many and never too few.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Final

from edgedeploy.study.store import Store

FOLDER: Final = "outputs"


def prune_outputs(store: Store, kept: Collection[str], among: Collection[str] | None = None) -> int:
    """Remove the stored outputs of all variants whose digests are not in ``kept``; with ``among``, of these alone. Returns
    how many bytes that frees; a file that cannot be removed stays."""
    freed = 0
    for path in (store.root / FOLDER).glob("*.npz"):
        digest, dash, _ = path.stem.rpartition("-")
        if dash and digest not in kept and (among is None or digest in among):
            with suppress(OSError):
                size = path.lstat().st_size
                path.unlink()
                freed += size
    return freed
