"""Options of promptable segmentation."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from edgedeploy.interfaces.task import TrainRecipe
from edgedeploy.tasks.options import at_least
from edgedeploy.tasks.promptable.prompts import PROMPT_KINDS
from edgedeploy.tasks.segmentation.folder import FolderOptions

SIDE_STEP: Final = 16
"""Sides are multiples of it: the strided convolution and the three steps down of the CNN."""
NETWORK: Final = re.compile(r"(vit|cnn)-([1-9]\d{0,2})")
PATCHES_PX: Final = (4, 8, 16)
DEPTH: Final = 4
"""2 to it is ``SIDE_STEP``: what images of a folder check their sides against."""


@dataclass(frozen=True)
class PromptableOptions(FolderOptions):
    """One structure of an image, asked for by a box or a point. Each connected part of a class is a case for each kind of
    prompt. Without ``root`` the images are synthetic ultrasound.

    - ``root``: folder of images and masks, laid out as for `segmentation-folder`; left out: synthetic ultrasound.
    - ``networks``: what ``network`` in ``[space]`` may name, the baseline first: ``"vit-N"`` is the transformer with N
      blocks, ``"cnn-N"`` a U-Net with N channels at half resolution.
    - ``teacher``: the network that is trained first and teaches the baseline, by ``distill_weight`` of ``baseline``.
    - ``dim``: channels of a token in the encoder, a multiple of 4 times the ``heads``.
    - ``heads``: of the encoder's attention.
    - ``patch``: pixels of a patch along each side: 4, 8 or 16.
    - ``decoder_dim``: channels of a token in the mask decoder.
    - ``prompts``: kinds of prompts that cases have: ``"box"``, ``"point"``.
    - ``prompts_per_image``: how many prompts of each image a step of training has.
    - ``least_share``: smaller parts of a class are no structures, as a share of the image's pixels.
    - ``image_size``, ``train_cases``, ``confirmation_cases``: of synthetic images.
    - ``calibration_cases``, ``selection_cases``: how many images the split takes.
    - ``network``: without effect, networks are named in ``networks``.
    - ``base_channels``: without effect, ``networks`` say their channels.
    - ``depth``: without effect, and 4 alone.
    - ``resolutions``: sides of the square that images are squeezed to, the baseline's first; multiples of 16.
    - ``seed``: decides synthetic images, and first weights.
    - ``taught``: how the teacher is trained.
    - ``recovery``: how another network than the baseline's is trained, with the baseline as its teacher.
    """

    networks: tuple[str, ...] = ("vit-6", "vit-3", "cnn-16", "cnn-8")
    teacher: str = "cnn-32"
    dim: int = 384
    heads: int = 6
    patch: int = 16
    decoder_dim: int = 128
    prompts: tuple[str, ...] = ("box", "point")
    prompts_per_image: int = 3
    least_share: float = 0.0015
    image_size: int = 128
    train_cases: int = 160
    confirmation_cases: int = 40
    calibration_cases: int = 16
    selection_cases: int = 28
    resolutions: tuple[int, ...] = (128, 96)
    depth: int = DEPTH
    taught: TrainRecipe = field(
        default_factory=lambda: TrainRecipe(
            epochs=30, batch_size=8, learning_rate=3e-3, weight_decay=1e-2, bfloat16=True
        )
    )
    baseline: TrainRecipe = field(
        default_factory=lambda: TrainRecipe(
            epochs=48,
            batch_size=8,
            learning_rate=5e-4,
            weight_decay=5e-2,
            warmup_epochs=2,
            bfloat16=True,
            distill_weight=0.5,
            early_epochs=32,
            early_arch={"resolution": 64},
        )
    )
    recovery: TrainRecipe = field(
        default_factory=lambda: TrainRecipe(
            epochs=30, batch_size=8, learning_rate=3e-3, weight_decay=1e-2, bfloat16=True, distill_weight=0.5
        )
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        least = dict.fromkeys(("dim", "heads", "prompts_per_image", "confirmation_cases"), 1)
        at_least(self, train_cases=2, image_size=32, decoder_dim=8, **least)
        if not 0 < self.least_share < 1:
            raise ValueError(f"least_share is a share above 0 and below 1, but got {self.least_share}")
        if self.network or self.depth != DEPTH:
            raise ValueError("`network` and `depth` are of no network of this kind: write `networks`")
        for name in (*self.networks, *([self.teacher] if self.teacher else [])):
            if not NETWORK.fullmatch(name):
                raise ValueError(f'a network is "vit-N" (blocks) or "cnn-N" (channels), but got {name!r}')
        if any(side % SIDE_STEP for side in self.resolutions):
            raise ValueError(f"resolutions must be multiples of {SIDE_STEP}, but got {list(self.resolutions)}")
        if self.patch not in PATCHES_PX:
            raise ValueError(f"patch is {', '.join(map(str, PATCHES_PX))}, but got {self.patch}")
        if self.dim % (4 * self.heads) or self.decoder_dim % 8:
            raise ValueError("dim must be a multiple of 4 * heads, and decoder_dim of 8")
        unknown = [kind for kind in self.prompts if kind not in PROMPT_KINDS]
        if unknown or len(set(self.prompts)) < len(self.prompts):
            raise ValueError(f"prompts are some of {', '.join(PROMPT_KINDS)}, but got {list(self.prompts)}")
