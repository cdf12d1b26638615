"""Detection: a COCO file, its images, and a detector that is there already (ONNX, or torch through ``network``).

    ROOT/annotations.json  ROOT/images/*      boxes as COCO has them: left, top, width, height in pixels

mAP is that of pycocotools. The detector is not trained: it comes with its weights, and what is searched is its precision,
target and settings (and one-shot pruning of a torch network).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgedeploy.errors import DataError, MeasurementError, SpecError
from edgedeploy.interfaces.task import Array, Case
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Scalar
from edgedeploy.reference.take_in import take_in
from edgedeploy.runtime.pipeline.run import placement_of, prepare
from edgedeploy.runtime.pipeline.steps import (
    Categories,
    InputStep,
    Letterbox,
    OutputStep,
    Resize,
    RestoreBoxes,
    Steps,
    ToTensor,
)
from edgedeploy.tasks.detection.boxes import FITS, FORMATS, PAD_GREY, UNITS, Layout, rows_of
from edgedeploy.tasks.detection.coco import Box, Found, Matches, Picture, match, mean_precision, read_coco
from edgedeploy.tasks.images.dicom import is_dicom
from edgedeploy.tasks.images.files import shown_size
from edgedeploy.tasks.images.rules import ImageRules
from edgedeploy.tasks.network import Maker, build_network
from edgedeploy.tasks.pictures.base import PictureTask
from edgedeploy.tasks.pictures.entries import Entry, data_folder
from edgedeploy.tasks.pictures.options import PictureOptions
from edgedeploy.tasks.pictures.table import inside
from edgedeploy.tasks.places import place_of
from edgedeploy.tasks.splitting import SPLIT_WORDS

SHOWN_SCORE: Final = 0.3
_TRUTH, _ANSWER = (90, 200, 90), (255, 170, 0)


@dataclass(frozen=True)
class DetectionOptions(PictureOptions, Layout):
    """The data, the detector, and what its outputs mean (:class:`edgedeploy.tasks.detection.boxes.Layout`).

    - ``annotations``: the COCO file below ``root``.
    - ``images``: folder below ``root`` with its images.
    - ``model``: an ONNX file, relative to the study file; or ``network`` for one in torch.
    - ``input``: the ONNX file's input where the file leaves its shape open; ``resolutions`` is its side.
    - ``resolutions``: side of a torch network's input.
    - ``group_key``, ``split_key``: key of the file's images that names their group or split.
    - ``fit``: ``"letterbox"`` keeps the aspect on grey ground, ``"squeeze"`` does not.
    - ``first_label``: the detector's number for the first category by id (1 where 0 is background).
    - ``labels_are_ids``: the detector's labels are the file's category ids.
    - ``flip``, ``rotation_deg``, ``base_channels``, ``baseline``, ``recovery``: without effect, a detector is not trained.
    """

    annotations: str = "annotations.json"
    images: str = "images"
    model: str = ""
    input: str = ""
    group_key: str = ""
    split_key: str = ""
    colour: str = "rgb"
    resolutions: tuple[int, ...] = (320,)
    intensity: str = "fixed"
    fit: str = "letterbox"
    first_label: int = 0
    labels_are_ids: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("fit", FITS), ("box_format", FORMATS), ("box_unit", UNITS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {' or '.join(known)}, but got {getattr(self, name)!r}")
        for name in ("score_threshold", "nms_iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share, 0 to 1, but got {getattr(self, name)}")

        if len(self.resolutions) > 1 and self.box_unit == "pixel":
            raise ValueError('several resolutions need box_unit = "share": pixels of which input would not be known')


class Detection(PictureTask):
    """See :class:`edgedeploy.Task`, ``ScoresSplit``, ``Grouped`` and ``Pictured``: a torch detector with its weights."""

    trained = True
    split_resamples = 200  # COCO's accumulation takes milliseconds a category

    def __init__(self, options: DetectionOptions, base: Path, maker: Maker | None = None) -> None:
        root = data_folder(options.root, base, f"{options.annotations} and {options.images}/")
        place = inside(root, options.annotations, "task.options.annotations")
        self.categories, pictures = read_coco(place, root / options.images, options.group_key, options.split_key)
        self._pictures = {picture.name: picture for picture in pictures}
        if len(self._pictures) < len(pictures):
            raise DataError(f"annotations {place}", "two images have one file_name", "Keep one of them")
        super().__init__("detection", options, root, [_entry(picture, place) for picture in pictures], maker)
        rules = ImageRules(options.value_range, options.page)
        for picture in pictures:
            _check_size(picture, place, rules)
        self._options = options
        self._ids = sorted(self.categories)
        self._sizes = lru_cache(maxsize=None)(lambda case: self.image_of(case).shape[1:])
        self._matched: dict[str, tuple[Mapping[str, Array], Matches]] = {}
        self.metrics: Mapping[str, MetricInfo] = {
            "found_50": MetricInfo("maximize", "1", "share of an image's objects that are found (IoU 0.5)", bound=1.0)
        }
        self.split_metrics = {
            "map": MetricInfo("maximize", "1", "COCO mAP, IoU 0.5 to 0.95", bound=1.0),
            "map_50": MetricInfo("maximize", "1", "COCO mAP at IoU 0.5", bound=1.0),
            "map_75": MetricInfo("maximize", "1", "COCO mAP at IoU 0.75", bound=1.0),
            "recall": MetricInfo("maximize", "1", "COCO average recall, 100 detections an image", bound=1.0),
        }

    def build(self, **arch: Scalar) -> Any:
        if self._maker is None:
            raise SpecError(
                "a torch model of the detector", "an ONNX file has none", "Search its precision and settings"
            )
        return build_network(self._maker, {**self.network_offer(), **arch}, self.options.seed)

    def network_offer(self) -> dict[str, Any]:
        return {**super().network_offer(), "classes": len(self.categories), "num_classes": len(self.categories)}

    def size(self, **arch: Scalar) -> tuple[int, int]:
        """Height and width of the input."""
        shape = self.input_specs(**arch)[0].shape
        return shape[2], shape[3]

    def inputs(self, case: Case, **arch: Scalar) -> dict[str, Array]:
        return prepare(Steps(self.input_steps(**arch)), self.frame(case))[0]

    def input_steps(self, **arch: Scalar) -> tuple[InputStep, ...]:
        colour, _, values, _ = super().input_steps(**{"resolution": 1, **arch})
        height, width = self.size(**arch)
        squeezed = self._options.fit == "squeeze"
        ground = PAD_GREY / 255 if self.options.value_range == "raw" else PAD_GREY
        sized = Resize(height, width, "area") if squeezed else Letterbox(height, width, "area", ground)
        return colour, sized, values, ToTensor(self.input_specs(**arch)[0].name, "NCHW", "float32")

    def pipeline(self, outputs: Sequence[TensorSpec], **arch: Scalar) -> Steps:
        """The result is a table (N, 6): left, top, right, bottom in pixels of the frame, score and category id, best first.
        Raises ``SpecError`` for a network of other outputs."""
        return Steps(self.input_steps(**arch), self._box_steps([spec.name for spec in outputs]))

    def _box_steps(self, names: Sequence[str]) -> tuple[OutputStep, ...]:
        """Labels that stand for no category are no detections: background, or classes that the data does not have."""
        first = self._options.first_label
        labels = self._ids if self._options.labels_are_ids else [first + place for place in range(len(self._ids))]
        return (*self._options.steps(names), RestoreBoxes(), Categories(tuple(labels), tuple(self._ids)))

    def found(self, outputs: Mapping[str, Array], case: Case) -> list[Found]:
        """The answer's boxes in pixels of the image, best first."""
        sides = {"resolution": self.options.resolutions[0]}  # of several any: boxes are shares of the input then
        placement = placement_of(Steps(self.input_steps(**sides)), *self._sizes(case))
        try:
            steps = self._box_steps(list(outputs))
        except SpecError as exc:  # of a network whose outputs were known when it ran alone
            raise MeasurementError(exc.asked, exc.found, exc.remedy) from None
        rows = rows_of(steps, outputs, placement)
        return [
            Found(int(category), (left, top, right - left, bottom - top), score)
            for left, top, right, bottom, score, category in rows.tolist()
        ]

    def truth(self, case: Case) -> tuple[Box, ...]:
        return self._pictures[self._entries[case].name].boxes

    def matches(self, outputs: Mapping[str, Array], case: Case) -> Matches:
        """Remembered for the outputs that were seen last: a split is scored many times."""
        seen = self._matched.get(case.id)
        if seen is None or seen[0] is not outputs:
            seen = (outputs, match(self.truth(case), self.found(outputs, case), self._ids))
            self._matched[case.id] = seen
        return seen[1]

    def evaluate(self, outputs: Mapping[str, Array], case: Case) -> dict[str, float | None]:
        return {"found_50": self.matches(outputs, case).found_half}

    def score(self, cases: Sequence[Case], outputs: Sequence[Mapping[str, Array]]) -> dict[str, float | None]:
        return mean_precision([self.matches(o, c) for c, o in zip(cases, outputs, strict=True)], self._ids)

    def picture(self, case: Case, outputs: Mapping[str, Array] | None) -> npt.NDArray[np.uint8]:
        """The case with its objects, or with the answers of at least 0.3 in amber."""
        from PIL import Image as Pillow
        from PIL import ImageDraw

        image = np.round(np.clip(self.image_of(case), 0, 1) * 255).astype(np.uint8)
        page = Pillow.fromarray(
            np.repeat(image[0][..., None], 3, 2) if len(image) == 1 else image.transpose(1, 2, 0).copy()
        )
        shown = (
            self.truth(case) if outputs is None else [b for b in self.found(outputs, case) if b.score >= SHOWN_SCORE]
        )
        pen = ImageDraw.Draw(page)
        for box in shown:
            left, top, width, height = box.xywh
            colour = _TRUTH if outputs is None else _ANSWER
            pen.rectangle((left, top, left + width, top + height), outline=colour, width=2)
        return np.asarray(page)


class OnnxDetection(Detection):
    """A detector that is an ONNX file: see ``edgedeploy.ReadyMade``."""

    def __init__(self, options: DetectionOptions, base: Path) -> None:
        self._path = place_of(base, options.model)
        sides = (1, options.channels, options.resolutions[0], options.resolutions[0])
        self.taken = take_in(self._path, {options.input: sides} if options.input else {})
        super().__init__(options, base)
        self.architecture = {}
        spec = self.taken.inputs[0]
        wanted = (1, self.options.channels)
        if len(self.taken.inputs) != 1 or spec.shape[:2] != wanted or len(spec.shape) != 4 or spec.dtype != "float32":
            known = ", ".join(f"{item.name} {item.dtype} {item.shape}" for item in self.taken.inputs)
            remedy = "One input (1, channels, height, width) of float32 is taken; write a task for others"
            raise SpecError(f"task.options.model = {options.model!r}", f"its inputs are {known}", remedy)
        self._check_outputs([output.name for output in self.taken.outputs])

    def _check_outputs(self, names: Sequence[str]) -> None:
        for key in ("boxes", "scores", "labels", "joined"):
            name = getattr(self._options, key)
            if name and name not in names:
                found = f"the model's outputs are {', '.join(names)}"
                raise SpecError(f"task.options.{key} = {name!r}", found, "Correct the name")

    @cached_property
    def source_sha256(self) -> str:
        return self.taken.sha256

    def reference_model(self) -> bytes:
        return self.taken.data

    def input_specs(self, **arch: Scalar) -> tuple[TensorSpec, ...]:
        return self.taken.inputs


def make_detection(options: DetectionOptions, base: Path, maker: Maker | None = None) -> Detection:
    """The task for an ONNX file, or for a torch network. Raises ``SpecError`` for neither, and for both."""
    if bool(options.model) == (maker is not None):
        found = "both are named" if maker is not None else "neither is named"
        raise SpecError("the detector: task.options.model or network", found, "Name an .onnx file, or file.py:function")
    return Detection(options, base, maker) if maker is not None else OnnxDetection(options, base)


def _check_size(picture: Picture, place: Path, rules: ImageRules) -> None:
    """Raises ``DataError`` where the image is not of the size that its boxes were drawn on: it was scaled or turned."""
    if picture.size is None or is_dicom(picture.path):
        return
    shown = shown_size(picture.path, rules)
    if shown != picture.size:
        asked = f"annotations {place}, image {picture.name}"
        found = (
            f"it says {picture.size[0]} x {picture.size[1]} pixels, and the file is shown at {shown[0]} x {shown[1]}"
        )
        remedy = (
            "Boxes are in pixels of the image: bring the files that they were drawn on, upright, or scale the boxes"
        )
        raise DataError(asked, found, remedy)


def _entry(picture: Picture, place: Path) -> Entry:
    if picture.split is not None and picture.split not in SPLIT_WORDS:
        asked = f"annotations {place}, image {picture.name}"
        raise DataError(asked, f"split {picture.split!r}", f"Known: {', '.join(SPLIT_WORDS)}")
    split = SPLIT_WORDS[picture.split] if picture.split else None
    return Entry(picture.name, picture.path, group=picture.group, split=split)
