"""Promptable segmentation: an image and a box or a point, and the mask of the structure that they ask for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgedeploy.errors import DataError, SpecError
from edgedeploy.interfaces.task import SPLITS, Array, Case, Split, TrainRecipe
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Scalar
from edgedeploy.tasks.promptable.options import NETWORK, PromptableOptions
from edgedeploy.tasks.promptable.prompts import (
    PROMPT_SHAPE,
    Prompt,
    box_prompt,
    corners,
    drawn,
    point_prompt,
    structures,
)
from edgedeploy.tasks.segmentation.base import CONTOUR_COLOURS, SegmentationTask, label_map, outline
from edgedeploy.tasks.segmentation.metrics import SURFACE_TOLERANCE_PX, Mask, structure_metrics

MASKS_IN_MEMORY: Final = 256


class Promptable:
    """See :class:`edgedeploy.Task`, ``Trainable``, ``Taught``, ``Grouped`` and ``Pictured``. Cases of one image belong
    together."""

    def __init__(self, options: PromptableOptions | None = None, base: Path | None = None) -> None:
        self.options = options or PromptableOptions()
        self.name = "promptable"
        self._source = _images(self.options, base or Path())
        self.architecture: Mapping[str, Sequence[Scalar]] = {
            "resolution": self.options.resolutions,
            "network": self.options.networks,
        }
        self.metrics: Mapping[str, MetricInfo] = _metrics(self.options.prompts)
        self.baseline_recipe: TrainRecipe = self.options.baseline
        self.recovery_recipe: TrainRecipe = self.options.recovery
        self.groups_known = getattr(self._source, "groups_known", True)
        self.notes: tuple[str, ...] = getattr(self._source, "notes", ())
        self._found = cache(self._find)
        self._masks = lru_cache(maxsize=MASKS_IN_MEMORY)(self._structures)

    # -- the task protocol

    def build(self, **arch: Scalar) -> Any:
        return build_network(str(arch["network"]), self._source.channels, self.options)

    def input_specs(self, **arch: Scalar) -> tuple[TensorSpec, ...]:
        (image,) = self._source.input_specs(resolution=arch["resolution"])
        return image, TensorSpec("prompt", "float32", (1, *PROMPT_SHAPE))

    def cases(self, split: Split) -> Sequence[Case]:
        return tuple(self._found(split))

    def group_of(self, case: Case) -> str:
        image = self._asked(case)[0]
        group: str = self._source.group_of(image)  # type: ignore[attr-defined]  # both kinds of images have it
        return group

    def inputs(self, case: Case, **arch: Scalar) -> dict[str, Array]:
        image, _, _ = self._asked(case)
        return {**self._source.inputs(image, resolution=arch["resolution"]), "prompt": self.prompt(case)[None]}

    def prompt(self, case: Case) -> Prompt:
        """The prompt of a case. What is random in a box is decided by the case's id."""
        _, _, kind = self._asked(case)
        if kind == "point":
            return point_prompt(self.truth(case))
        return box_prompt(self.truth(case), np.random.default_rng(list(case.id.encode())))

    def truth(self, case: Case) -> Mask:
        """The structure that the case asks for, (H, W) at the image's own size."""
        image, number, _ = self._asked(case)
        return self._masks(image)[number]

    def evaluate(self, outputs: Mapping[str, Array], case: Case) -> dict[str, float | None]:
        truth, kind = self.truth(case), self._asked(case)[2]
        dice, nsd, hd95 = structure_metrics(self._answer(outputs, truth.shape), truth, SURFACE_TOLERANCE_PX)
        by_kind = {f"dice_{name}": dice if name == kind else None for name in self.options.prompts}
        return {"dice": dice, "nsd": nsd, "hd95_px": hd95, **by_kind}

    def picture(self, case: Case, outputs: Mapping[str, Array] | None) -> npt.NDArray[np.uint8]:
        """The image with the outline of the structure, or of the answer in ``outputs``, and the prompt."""
        image, truth = self._source.load(self._asked(case)[0])[0], self.truth(case)
        mask = truth if outputs is None else self._answer(outputs, truth.shape)
        shades = np.rint(image).astype(np.uint8)
        canvas = np.repeat(shades[..., None], 3, axis=2) if shades.ndim == 2 else shades.copy()
        canvas[outline(mask)] = CONTOUR_COLOURS[0]
        height, width = truth.shape
        left, top, right, bottom = corners(self.prompt(case), (height, width))
        canvas[[top, bottom], left : right + 1] = CONTOUR_COLOURS[1]
        canvas[top : bottom + 1, [left, right]] = CONTOUR_COLOURS[1]
        return canvas

    # -- training

    @property
    def teacher_arch(self) -> Mapping[str, Scalar]:
        return (
            {"resolution": self.options.resolutions[0], "network": self.options.teacher} if self.options.teacher else {}
        )

    @property
    def teacher_recipe(self) -> TrainRecipe:
        return self.options.taught

    def batches(self, seed: int, batch_size: int, **arch: Scalar) -> Iterator[tuple[Any, Any]]:
        """Images (N, C, R, R) and prompts (N * M, 2, 5), and as target the share of each position of the answer that the
        structure covers (N * M, R / 2, R / 2)."""
        import torch
        import torch.nn.functional as F  # noqa: N812

        side, rng = int(arch["resolution"]), np.random.default_rng([seed, 1])
        for images, labels in self._source.batches(seed, batch_size, resolution=side):
            kept, prompts, masks = drawn(labels.numpy(), self.options.prompts_per_image, rng, self.options.least_share)
            if len(kept) < 2:  # batch norm
                continue
            target = F.avg_pool2d(torch.from_numpy(np.stack(masks)).float()[:, None], 2)[:, 0]
            yield (images[kept], torch.from_numpy(np.stack(prompts))), target

    def loss(self, outputs: Any, target: Any) -> Any:
        """Cross-entropy plus soft Dice of each mask, the mean over the masks."""
        import torch.nn.functional as F  # noqa: N812

        logit = outputs[:, 1] - outputs[:, 0]
        chance = logit.sigmoid()
        overlap, total = (chance * target).sum(dim=(1, 2)), chance.sum(dim=(1, 2)) + target.sum(dim=(1, 2))
        dice = (2 * overlap + 1) / (total + 1)
        return F.binary_cross_entropy_with_logits(logit, target) + (1 - dice).mean()

    # -- where cases come from

    def _find(self, split: Split) -> dict[Case, tuple[Case, int, str]]:
        """By case: its image, the number of its structure there, and the kind of its prompt."""
        found = {}
        for image in self._source.cases(split):
            for number in range(len(self._structures(image))):
                for kind in self.options.prompts:
                    found[Case(f"{image.id}-s{number}-{kind}", split)] = image, number, kind
        if not found:
            asked = f"structures in the {split} split"
            raise DataError(
                asked, f"no part of a class has {self.options.least_share:.2%} of an image", "Lower least_share"
            )
        return found

    def _asked(self, case: Case) -> tuple[Case, int, str]:
        return self._found(case.split)[case]

    def _structures(self, image: Case) -> list[Mask]:
        return structures(self._source.load(image)[1], self.options.least_share)

    def _answer(self, outputs: Mapping[str, Array], size: tuple[int, ...]) -> Mask:
        return np.asarray(label_map(outputs, size) == 1)


def build_network(name: str, in_channels: int, options: PromptableOptions) -> Any:
    """The network ``name``, seeded; see :mod:`edgedeploy.tasks.promptable.networks`. Raises ``SpecError``."""
    import torch

    from edgedeploy.tasks.promptable.networks.cnn import PromptableCnn
    from edgedeploy.tasks.promptable.networks.vit import PromptableVit, VitShape

    known = NETWORK.fullmatch(name)
    if known is None:
        raise SpecError(f"network {name!r}", "there is none of that name", 'Write "vit-N" or "cnn-N"')
    size = int(known[2])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        if known[1] == "cnn":
            return PromptableCnn(in_channels, size, options.seed)
        return PromptableVit(
            in_channels, VitShape(options.dim, size, options.heads, options.patch, options.decoder_dim)
        )


def _images(options: PromptableOptions, base: Path) -> SegmentationTask:
    """The images and label maps that structures are found in."""
    if options.root:
        from edgedeploy.tasks.segmentation.folder import SegmentationFolder

        return SegmentationFolder(options, base)
    from edgedeploy.tasks.segmentation.ultrasound import SyntheticUltrasound, UltrasoundOptions

    shared = ("resolutions", "image_size", "seed", *(f"{split}_cases" for split in SPLITS))
    return SyntheticUltrasound(
        UltrasoundOptions(depth=options.depth, **{name: getattr(options, name) for name in shared})
    )


def _metrics(prompts: Sequence[str]) -> dict[str, MetricInfo]:
    found = {
        "dice": MetricInfo("maximize", "1", "Dice of the structure asked for", bound=1.0, yes_or_no=False),
        "nsd": MetricInfo("maximize", "1", f"surface Dice at {SURFACE_TOLERANCE_PX:g} px", bound=1.0, yes_or_no=False),
        "hd95_px": MetricInfo("minimize", "px", "95th percentile Hausdorff distance", bound=0.0),
    }
    by_kind = {
        f"dice_{kind}": MetricInfo("maximize", "1", f"Dice where a {kind} asks", bound=1.0, yes_or_no=False)
        for kind in prompts
    }
    return {**found, **by_kind}
