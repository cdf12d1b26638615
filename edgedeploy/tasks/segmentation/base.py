"""What segmentation tasks share: a U-Net, resizing, augmentation, loss, scoring at the mask's own size, pictures.

A subclass says where cases come from: :meth:`SegmentationTask.cases` and :meth:`SegmentationTask.load`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgedeploy.interfaces.task import Array, Case, Split, TrainRecipe
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Scalar
from edgedeploy.runtime.pipeline.resize import resized
from edgedeploy.runtime.pipeline.run import Placement, finish, prepare
from edgedeploy.runtime.pipeline.steps import (
    AgainstZero,
    ArgMax,
    Grey,
    InputStep,
    Normalise,
    OutputStep,
    Resize,
    Restore,
    Rgb,
    Standardise,
    Steps,
    Take,
    ToTensor,
)
from edgedeploy.tasks.batching import in_batches
from edgedeploy.tasks.images.reader import Shades
from edgedeploy.tasks.network import answered_maps, logit_channels, with_background
from edgedeploy.tasks.options import SegmentationOptions
from edgedeploy.tasks.segmentation.augment import Augmentation, augment
from edgedeploy.tasks.segmentation.metrics import Labels, metric_table, segmentation_metrics
from edgedeploy.tasks.segmentation.unet import build_unet

Fixed = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation, each one number or one per channel."""

CASES_IN_MEMORY: Final = 1024
CONTOUR_COLOURS: Final = ((255, 196, 0), (0, 190, 255), (255, 80, 160), (120, 230, 90))
"""Outline colours of the classes in order: amber, cyan, pink, green (apart for the common colour-vision deficits)."""


class SegmentationTask:
    """Base of the tasks that ship. Images are grey and networks see zero mean and unit variance, unless a subclass says
    otherwise by ``channels`` and :meth:`fixed`.

    Label maps hold 0 for background and ``i + 1`` for the i-th of ``classes``: the channel of the logits that stands for it.
    """

    augmentation = Augmentation()
    channels = 1

    def __init__(self, name: str, classes: Iterable[str], options: SegmentationOptions) -> None:
        self.name = name
        self.classes = {class_name: label for label, class_name in enumerate(classes, start=1)}
        self.options = options
        self.architecture: Mapping[str, Sequence[Scalar]] = {
            "resolution": options.resolutions,
            "upsampling": ("transposed", "resize"),
        }
        self.metrics: Mapping[str, MetricInfo] = metric_table(self.classes)
        self.baseline_recipe: TrainRecipe = options.baseline
        self.recovery_recipe: TrainRecipe = options.recovery
        self._resized = lru_cache(maxsize=CASES_IN_MEMORY)(self._resize_case)

    # -- what a subclass says

    def cases(self, split: Split) -> Sequence[Case]:
        """Cases of a split in a fixed order."""
        raise TypeError(f"{type(self).__name__} must say where its cases are")

    def load(self, case: Case) -> tuple[Shades, Labels]:
        """Image (H, W), or (H, W, 3) with three ``channels``, black 0 to white 255 (uint8, or float32 where its file has
        more bits), and label map uint8 (H, W), at the case's own size. Raises ``DataError``."""
        raise TypeError(f"{type(self).__name__} must say how a case is loaded")

    def fixed(self) -> Fixed | None:
        """Mean and standard deviation of pixels from 0 to 1 that stand for all images; None: each image has its own."""
        return None

    # -- the task protocol

    def build(self, **arch: Scalar) -> Any:
        return build_unet(
            in_channels=self.channels,
            classes=len(self.classes) + 1,
            base=self.options.base_channels,
            depth=self.options.depth,
            upsampling=str(arch["upsampling"]),
            seed=self.options.seed,
        )

    def input_specs(self, **arch: Scalar) -> tuple[TensorSpec, ...]:
        side = int(arch["resolution"])
        return (TensorSpec("image", "float32", (1, self.channels, side, side)),)

    def inputs(self, case: Case, **arch: Scalar) -> dict[str, Array]:
        found, _ = prepare(Steps(self._input_steps(int(arch["resolution"]))), self.frame(case))
        return found

    def frame(self, case: Case) -> Shades:
        return self.load(case)[0]

    def pipeline(self, outputs: Sequence[TensorSpec], **arch: Scalar) -> Steps:
        """The result is a label map uint8 (H, W) of the frame's size. Raises ``SpecError`` for other outputs."""
        answered_maps({"": np.zeros(outputs[0].shape)}, logit_channels(len(self.classes)), axes=2)
        return Steps(
            self._input_steps(int(arch["resolution"])), label_steps(outputs[0].name, channels=outputs[0].shape[1])
        )

    def _input_steps(self, side: int) -> tuple[InputStep, ...]:
        fixed = self.fixed()
        values = Standardise(255.0, 1e-3, ddof=1) if fixed is None else Normalise(255.0, *fixed)
        return (
            Grey() if self.channels == 1 else Rgb(),
            Resize(side, side, "box"),
            values,
            ToTensor("image", "NCHW", "float32"),
        )

    def evaluate(self, outputs: Mapping[str, Array], case: Case) -> dict[str, float | None]:
        _, truth = self.load(case)
        return segmentation_metrics(self.answer(outputs, truth.shape), truth, self.classes)

    def answer(self, outputs: Mapping[str, Array], size: tuple[int, ...]) -> Labels:
        """The label map of an answer at ``size`` (H, W). Raises ``SpecError`` for a network with other outputs."""
        answered_maps(outputs, logit_channels(len(self.classes)), axes=2)
        return label_map(outputs, size)

    # -- training

    def batches(self, seed: int, batch_size: int, **arch: Scalar) -> Iterator[tuple[Any, Any]]:
        """Batches of (N, C, R, R) float32 and (N, R, R) int64 tensors; a last batch of one is left out (batch norm)."""
        import torch

        side = int(arch["resolution"])
        rng = np.random.default_rng(seed)
        for chosen in in_batches(self.cases("train"), batch_size, rng):
            pairs = [self._resized(case, side) for case in chosen]
            images = torch.from_numpy(np.stack([image for image, _ in pairs])).float()
            images = (images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)) / 255
            labels = torch.from_numpy(np.stack([truth for _, truth in pairs])).long()
            images, labels = augment(images, labels, self.augmentation, seed=int(rng.integers(2**31)))
            fixed = self.fixed()
            if fixed is not None:
                mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in fixed)
                yield (images - mean) / std, labels
                continue
            mean = images.mean(dim=(2, 3), keepdim=True)
            deviation = images.std(dim=(2, 3), keepdim=True)
            yield (images - mean) / (deviation + 1e-3), labels

    def loss(self, outputs: Any, target: Any) -> Any:
        """Cross-entropy (background at half weight) plus soft Dice over the structures, taken over the whole batch."""
        import torch
        import torch.nn.functional as F  # noqa: N812

        outputs = with_background(outputs)
        classes = outputs.shape[1]
        weight = torch.ones(classes)
        weight[0] = 0.5
        entropy = F.cross_entropy(outputs, target, weight=weight)
        chance = outputs.softmax(dim=1)[:, 1:]
        truth = F.one_hot(target, classes).permute(0, 3, 1, 2)[:, 1:].float()
        overlap = (chance * truth).sum(dim=(0, 2, 3))
        total = chance.sum(dim=(0, 2, 3)) + truth.sum(dim=(0, 2, 3))
        return entropy + 1 - ((2 * overlap + 1) / (total + 1)).mean()

    # -- pictures

    def picture(self, case: Case, outputs: Mapping[str, Array] | None) -> npt.NDArray[np.uint8]:
        """The case with the outlines of its truth, or of the answer in ``outputs``."""
        image, truth = self.load(case)
        labels = truth if outputs is None else self.answer(outputs, truth.shape)
        shades = np.rint(image).astype(np.uint8)
        canvas = np.repeat(shades[..., None], 3, axis=2) if shades.ndim == 2 else shades.copy()
        for index, label in enumerate(self.classes.values()):
            canvas[outline(labels == label)] = CONTOUR_COLOURS[index % len(CONTOUR_COLOURS)]
        return canvas

    def _resize_case(self, case: Case, side: int) -> tuple[Shades, Labels]:
        image, truth = self.load(case)
        small = resized(image, side, side, "box")
        labels = Image.fromarray(truth).resize((side, side), Image.Resampling.NEAREST)
        return small, np.asarray(labels)


def label_steps(output: str, channels: int) -> tuple[OutputStep, ...]:
    """From logits (1, ``channels``, h, w) to the label map uint8 of the frame's size: the strongest class after bilinear
    interpolation; of a single channel, which stands against 0 for background, the class where it is above 0."""
    background = (AgainstZero("before"),) if channels == 1 else ()
    return Take(output), Restore("bilinear"), *background, ArgMax()


def label_map(outputs: Mapping[str, Array], size: tuple[int, ...]) -> Labels:
    """The label map of the first output, logits (1, C, h, w), at ``size`` (H, W): :func:`label_steps`."""
    name, logits = next(iter(outputs.items()))
    height, width = size
    place = Placement(height, width, 0, 0, height, width)
    found = finish(Steps((), label_steps(name, logits.shape[1])), {name: np.asarray(logits, np.float32)}, place)
    return np.asarray(found, np.uint8)


def outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The mask's pixels that touch something else, two pixels wide on large images so that it survives scaling down."""
    from scipy.ndimage import binary_erosion

    width = max(1, math.ceil(max(mask.shape) / 300))
    return mask & ~binary_erosion(mask, iterations=width)
