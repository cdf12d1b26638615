"""What the kinds of task over image files share: files to inputs, splits with groups, augmented batches.

A subclass lists its cases as :class:`Entry`, says which network it trains and by what loss, and scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgedeploy.errors import DataError
from edgedeploy.interfaces.task import Array, Case, Split, TrainRecipe
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Scalar
from edgedeploy.runtime.pipeline.resize import resized
from edgedeploy.runtime.pipeline.run import prepare
from edgedeploy.runtime.pipeline.steps import Grey, InputStep, Normalise, Resize, Rgb, Standardise, Steps, ToTensor
from edgedeploy.tasks.batching import in_batches
from edgedeploy.tasks.images.reader import ImageReader, Shades
from edgedeploy.tasks.images.rules import ImageRules
from edgedeploy.tasks.network import Maker, build_network
from edgedeploy.tasks.pictures.entries import Entry, split_entries
from edgedeploy.tasks.pictures.options import PictureOptions
from edgedeploy.tasks.splitting import shares_of

Image = npt.NDArray[np.float32]
"""(C, H, W), black 0 to white 1."""

IMAGES_IN_MEMORY_BYTES: Final = 512 << 20
MAX_CASES: Final = 200_000


class PictureTask:
    """Base of the kinds over image files; see :class:`edgedeploy.Task`, ``Trainable`` and ``Grouped``."""

    metrics: Mapping[str, MetricInfo]
    target_key: str | None = None
    """What augmentation changes with the image; None where the truth does not move with it."""

    def __init__(self, name: str, options: PictureOptions, root: Path, entries: Sequence[Entry], maker: Maker | None):
        if len(entries) > MAX_CASES:
            raise DataError(f"cases in {root}", f"{len(entries)}", f"At most {MAX_CASES} are taken")
        self.name = name
        self.options = options
        self.root = root
        self.architecture: Mapping[str, Sequence[Scalar]] = {"resolution": options.resolutions}
        self.baseline_recipe: TrainRecipe = options.baseline
        self.recovery_recipe: TrainRecipe = options.recovery
        self._maker = maker
        self._reader = self._open(entries)
        self.notes = (self._reader.note,) if self._reader.note else ()
        self._splits = split_entries(entries, shares_of(options), options.split_seed, str(root))
        self._entries = {case: entry for cases in self._splits.values() for case, entry in cases.items()}
        self.groups_known = any(entry.group is not None for entry in entries)
        kept = IMAGES_IN_MEMORY_BYTES // (4 * options.channels * max(options.resolutions) ** 2)
        self._prepared = lru_cache(maxsize=max(16, kept))(self._prepare)

    # -- what a subclass says

    def own_network(self, **arch: Scalar) -> Any:
        """The kind's own network, seeded by the caller."""
        raise TypeError(f"{type(self).__name__} must make a network")

    def network_offer(self) -> dict[str, Any]:
        """What a network of the user's may take, by name, beside the architecture."""
        return {"in_channels": self.options.channels}

    def target_of(self, case: Case, side: int) -> Any:
        """What the loss holds the output against: an array, or a number."""
        raise TypeError(f"{type(self).__name__} must say what is learned")

    # -- the task protocol

    def build(self, **arch: Scalar) -> Any:
        import torch

        if self._maker is not None:
            return build_network(self._maker, {**self.network_offer(), **arch}, self.options.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.options.seed)
            return self.own_network(**arch)

    def input_specs(self, **arch: Scalar) -> tuple[TensorSpec, ...]:
        side = int(arch["resolution"])
        return (TensorSpec("image", "float32", (1, self.options.channels, side, side)),)

    def cases(self, split: Split) -> Sequence[Case]:
        return tuple(self._splits[split])

    def group_of(self, case: Case) -> str:
        return self._entries[case].group or case.id

    def inputs(self, case: Case, **arch: Scalar) -> dict[str, Array]:
        found, _ = prepare(Steps(self.input_steps(**arch)), self.frame(case))
        return found

    def frame(self, case: Case) -> Shades:
        """The image as its file has it, black 0 to white 255. Raises ``DataError``."""
        return self._reader.shades(self._entries[case].image, colour=self.options.colour == "rgb")

    def input_steps(self, **arch: Scalar) -> tuple[InputStep, ...]:
        """What makes the input of a frame: a product has to do it too."""
        side, options = int(arch["resolution"]), self.options
        divide = 1.0 if options.value_range == "raw" else 255.0
        fixed = options.intensity == "fixed"
        values = Normalise(divide, options.mean, options.std) if fixed else Standardise(divide, 1e-3, ddof=0)
        colour = Grey() if options.channels == 1 else Rgb()
        return colour, Resize(side, side, "area"), values, ToTensor("image", "NCHW", "float32")

    # -- training

    def batches(self, seed: int, batch_size: int, **arch: Scalar) -> Iterator[tuple[Any, Any]]:
        """Batches of (N, C, R, R) float32 tensors with their targets; a last batch of one is left out (batch norm)."""
        import torch

        side = int(arch["resolution"])
        rng = np.random.default_rng(seed)
        batches = in_batches(self.cases("train"), batch_size, rng)
        change = self._augmentation(int(rng.integers(2**31)))
        for chosen in batches:
            rows = [
                change({"image": self._prepared(case, side), "target": self.target_of(case, side)}) for case in chosen
            ]
            images = torch.stack(
                [torch.from_numpy(self.normalise(np.asarray(row["image"], np.float32))) for row in rows]
            )
            yield images, torch.stack([torch.as_tensor(np.asarray(row["target"])) for row in rows])

    def _augmentation(self, seed: int) -> Any:
        from monai import transforms

        options = self.options
        both = ["image"] if self.target_key is None else ["image", self.target_key]
        modes = ["bilinear"] * len(both)
        steps: list[Any] = [transforms.RandFlipd(both, prob=0.5, spatial_axis=1)] if options.flip else []
        if options.rotation_deg:
            steps.append(
                transforms.RandAffined(
                    both,
                    prob=0.8,
                    rotate_range=np.deg2rad(options.rotation_deg),
                    scale_range=0.1,
                    translate_range=0.05 * min(options.resolutions),
                    padding_mode="border",
                    mode=modes,
                )
            )
        if self.target_key is None:  # brightness belongs to the truth where the truth is an image
            steps.append(transforms.RandAdjustContrastd("image", prob=0.5, gamma=(0.7, 1.4)))
            steps.append(transforms.RandGaussianNoised("image", prob=0.3, std=0.05))
        change = transforms.Compose(steps)
        change.set_random_state(seed=seed)
        return change

    # -- images

    def normalise(self, image: Image) -> Image:
        """A batch's image as :meth:`input_steps` has it, after augmentation."""
        if self.options.intensity == "fixed":
            mean, std = (np.array(v, np.float32).reshape(-1, 1, 1) for v in (self.options.mean, self.options.std))
            return np.asarray((image - mean) / std, np.float32)
        deviation = image.std(axis=(1, 2), keepdims=True) + np.float32(1e-3)
        return np.asarray((image - image.mean(axis=(1, 2), keepdims=True)) / deviation, np.float32)

    def image_of(self, case: Case) -> Image:
        """At the file's own size. Raises ``DataError``."""
        return self.read(self._entries[case].image)

    def read(self, path: Path) -> Image:
        """An image file as the options have its colours. Raises ``DataError``."""
        pixels = self._reader.unit(path, colour=self.options.colour == "rgb")
        return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))

    def resize(self, image: Image, height: int, width: int) -> Image:
        """By areas, so that fine patterns do not alias; (C, H, W)."""
        return np.asarray(resized(image, height, width, "area", axes=(1, 2)), np.float32)

    def _prepare(self, case: Case, side: int) -> Image:
        return self.resize(self.image_of(case), side, side)

    def _open(self, entries: Sequence[Entry]) -> ImageReader:
        paths = [path for entry in entries for path in (entry.image, entry.truth) if path is not None]
        return ImageReader(ImageRules(self.options.value_range, self.options.page), paths)
