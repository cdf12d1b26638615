"""The front and the hypervolume of points whose every coordinate is to be small."""

from __future__ import annotations

from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]


def front_of(points: Floats) -> Floats:
    """The points that no other one is at least as good as in everything, sorted by the first coordinate."""
    ordered = np.unique(points, axis=0)
    kept: list[int] = []
    for index, point in enumerate(ordered):  # what dominates a point comes before it
        if not kept or not np.all(ordered[kept] <= point, axis=1).any():
            kept.append(index)
    return np.asarray(ordered[kept])


def hypervolume(front: Floats, reference: Floats) -> float:
    """The volume between a front and the reference, for any number of coordinates: sliced along the last one."""
    inside = front[np.all(front < reference, axis=1)]
    if inside.shape[1] == 1:
        return float(reference[0] - inside.min()) if len(inside) else 0.0
    ordered = inside[np.argsort(inside[:, -1], kind="stable")]
    edges = [*ordered[:, -1], reference[-1]]
    if inside.shape[1] == 2:
        reached = np.minimum.accumulate(ordered[:, 0]) if len(ordered) else ordered[:, 0]
        return float(np.sum((reference[0] - reached) * np.diff(edges)))
    return sum(
        hypervolume(front_of(ordered[: index + 1, :-1]), reference[:-1]) * (edges[index + 1] - edges[index])
        for index in range(len(ordered))
        if edges[index + 1] > edges[index]
    )
