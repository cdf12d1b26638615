"""How many tensors are held in memory at a time, where all of them would be too many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


def passes(sizes: Mapping[str, int], limit: int) -> Iterator[list[str]]:
    """The names in order, in groups of at most ``limit`` bytes (or of one name that is larger by itself); ``sizes`` are in
    bytes."""
    group: list[str] = []
    held = 0
    for name, size in sizes.items():
        if group and held + size > limit:
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    if group:
        yield group
