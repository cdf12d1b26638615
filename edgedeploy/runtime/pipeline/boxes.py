"""Boxes of a detector: from its outputs to the frame's pixels.

A table of boxes is float64 (N, 6): left, top, right, bottom, score, label. Until they are restored the corners are in pixels
of the artifact's input.
"""

from __future__ import annotations

from typing import Any, Mapping

from edgedeploy.runtime.pipeline.numpy_later import np

FORMATS = ("xyxy", "xywh", "cxcywh")
UNITS = ("pixel", "share")
MOST_BOXES = 10000
"""That are looked at after the threshold: suppression takes time by their square."""

SAME_OVERLAP = 0.9
"""From which overlap on two boxes of one label, with scores that are equal as far as the outputs are, count as one."""


class BoxError(ValueError):
    """Outputs that are no boxes: what was expected, and what was given."""


def table(outputs: Mapping[str, Any], boxes: str, scores: str, labels: str, joined: str) -> Any:
    """The table of outputs as they are: ``joined`` is (1, 4 + classes, N) as YOLOv8 has it; else ``boxes`` (N, 4) and
    ``scores`` (N,) with ``labels`` (N,), or ``scores`` (N, classes), each with or without a batch axis of 1."""
    if joined:
        corners, points, found = _joined(_named(outputs, joined))
    else:
        corners, points, found = _separate(outputs, boxes, scores, labels)
    rows = np.concatenate([corners, points[:, None], found[:, None]], axis=1)
    if not np.isfinite(rows).all():
        raise BoxError("expected finite boxes and scores, but got NaN or infinity")
    return rows


def _named(outputs: Mapping[str, Any], name: str) -> Any:
    if name not in outputs:
        raise BoxError(f"expected an output {name!r}, but got {', '.join(outputs)}")
    return np.asarray(outputs[name], np.float64)


def _joined(rows: Any) -> Any:
    shape = rows.shape
    rows = rows[0] if rows.ndim == 3 and len(rows) == 1 else rows
    if rows.ndim != 2 or not 5 <= rows.shape[0] < rows.shape[1]:  # of others nobody knows which axis is that of boxes
        wanted = "one output of boxes and scores, (1, 4 + classes, N) with more boxes N than that"
        raise BoxError(f"expected {wanted}, but its shape is {shape}")
    rows = rows.T
    return rows[:, :4], rows[:, 4:].max(axis=1), rows[:, 4:].argmax(axis=1)


def _separate(outputs: Mapping[str, Any], boxes: str, scores: str, labels: str) -> Any:
    corners, points = _named(outputs, boxes), _named(outputs, scores)
    batched = corners.ndim == 3 and corners.shape[0] == 1 and points.shape[:1] == (1,)
    if batched:
        corners, points = corners[0], points[0]
    if corners.ndim != 2 or corners.shape[1] != 4 or points.shape[:1] != corners.shape[:1] or points.ndim > 2:
        given = f"boxes {corners.shape} and scores {points.shape}"
        raise BoxError(f"expected boxes (N, 4) and scores (N,) or (N, classes), but got {given}")
    if points.ndim == 2:
        if not points.shape[1]:
            raise BoxError("expected scores of a class or more, but got none")
        return corners, points.max(axis=1), points.argmax(axis=1)
    found = _named(outputs, labels)
    found = found[0] if batched and found.shape[:1] == (1,) else found
    if found.shape != points.shape:
        raise BoxError(f"expected a label for each score, but got scores {points.shape} and labels {found.shape}")
    return corners, points, np.rint(found)


def corners(rows: Any, form: str, unit: str, height: int, width: int) -> Any:
    """The table with corners in pixels of the input of ``height`` x ``width``."""
    boxes = rows[:, :4] * ([width, height] * 2) if unit == "share" else rows[:, :4]
    if form != "xyxy":
        first, second = boxes[:, :2], boxes[:, 2:]
        start = first - second / 2 if form == "cxcywh" else first
        boxes = np.concatenate([start, start + second], axis=1)
    return np.concatenate([boxes, rows[:, 4:]], axis=1)


def best_first(rows: Any) -> Any:
    return rows[np.argsort(-rows[:, 4], kind="stable")]


def suppressed(rows: Any, most: float, enough: int = MOST_BOXES) -> Any:
    """The rows, best first, that no better one of their label overlaps by more than ``most`` (IoU); ``enough`` of them."""
    rows = best_first(rows)[:MOST_BOXES]
    alive, kept = np.ones(len(rows), bool), []
    for place in range(len(rows)):
        if alive[place]:
            kept.append(place)
            alive &= ~((overlaps(rows[place], rows) > most) & (rows[:, 5] == rows[place, 5]))
            if len(kept) == enough:
                break
    return rows[kept]


def overlaps(row: Any, rows: Any) -> Any:
    """IoU of one row's box with each of ``rows``, (N,)."""
    areas = np.prod(np.maximum(rows[:, 2:4] - rows[:, :2], 0), axis=1)
    own = float(np.prod(np.maximum(row[2:4] - row[:2], 0)))
    low, high = np.maximum(row[:2], rows[:, :2]), np.minimum(row[2:4], rows[:, 2:4])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    return shared / np.maximum(own + areas - shared, 1e-12)


def renamed(rows: Any, labels: Any, ids: Any) -> Any:
    """The rows of ``labels``, each with the one of ``ids`` at the same place; others are no detections."""
    known = dict(zip(labels, ids))
    found = [known.get(int(label)) for label in rows[:, 5]]
    kept = np.array([name is not None for name in found], bool)
    rows = rows[kept].copy()
    rows[:, 5] = [name for name in found if name is not None]
    return rows


def share_alone(found: Any, expected: Any, nearness: float) -> float:
    """The share of boxes of either table without its like in the other: of the same label, overlapping by
    :data:`SAME_OVERLAP` or equal (a box without an area overlaps nothing), with a score that is no more than ``nearness``
    away."""
    if not len(found) and not len(expected):
        return 0.0
    free, pairs = np.ones(len(found), bool), 0
    for row in expected:
        like = free & (found[:, 5] == row[5]) & (np.abs(found[:, 4] - row[4]) <= nearness)
        like &= (overlaps(row, found) >= SAME_OVERLAP) | (found[:, :4] == row[:4]).all(axis=1)
        if like.any():
            free[int(np.argmax(like))] = False
            pairs += 1
    return 1.0 - 2.0 * pairs / (len(found) + len(expected))
