"""Splits that do not leak: the same picture, or nearly the same, is never on two sides.

The same frozen picture is often exported and annotated twice. A model that was trained on a near copy of a case was
trained on the case.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgedeploy.tasks.images.reader import Shades

T = TypeVar("T", bound=str)
Thumbnail = npt.NDArray[np.float32]

THUMBNAIL_SIDE: Final = 32

_ROWS_AT_ONCE: Final = 1024


def pixel_digest(image: Shades) -> str:
    """SHA-256 of the shape and 16 bits of a grey image, black 0 to white 255: equal for the same picture in files of
    different formats."""
    deep = np.rint(image.astype(np.float64) * 257).astype(np.uint16)
    return hashlib.sha256(repr(image.shape).encode() + deep.tobytes()).hexdigest()


def thumbnail(image: Shades) -> Thumbnail:
    """A grey image (H, W) as a vector of ``THUMBNAIL_SIDE**2`` box means with zero mean and unit length.

    The dot product of two is their correlation.
    """
    side = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    small = np.asarray(Image.fromarray(image).resize(side, Image.Resampling.BOX), dtype=np.float32).ravel()
    small = small - small.mean()
    return np.asarray(small / max(float(np.linalg.norm(small)), 1e-6), dtype=np.float32)


def near_copies(thumbnails: Sequence[Thumbnail], correlation: float) -> list[int]:
    """A group number for every image: those that correlate at least so much share one, and so on transitively.

    The number is the index of the group's first image.
    """
    parent = list(range(len(thumbnails)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    stacked = np.stack(thumbnails)
    for start in range(0, len(stacked), _ROWS_AT_ONCE):
        alike = stacked[start : start + _ROWS_AT_ONCE] @ stacked.T >= correlation
        for row, column in np.argwhere(alike):
            first, second = sorted((root(start + int(row)), root(int(column))))
            parent[second] = first
    return [root(index) for index in range(len(thumbnails))]


def joined(groups: Sequence[int], names: Sequence[str | None]) -> list[int]:
    """``groups`` with those united that share a name, and so on transitively; the number is that of the first image."""
    owner: dict[int, int] = {}

    def root(group: int) -> int:
        while owner.setdefault(group, group) != group:
            group = owner[group]
        return group

    first: dict[str, int] = {}
    for group, name in zip(groups, names, strict=True):
        if name is not None:
            low, high = sorted((root(first.setdefault(name, group)), root(group)))
            owner[high] = low
    return [root(group) for group in groups]


def deal(groups: Sequence[int], counts: Mapping[T, int], rest: T, seed: int) -> dict[T, list[int]]:
    """Assign whole groups to the splits of ``counts`` in a seeded order until each has its count; the split ``rest``
    gets all others.

    Returns sorted indices into ``groups``. A split stays below its count when every group left is too large for it.
    """
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    order = np.array(sorted(members))
    np.random.default_rng(seed).shuffle(order)
    dealt: dict[T, list[int]] = {name: [] for name in (*counts, rest)}
    for group in order.tolist():
        room = [name for name, count in counts.items() if len(dealt[name]) + len(members[group]) <= count]
        dealt[room[0] if room else rest].extend(members[group])
    return {name: sorted(indices) for name, indices in dealt.items()}
