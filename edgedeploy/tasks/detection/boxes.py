"""What a detector's output tensors mean, as steps that study and product run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgedeploy.errors import MeasurementError, SpecError
from edgedeploy.runtime.pipeline.boxes import FORMATS, UNITS
from edgedeploy.runtime.pipeline.run import FrameError, Placement, finish
from edgedeploy.runtime.pipeline.steps import AtLeast, Best, Detections, OutputStep, Steps, Suppress
from edgedeploy.tasks.detection.coco import MOST_DETECTIONS

Floats = npt.NDArray[np.float64]

FITS: Final = ("squeeze", "letterbox")
PAD_GREY: Final = 114.0
"""Of 255: the ground of a letterbox."""

__all__ = ["FITS", "FORMATS", "PAD_GREY", "UNITS", "Layout", "rows_of"]


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

    def steps(self, names: Sequence[str]) -> tuple[OutputStep, ...]:
        """From a network's outputs of these ``names`` to the best boxes of an image, at most 100, best first, in pixels of
        the input. Raises ``SpecError`` for a name that no output has."""
        if self.joined:
            first = Detections("", "", "", self._name(names, self.joined, 0), self.box_format, self.box_unit)
        else:
            pair = self._name(names, self.boxes, 0), self._name(names, self.scores, 1)
            last = self._name(names, self.labels, 2) if self.labels or len(names) > 2 else ""
            first = Detections(*pair, last, "", self.box_format, self.box_unit)
        best = Suppress(self.nms_iou, MOST_DETECTIONS) if self.nms_iou > 0 else Best(MOST_DETECTIONS)
        return first, AtLeast(self.score_threshold), best

    def _name(self, names: Sequence[str], name: str, place: int) -> str:
        if name and name not in names:
            raise SpecError(f"output {name!r}", f"there are {', '.join(names)}", "Correct [task.options]")
        if not name and place >= len(names):
            raise SpecError(f"output {place + 1}", f"there are {', '.join(names)}", "Name it in [task.options]")
        return name or names[place]


def rows_of(steps: Sequence[OutputStep], outputs: Mapping[str, Any], placement: Placement) -> Floats:
    """The table (N, 6) that the steps make of a board's outputs. Raises ``MeasurementError`` for outputs of another form."""
    try:
        return np.asarray(finish(Steps((), tuple(steps)), outputs, placement), np.float64)
    except FrameError as exc:
        raise MeasurementError("boxes and scores that can be read", str(exc), "Correct the outputs' names") from None
