"""Denoising of low-dose CT slices: made-up bodies that are scanned here, or a folder of real pairs.

    ROOT/low/*  ROOT/normal/*                      DICOM, TIFF or PNG of equal names; splits are drawn
    ROOT/SPLIT/low/*  ROOT/SPLIT/normal/*          train, val, test as they are; what is not there is drawn from train

Values are HU: ``value_range`` says which of them the network's 0 and 1 stand for. Answers are scored in HU within one
window, as radiologists look at them and the literature reports (Chen et al., RED-CNN, 2017): PSNR and SSIM over the
window's width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from edgedeploy.errors import DataError
from edgedeploy.interfaces.task import Array, Case, TrainRecipe
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Scalar
from edgedeploy.tasks.image_to_image import ImageToImage, ImageToImageOptions, image_metrics
from edgedeploy.tasks.images.rules import ValueRange
from edgedeploy.tasks.lowdose.making import GROUPS, LOW, NORMAL, Making, made_pairs
from edgedeploy.tasks.lowdose.network import build_denoiser
from edgedeploy.tasks.network import Maker
from edgedeploy.tasks.options import at_least
from edgedeploy.tasks.pictures.base import Image

HU_12_BITS: Final[ValueRange] = (-1024.0, 3071.0)
"""What the 12 bits of a scanner hold."""

PAIRS_LOOKED_AT: Final = 8
LEAST_SEEN: Final = 0.05
"""Share of the window that values of a body take at least: from fat to muscle alone it is a quarter of the default one."""


@dataclass(frozen=True)
class LowDoseOptions(ImageToImageOptions):
    """Low-dose CT slices beside the same slices at full dose. Pixels are 0 to 1 in the network, for HU of
    ``value_range``.

    - ``root``: the data's folder, relative to the study file; without one, slices of made-up bodies are scanned here
      (``pip install "edgedeploy[ct]"``) and kept in the user's cache.
    - ``inputs``, ``targets``: folder below ``root``; pairs have equal names.
    - ``colour``: ``"grey"`` alone.
    - ``value_range``: the HU that are 0 and 1 in the network; values beyond them are clipped.
    - ``window_hu``: the HU that answers are scored in; values beyond them are clipped.
    - ``blocks``: residual blocks of a level that ``blocks`` in ``[space]`` may name, the baseline's first.
    - ``depth``: steps down of the kind's own network. Its students ("folded-16", "folded-24" and "folded-32" of 16
      channels), which ``student`` in ``[space]`` may name, have one less: they work at half of the resolution.
    - ``residual``: ``true`` alone: the network learns the noise.
    - ``upsampling``: the kind's own network has none to choose.
    - ``bodies``: how many slices are made, each of a body of its own.
    - ``photons``: that a ray of the low dose starts with.
    - ``field_mm``: the side of a made slice.
    - ``data_seed``: decides bodies and noise.
    """

    inputs: str = LOW
    targets: str = NORMAL
    resolutions: tuple[int, ...] = (128,)
    depth: int = 2
    value_range: ValueRange | Literal["raw", "window"] | None = HU_12_BITS
    window_hu: tuple[float, ...] = (-160.0, 240.0)
    blocks: tuple[int, ...] = (2, 1)
    bodies: int = 240
    photons: float = 1e4
    field_mm: float = 400.0
    data_seed: int = 0
    baseline: TrainRecipe = field(
        default_factory=lambda: TrainRecipe(epochs=40, batch_size=8, learning_rate=1e-3, weight_decay=1e-4)
    )
    recovery: TrainRecipe = field(
        default_factory=lambda: TrainRecipe(
            epochs=10, batch_size=8, learning_rate=5e-4, warmup_epochs=0.5, distill_weight=0.3
        )
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, bodies=12, data_seed=0)
        if self.colour != "grey" or not self.residual:
            raise ValueError('colour is "grey" and residual is true: a CT slice has one channel, and noise is learned')
        if not isinstance(self.value_range, tuple):
            raise ValueError("value_range is two HU, such as [-1024, 3071]: answers are scored in HU")
        low, high = self.value_range
        if len(self.window_hu) != 2 or not low <= self.window_hu[0] < self.window_hu[1] <= high:
            found = f"window_hu is two rising HU within value_range ({low:g} to {high:g})"
            raise ValueError(f"{found}, but got {list(self.window_hu)}")
        if min(self.blocks) < 1:
            raise ValueError(f"blocks must be at least 1, but got {list(self.blocks)}")
        if not (1 <= self.photons <= 1e9 and 0 < self.field_mm < 1e4):
            raise ValueError(
                f"photons are 1 to 1e9 and field_mm is positive, but got {self.photons:g}, {self.field_mm:g}"
            )

    @property
    def range_hu(self) -> ValueRange:
        assert isinstance(self.value_range, tuple)
        return self.value_range

    @property
    def making(self) -> Making:
        return Making(self.bodies, max(self.resolutions), self.photons, self.field_mm, self.data_seed)


def folded(options: LowDoseOptions) -> dict[str, int]:
    """Students that work at half of the resolution, by name, with the channels of their first level: as many as the kind's
    own network has at its first level, one and a half times as many, and those of its second level."""
    base = options.base_channels
    return {f"folded-{channels}": channels for channels in (base, base * 3 // 2, base * 2)}


class LowDoseCt(ImageToImage):
    """See :class:`edgedeploy.tasks.image_to_image.ImageToImage` and :class:`edgedeploy.interfaces.task.Teaching`."""

    def __init__(self, options: LowDoseOptions, base: Path, maker: Maker | None = None) -> None:
        if not options.root:
            options = replace(options, root=str(made_pairs(options.making)), groups=GROUPS)
        super().__init__(options, base, maker)
        self.name = "low-dose-ct"
        self._range_hu, self._window_hu = options.range_hu, options.window_hu
        if maker is None:
            self.architecture = {"resolution": options.resolutions, "blocks": options.blocks}
        self.students = (
            {} if maker is not None else {name: self._folded(base) for name, base in folded(options).items()}
        )
        low, high = options.window_hu
        window = f"window of {low:g} to {high:g} HU"
        self.metrics: Mapping[str, MetricInfo] = {
            "psnr_db": MetricInfo("maximize", "dB", f"peak signal-to-noise ratio, {window}"),
            "ssim": MetricInfo(
                "maximize", "1", f"structural similarity, Gaussian of 11 px, {window}", bound=1.0, yes_or_no=False
            ),
            "rmse_hu": MetricInfo("minimize", "HU", f"root mean square error, {window}", bound=0.0),
        }

        self._check_pairs()

    def _check_pairs(self) -> None:
        """Raises ``DataError`` for pairs of different sizes, and for values that are no HU: where the window sees nothing of
        them, every answer is perfect. The first ``PAIRS_LOOKED_AT`` that answers are judged on are read."""
        cases = self.cases("selection")[:PAIRS_LOOKED_AT]
        seen = 0.0
        for case in cases:
            entry, truth = self._entries[case], self.truth(case)
            if (size := self.read(entry.image).shape[1:]) != truth.shape[1:]:
                found = f"it is {size[1]}x{size[0]}, and its target {truth.shape[2]}x{truth.shape[1]}"
                raise DataError(f"pair {entry.image}", found, "Both slices of a pair need the same pixels")
            seen = max(seen, float(np.ptp(self._windowed(truth))))
        if cases and seen < LEAST_SEEN:
            low, high = self._window_hu
            found = (
                f"{len(cases)} of {self.root} differ by {seen * (high - low):.3g} HU at most within {low:g} to {high:g}"
            )
            remedy = (
                "Are the files' values HU? Rescale them, or state value_range and window_hu in the files' own numbers"
            )
            raise DataError("slices whose values the window shows", found, remedy)

    def own_network(self, **arch: Scalar) -> Any:
        return self._denoiser(self.options.base_channels, self._options.depth, int(arch["blocks"]))

    def _folded(self, base: int) -> Callable[..., Any]:
        def make(**arch: Scalar) -> Any:
            return self._denoiser(base, self._options.depth - 1, int(arch["blocks"]), fold=2)

        return make

    def _denoiser(self, base: int, depth: int, blocks: int, fold: int = 1) -> Any:
        """Its layers see the width of the window as 1."""
        (low, high), (black, white) = self._range_hu, self._window_hu
        return build_denoiser(
            channels=self.options.channels,
            base=base,
            depth=depth,
            blocks=blocks,
            seed=self.options.seed,
            fold=fold,
            gain=(high - low) / (white - black),
        )

    def evaluate(self, outputs: Mapping[str, Array], case: Case) -> dict[str, float | None]:
        """Of the slice at its own size, within the window. SSIM is undefined for one smaller than its Gaussian."""
        truth = self.truth(case)
        return self.scores(self.answer(outputs, truth.shape[1:]), truth)

    def scores(self, answer: Image, truth: Image) -> dict[str, float | None]:
        """Of two slices (1, H, W) with the network's 0 to 1."""
        found = image_metrics(self._windowed(answer), self._windowed(truth))
        rmse, width = found["rmse"], self._window_hu[1] - self._window_hu[0]
        assert rmse is not None
        return {"psnr_db": found["psnr_db"], "ssim": found["ssim"], "rmse_hu": rmse * width}

    def _windowed(self, image: Image) -> Image:
        """Black 0 to white 1 of the window."""
        (low, high), (black, white) = self._range_hu, self._window_hu
        return np.asarray(np.clip((image * (high - low) + low - black) / (white - black), 0, 1), np.float32)

    def shown(self, image: Image) -> Image:
        return self._windowed(image)
