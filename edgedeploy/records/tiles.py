"""How a variant cuts its volumes: the value of ``tile`` in a search space, as it is written and as it is meant."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from edgedeploy.records.units import parse_quantity

EXACT: Final = "exact"
"""The overlap that makes the result of tiles that of the whole volume."""

MOST_SIDE: Final = 4096
MOST_OVERLAP: Final = 1024
_SIDES: Final = re.compile(r"[0-9]{1,9}(x[0-9]{1,9}){0,2}")


@dataclass(frozen=True)
class Tile:
    """``sides`` in voxels, one for all axes or one for each; or ``limit_bytes``, within which the tile is chosen that
    computes the fewest voxels. Neither: the whole volume at once. ``text`` is what a variant keeps."""

    text: str
    sides: tuple[int, ...] = ()
    limit_bytes: int = 0


def tile_of(value: object) -> Tile:
    """``64``, ``"96x96x64"``, ``"2 GiB"``, or 0 for the whole volume. Raises ``ValueError``."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(
            f"expected a side in voxels, sides such as '96x96x64', or memory such as '2 GiB', but got {value!r}"
        )
    text = str(value).strip()
    if text in ("", "0"):
        return Tile("")
    if not _SIDES.fullmatch(text):
        limit_bytes = int(parse_quantity(text, "bytes"))
        if limit_bytes < 1:
            raise ValueError(f"expected memory above 0, but got {value!r}")
        return Tile(text, limit_bytes=limit_bytes)
    sides = tuple(int(side) for side in text.split("x"))
    if not all(1 <= side <= MOST_SIDE for side in sides):
        raise ValueError(f"sides have 1 to {MOST_SIDE} voxels, but got {value!r}")
    return Tile("x".join(map(str, sides)), sides)  # "064" is who 64 is


def overlap_of(value: object) -> int | None:
    """Voxels to each side; None for ``"exact"``. Raises ``ValueError``."""
    if value in (EXACT, ""):
        return None
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_OVERLAP:
        raise ValueError(f"expected {EXACT!r} or 0 to {MOST_OVERLAP} voxels, but got {value!r}")
    return value
