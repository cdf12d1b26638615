"""The values of ``tile`` and ``overlap`` in a study's search space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgedeploy.records.tiles import overlap_of, tile_of
from edgedeploy.records.variant import Scalar
from edgedeploy.spec.source import SpecSource


def check_tiles(source: SpecSource, space: Mapping[str, Sequence[Scalar]]) -> None:
    """Refuse tiles and overlaps that are none, and an overlap where nothing is cut."""
    for key, read in (("tile", tile_of), ("overlap", overlap_of)):
        for value in space.get(key, ()):
            try:
                read(value)
            except ValueError as exc:
                raise source.error(f"space.{key}", str(exc)) from None
    if "overlap" in space and not any(tile_of(value).text for value in space.get("tile", ())):
        raise source.error(
            "space.overlap", "no tile overlaps with another", 'Add `tile`, such as tile = [0, 96, "2 GiB"]'
        )
