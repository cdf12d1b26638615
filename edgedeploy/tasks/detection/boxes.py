"""From a detector's output tensors to boxes in the image, and how an image gets into a detector's input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgedeploy.errors import MeasurementError
from edgedeploy.tasks.detection.coco import MOST_DETECTIONS

Floats = npt.NDArray[np.float64]

FORMATS: Final = ("xyxy", "xywh", "cxcywh")
UNITS: Final = ("pixel", "share")
FITS: Final = ("squeeze", "letterbox")
PAD_GREY: Final = 114 / 255


@dataclass(frozen=True)
class Fit:
    """How an image of (height, width) lies in the input: x' = x * scale_x + left, y' = y * scale_y + top."""

    scale_x: float
    scale_y: float
    left: int = 0
    top: int = 0

    @classmethod
    def of(cls, how: str, image: tuple[int, int], inside: tuple[int, int]) -> Fit:
        """``"letterbox"`` keeps the aspect and centres."""
        scale_y, scale_x = inside[0] / image[0], inside[1] / image[1]
        if how == "squeeze":
            return cls(scale_x, scale_y)
        scale = min(scale_x, scale_y)
        height, width = (max(1, round(side * scale)) for side in image)
        return cls(width / image[1], height / image[0], (inside[1] - width) // 2, (inside[0] - height) // 2)

    def back(self, boxes: Floats, image: tuple[int, int]) -> Floats:
        """Corners (N, 4) of the input as corners of the image, cut to it."""
        moved = (boxes - [self.left, self.top] * 2) / ([self.scale_x, self.scale_y] * 2)
        return np.asarray(np.clip(moved, 0, [image[1], image[0]] * 2), np.float64)


@dataclass(frozen=True)
class Layout:
    """What the outputs mean.

    - ``boxes``, ``scores``, ``labels``: name of the output; without one the first, second and third.
    - ``joined``: name of one output (1, 4 + classes, boxes), as YOLOv8 has it, in place of the three.
    - ``box_format``: ``"xyxy"``, ``"xywh"`` or ``"cxcywh"``.
    - ``box_unit``: ``"pixel"`` of the input, or ``"share"`` of it.
    - ``score_threshold``: boxes with less are no detections.
    - ``nms_iou``: a box that overlaps a better one of its label by more is dropped; 0 drops none.
    """

    boxes: str = ""
    scores: str = ""
    labels: str = ""
    joined: str = ""
    box_format: str = "xyxy"
    box_unit: str = "pixel"
    score_threshold: float = 0.05
    nms_iou: float = 0.0

    def read(self, outputs: Mapping[str, Any], size: tuple[int, int]) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
        """Corners (N, 4) in pixels of the input of ``size`` (H, W), scores (N,) and labels (N,): the best of each image,
        at most 100, best first. Raises ``MeasurementError`` for outputs of another form."""
        boxes, scores, labels = self._joined(outputs) if self.joined else self._separate(outputs)
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise MeasurementError("finite boxes and scores", "NaN or Inf", "Choose a wider precision")
        kept = np.flatnonzero(scores >= self.score_threshold)
        boxes, scores, labels = self._corners(boxes[kept], size), scores[kept], labels[kept]
        order = np.argsort(-scores, kind="stable")
        if self.nms_iou > 0:
            order = order[suppressed(boxes[order], labels[order], self.nms_iou)]
        order = order[:MOST_DETECTIONS]
        return boxes[order], scores[order], labels[order]

    def _joined(self, outputs: Mapping[str, Any]) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
        rows = self._named(outputs, self.joined, 0)
        rows = rows[0] if rows.ndim == 3 else rows
        if rows.ndim != 2 or min(rows.shape) < 5:
            raise MeasurementError("one output of boxes and scores", f"its shape is {rows.shape}", "Name three outputs")
        rows = rows.T if rows.shape[0] < rows.shape[1] else rows
        return rows[:, :4], rows[:, 4:].max(axis=1), rows[:, 4:].argmax(axis=1)

    def _separate(self, outputs: Mapping[str, Any]) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
        boxes, scores = self._named(outputs, self.boxes, 0), self._named(outputs, self.scores, 1)
        batched = boxes.ndim == 3 and boxes.shape[0] == 1
        if batched:
            boxes, scores = boxes[0], scores[0]
        if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape[:1] != boxes.shape[:1]:
            found = f"boxes {boxes.shape} and scores {scores.shape}"
            raise MeasurementError("boxes (N, 4) and scores (N,) or (N, classes)", found, "Correct the outputs' names")
        if scores.ndim == 2:
            return boxes, scores.max(axis=1), scores.argmax(axis=1)
        labels = self._named(outputs, self.labels, 2)
        labels = labels[0] if batched else labels
        if labels.shape != scores.shape:
            found = f"scores {scores.shape} and labels {labels.shape}"
            raise MeasurementError("a label for each score", found, "Correct the outputs' names")
        return boxes, scores, np.rint(labels).astype(np.int64)

    def _named(self, outputs: Mapping[str, Any], name: str, place: int) -> Floats:
        if name and name not in outputs:
            raise MeasurementError(f"output {name!r}", f"there are {', '.join(outputs)}", "Correct [task.options]")
        values = list(outputs.values())
        if not name and place >= len(values):
            raise MeasurementError(
                f"output {place + 1}", f"there are {', '.join(outputs)}", "Name it in [task.options]"
            )
        return np.asarray(outputs[name] if name else values[place], np.float64)

    def _corners(self, boxes: Floats, size: tuple[int, int]) -> Floats:
        if self.box_unit == "share":
            boxes = boxes * ([size[1], size[0]] * 2)
        first, second = boxes[:, :2], boxes[:, 2:]
        if self.box_format == "xyxy":
            return boxes
        start = first - second / 2 if self.box_format == "cxcywh" else first
        return np.concatenate([start, start + second], axis=1)


def suppressed(boxes: Floats, labels: npt.NDArray[np.int64], most: float) -> npt.NDArray[np.int64]:
    """Places of corners (N, 4), best first, that no better one of their label overlaps by more than ``most`` (IoU)."""
    areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    alive, kept = np.ones(len(boxes), bool), []
    for place in range(len(boxes)):
        if not alive[place]:
            continue
        kept.append(place)
        low, high = np.maximum(boxes[place, :2], boxes[:, :2]), np.minimum(boxes[place, 2:], boxes[:, 2:])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        overlap = shared / np.maximum(areas[place] + areas - shared, 1e-12)
        alive &= ~((overlap > most) & (labels == labels[place]))
        if len(kept) == 10 * MOST_DETECTIONS:
            break
    return np.array(kept, np.int64)
