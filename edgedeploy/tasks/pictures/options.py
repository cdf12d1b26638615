"""Options that the kinds of task over image files have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from edgedeploy.interfaces.task import TrainRecipe
from edgedeploy.tasks.images.rules import ValueRange
from edgedeploy.tasks.options import at_least
from edgedeploy.tasks.splitting import check_shares

COLOURS: Final = ("grey", "rgb")
INTENSITIES: Final = ("image", "fixed")
LARGEST_SIDE: Final = 8000
"""The square of it is as many pixels as an image file may have."""


@dataclass(frozen=True)
class PictureOptions:
    """Where the files are, how they become inputs, how they are split, and how a network is made of them.

    - ``root``: the data's folder, relative to the study file.
    - ``colour``: ``"grey"`` (1 channel) or ``"rgb"`` (3 channels).
    - ``resolutions``: sides of the square that images are squeezed to, the baseline's first.
    - ``intensity``: ``"image"`` brings each image to zero mean and unit variance, ``"fixed"`` is (pixel - ``mean``) /
      ``std`` with pixels 0 to 1, as networks expect that were trained elsewhere.
    - ``mean``, ``std``: one number, or one per channel, of pixels from 0 to 1; with ``intensity = "fixed"``.
    - ``network``: ``"file.py:function"`` makes the network in place of the kind's own.
    - ``base_channels``: channels of the kind's own network at full size.
    - ``calibration_share``, ``selection_share``, ``confirmation_share``: of the cases that came without a split.
    - ``split_seed``: decides the draw.
    - ``seed``: decides the network's first weights.
    - ``value_range``, ``page``: see :class:`edgedeploy.tasks.images.rules.ImageRules`.
    - ``flip``: mirrors half of the training images; a task where left is not right sets it to ``false``.
    - ``rotation_deg``: largest rotation of training images.
    - ``baseline``: how the baseline is trained.
    - ``recovery``: how a pruned variant is trained further.
    """

    root: str = ""
    colour: str = "grey"
    resolutions: tuple[int, ...] = (64, 48)
    intensity: str = "image"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    network: str = ""
    base_channels: int = 16
    calibration_share: float = 0.1
    selection_share: float = 0.2
    confirmation_share: float = 0.2
    split_seed: int = 0
    seed: int = 0
    flip: bool = True
    rotation_deg: float = 10.0
    value_range: ValueRange | Literal["raw", "window"] | None = None
    page: int = 0
    baseline: TrainRecipe = field(
        default_factory=lambda: TrainRecipe(epochs=40, batch_size=16, learning_rate=2e-3, weight_decay=1e-2)
    )
    recovery: TrainRecipe = field(
        default_factory=lambda: TrainRecipe(
            epochs=6, batch_size=16, learning_rate=1e-3, warmup_epochs=0.5, distill_weight=0.3
        )
    )

    def __post_init__(self) -> None:
        at_least(self, base_channels=1, seed=0, split_seed=0)
        check_shares(self)
        check_preparation(self)
        if min(self.resolutions) < self.smallest_side:
            raise ValueError(f"resolutions must be at least {self.smallest_side}, but got {min(self.resolutions)}")
        if max(self.resolutions) > LARGEST_SIDE:
            raise ValueError(f"resolutions are at most {LARGEST_SIDE}, but got {max(self.resolutions)}")

    @property
    def channels(self) -> int:
        return channels_of(self)

    @property
    def smallest_side(self) -> int:
        return 16


class Prepared(Protocol):
    """Options of how pixels become a network's inputs."""

    @property
    def colour(self) -> str: ...

    @property
    def intensity(self) -> str: ...

    @property
    def mean(self) -> tuple[float, ...]: ...

    @property
    def std(self) -> tuple[float, ...]: ...

    @property
    def value_range(self) -> ValueRange | Literal["raw", "window"] | None: ...


def channels_of(options: Prepared) -> int:
    return 1 if options.colour == "grey" else 3


def check_preparation(options: Prepared) -> None:
    """Raises ``ValueError`` for an option that is none, or says nothing together with the others."""
    if options.colour not in COLOURS:
        raise ValueError(f"colour is {' or '.join(COLOURS)}, but got {options.colour!r}")
    if options.intensity not in INTENSITIES:
        raise ValueError(f"intensity is {' or '.join(INTENSITIES)}, but got {options.intensity!r}")
    for name, values in (("mean", options.mean), ("std", options.std)):
        if len(values) not in (1, channels_of(options)):
            raise ValueError(f"{name} is one number, or one for each of {channels_of(options)} channels")
        for value in values:
            if not math.isfinite(value) or (name == "std" and value <= 0):
                raise ValueError(f"{name} must be {'positive' if name == 'std' else 'finite'}, but got {value}")
            if options.value_range != "raw" and not 0 <= value <= 1:  # "raw": the file's own numbers
                hint = f": of pixels to 255 it would be {value} / 255 = {value / 255:.4g}" if 1 < value <= 255 else ""
                raise ValueError(f"{name} is of pixels from 0 to 1, but got {value}{hint}")
