"""Image to image: denoising, artefact removal, translation. Two folders of pairs with equal names.

    ROOT/input/*.png  ROOT/target/*.png              splits are drawn
    ROOT/SPLIT/input/*.png  ROOT/SPLIT/target/*.png  train, val, test as they are; what is not there is drawn from train

``groups`` names a CSV table below ROOT with the columns ``image,group``, for pairs that belong together. Images are squeezed
to the square of the model; answers are brought back to the target's own size and compared there, black 0 to white 1: mean
absolute error, root mean square error, PSNR and SSIM (MONAI).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgedeploy.errors import MeasurementError
from edgedeploy.interfaces.task import Array, Case, TrainRecipe
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Scalar
from edgedeploy.runtime.pipeline.run import FrameError, Placement, finish
from edgedeploy.runtime.pipeline.steps import Clip, OutputStep, Restore, Steps, Take
from edgedeploy.tasks.images.files import image_files
from edgedeploy.tasks.network import Maker, answered_maps
from edgedeploy.tasks.options import at_least
from edgedeploy.tasks.pictures.base import Image, PictureTask
from edgedeploy.tasks.pictures.entries import data_folder, pairs_of
from edgedeploy.tasks.pictures.options import PictureOptions
from edgedeploy.tasks.segmentation.unet import build_unet

MOST_PSNR_DB: Final = 100.0
"""Stated for equal images, whose PSNR is infinite."""

SSIM_WINDOW_PX: Final = 11


@dataclass(frozen=True)
class ImageToImageOptions(PictureOptions):
    """Pairs of images. Pixels are 0 to 1 in the network, because the answer has to be in the target's own values.

    - ``inputs``, ``targets``: folder below ``root``; pairs have equal names.
    - ``groups``: a CSV table below ``root`` with the columns ``image,group``; images of one group are on one side.
    - ``intensity``: ``"fixed"`` alone.
    - ``residual``: the network learns what has to be added to the input, as suits noise.
    - ``depth``: steps down of the kind's own network.
    - ``upsampling``: ways to step up that ``upsampling`` in ``[space]`` may name, the baseline's first.
    """

    inputs: str = "input"
    targets: str = "target"
    groups: str = ""
    intensity: str = "fixed"
    residual: bool = True
    depth: int = 3
    upsampling: tuple[str, ...] = ("transposed", "resize")
    rotation_deg: float = 0.0
    baseline: TrainRecipe = field(
        default_factory=lambda: TrainRecipe(epochs=60, batch_size=8, learning_rate=2e-3, weight_decay=1e-4)
    )
    recovery: TrainRecipe = field(
        default_factory=lambda: TrainRecipe(
            epochs=8, batch_size=8, learning_rate=1e-3, warmup_epochs=0.5, distill_weight=0.3
        )
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, depth=1)
        if self.intensity != "fixed":
            raise ValueError('intensity is "fixed": an image brought to unit variance has lost the values to answer')
        if self.value_range == "raw":
            raise ValueError(
                'value_range is two numbers, "window" or left out: answers are scored from black 0 to white 1'
            )
        step = 2**self.depth
        if any(side % step for side in self.resolutions):
            raise ValueError(f"resolutions must be multiples of {step} (2^depth), but got {list(self.resolutions)}")


class ImageToImage(PictureTask):
    """See :class:`edgedeploy.Task`, ``Trainable``, ``Grouped`` and ``Pictured``."""

    target_key = "target"

    def __init__(self, options: ImageToImageOptions, base: Path, maker: Maker | None = None) -> None:
        root = data_folder(options.root, base, f"{options.inputs}/ and {options.targets}/")
        entries = pairs_of(root, (options.inputs, options.targets), options.groups, image_files)
        super().__init__("image-to-image", options, root, entries, maker)
        self._options = options
        if maker is None:
            self.architecture = {**self.architecture, "upsampling": options.upsampling}
        self.metrics: Mapping[str, MetricInfo] = {
            "psnr_db": MetricInfo("maximize", "dB", "peak signal-to-noise ratio, pixels 0 to 1"),
            "ssim": MetricInfo(
                "maximize", "1", "structural similarity, Gaussian window of 11 px", bound=1.0, yes_or_no=False
            ),
            "mae": MetricInfo("minimize", "1", "mean absolute error, pixels 0 to 1", bound=0.0, yes_or_no=False),
            "rmse": MetricInfo("minimize", "1", "root mean square error, pixels 0 to 1", bound=0.0, yes_or_no=False),
        }

    def own_network(self, **arch: Scalar) -> Any:
        channels = self.options.channels
        network = build_unet(
            in_channels=channels,
            classes=channels,
            base=self.options.base_channels,
            depth=self._options.depth,
            upsampling=str(arch["upsampling"]),
            seed=self.options.seed,
        )
        return _residual(network) if self._options.residual else network

    def network_offer(self) -> dict[str, Any]:
        return {**super().network_offer(), "out_channels": self.options.channels}

    def target_of(self, case: Case, side: int) -> Image:
        return self.resize(self.truth(case), side, side)

    def truth(self, case: Case) -> Image:
        """The target at its own size."""
        path = self._entries[case].truth
        assert path is not None
        return self.read(path)

    def loss(self, outputs: Any, target: Any) -> Any:
        import torch.nn.functional as F  # noqa: N812

        return F.l1_loss(outputs, target)

    def answer(self, outputs: Mapping[str, Array], size: tuple[int, ...]) -> Image:
        """What a board sent (1, C, h, w), brought to ``size`` (H, W) and cut to 0 to 1. Raises ``MeasurementError``."""
        maps, name = answered_maps(outputs, (self.options.channels,), axes=2), next(iter(outputs))
        height, width = size
        place = Placement(height, width, 0, 0, height, width)
        try:
            return np.asarray(finish(Steps((), _answer_steps(name)), {name: maps}, place), np.float32)
        except FrameError as exc:
            raise MeasurementError("finite pixels", str(exc), "Choose a wider precision") from None

    def pipeline(self, outputs: Sequence[TensorSpec], **arch: Scalar) -> Steps:
        """The result is an image (C, H, W) of the frame's size, black 0 to white 1. Raises ``SpecError`` for a network of
        other outputs."""
        answered_maps({"": np.zeros(outputs[0].shape)}, (self.options.channels,), axes=2)
        return Steps(self.input_steps(**arch), _answer_steps(outputs[0].name))

    def evaluate(self, outputs: Mapping[str, Array], case: Case) -> dict[str, float | None]:
        """SSIM is undefined for a target smaller than its window."""
        truth = self.truth(case)
        return image_metrics(self.answer(outputs, truth.shape[1:]), np.clip(truth, 0, 1))

    def shown(self, image: Image) -> Image:
        """An image of the network's values, black 0 to white 1 as a picture has it."""
        return image

    def picture(self, case: Case, outputs: Mapping[str, Array] | None) -> npt.NDArray[np.uint8]:
        """The target, or the answer in ``outputs``, right of the input."""
        truth = self.truth(case)
        shown = truth if outputs is None else self.answer(outputs, truth.shape[1:])
        pair = np.concatenate([self.resize(self.image_of(case), *truth.shape[1:]), shown], axis=2)
        pair = self.shown(pair)
        pixels = np.round(np.clip(pair, 0, 1) * 255).astype(np.uint8)
        return (
            np.ascontiguousarray(np.repeat(pixels, 3, axis=0) if len(pixels) == 1 else pixels).transpose(1, 2, 0).copy()
        )


def _answer_steps(output: str) -> tuple[OutputStep, ...]:
    return Take(output), Restore("bilinear"), Clip(0.0, 1.0)


def image_metrics(answer: Image, truth: Image) -> dict[str, float | None]:
    """Of two images (C, H, W), 0 to 1."""
    import torch
    from monai.metrics import SSIMMetric

    error = float(np.mean((answer.astype(np.float64) - truth) ** 2))
    psnr = MOST_PSNR_DB if error == 0 else min(MOST_PSNR_DB, -10 * math.log10(error))
    ssim = None
    if min(truth.shape[1:]) >= SSIM_WINDOW_PX:
        measure = SSIMMetric(spatial_dims=2, data_range=1.0, win_size=SSIM_WINDOW_PX)
        ssim = float(measure(torch.from_numpy(answer)[None], torch.from_numpy(truth)[None]))
    mae = float(np.mean(np.abs(answer.astype(np.float64) - truth)))
    return {"psnr_db": psnr, "ssim": ssim, "mae": mae, "rmse": math.sqrt(error)}


def _residual(network: Any) -> Any:
    from torch import nn

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: Any) -> Any:
            return image + self.network(image)

    return Residual()
