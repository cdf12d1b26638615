"""Segmentation of a folder of images and masks: mixed sizes, grey or RGB, one mask of the same name per image.

    ROOT/images/*.png   ROOT/masks/*.png              train, calibration and selection come from here, by a seeded draw
    ROOT/test/images/*  ROOT/test/masks/*             the confirmation split

Four folders may have other names (``images``, ``masks``, ``confirmation_images``, ``confirmation_masks``). Images are
squeezed to the square of the model, answers are scored at the size of the mask. The same picture never
stands on two sides of a split: copies with equal pixels are kept once, near copies (``near_copy_correlation``) stay
together, and whatever is a near copy of a confirmation image is left out of the search.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from edgedeploy.errors import DataError, SpecError
from edgedeploy.interfaces.task import SPLITS, Case, Split, TrainRecipe
from edgedeploy.records.variant import Scalar
from edgedeploy.tasks.images.files import SUFFIXES, image_files
from edgedeploy.tasks.images.labels import read_label_values
from edgedeploy.tasks.images.reader import ImageReader, Shades
from edgedeploy.tasks.images.rules import ImageRules, ValueRange
from edgedeploy.tasks.network import Maker, build_network
from edgedeploy.tasks.options import SegmentationOptions
from edgedeploy.tasks.pictures.entries import groups_of
from edgedeploy.tasks.pictures.options import channels_of, check_preparation
from edgedeploy.tasks.places import place_of
from edgedeploy.tasks.segmentation.augment import Augmentation
from edgedeploy.tasks.segmentation.base import Fixed, SegmentationTask
from edgedeploy.tasks.segmentation.metrics import Labels
from edgedeploy.tasks.segmentation.splits import Thumbnail, deal, joined, near_copies, pixel_digest, thumbnail
from edgedeploy.tasks.splitting import Item, draw_splits

MIN_CASES: Final = 8
FULL_SIZE_IN_MEMORY: Final = 128
"""Cases kept at their own size, for repeated scoring; training keeps them at the model's size only."""


@dataclass(frozen=True)
class FolderOptions(SegmentationOptions):
    """Where the files are, what the mask values mean, how many cases each split takes.

    - ``root``: the data's folder, relative to the study file.
    - ``images``, ``masks``: folder below ``root`` that training, calibration and selection are drawn from.
    - ``confirmation_images``, ``confirmation_masks``: folder below ``root`` of the confirmation split.
    - ``classes``: the value of each class in the masks; 0 is background.
    - ``calibration_cases``, ``selection_cases``: how many images the split takes; the rest trains.
    - ``split_seed``: decides the draw.
    - ``near_copy_correlation``: images whose 32 x 32 thumbnails correlate at least so much count as one picture.
    - ``colour``: ``"grey"`` (1 channel) or ``"rgb"`` (3 channels).
    - ``intensity``: ``"image"`` brings each image to zero mean and unit variance, ``"fixed"`` is (pixel - ``mean``) /
      ``std`` with pixels 0 to 1.
    - ``mean``, ``std``: one number, or one per channel, of pixels from 0 to 1; with ``intensity = "fixed"``.
    - ``network``: ``"file.py:function"`` makes the network in place of the U-Net.
    - ``groups``: a CSV table below ``root`` with the columns ``image,group``; images of one group (a patient) are on one
      side, and what is of a group of the confirmation split is left out of the search.
    - ``stratified``: gives every split its share of the images with each combination of classes.
    - ``value_range``, ``page``: see :class:`edgedeploy.tasks.images.rules.ImageRules`.
    """

    root: str = ""
    images: str = "images"
    masks: str = "masks"
    confirmation_images: str = "test/images"
    confirmation_masks: str = "test/masks"
    classes: Mapping[str, int] = field(default_factory=lambda: {"nerve": 1, "vessel": 2})
    calibration_cases: int = 10
    selection_cases: int = 28
    split_seed: int = 1
    near_copy_correlation: float = 0.9
    colour: str = "grey"
    intensity: str = "image"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    network: str = ""
    groups: str = ""
    stratified: bool = False
    value_range: ValueRange | Literal["raw", "window"] | None = None
    page: int = 0
    resolutions: tuple[int, ...] = (192, 128, 96)
    base_channels: int = 16
    depth: int = 5
    baseline: TrainRecipe = field(
        default_factory=lambda: TrainRecipe(
            epochs=200,
            batch_size=4,
            learning_rate=1.5e-3,
            weight_decay=1e-2,
            warmup_epochs=3,
            bfloat16=True,
            early_epochs=110,
            early_arch={"resolution": 96},
        )
    )
    recovery: TrainRecipe = field(
        default_factory=lambda: TrainRecipe(
            epochs=8, batch_size=8, learning_rate=6e-3, warmup_epochs=0.5, bfloat16=True, distill_weight=0.3
        )
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_preparation(self)


@dataclass(frozen=True)
class _Pair:
    """One image with its mask, a digest of the image's grey values, and its thumbnail."""

    name: str
    image: Path
    mask: Path
    digest: str
    thumbnail: Thumbnail


class SegmentationFolder(SegmentationTask):
    """A task over files. The constructor opens every file once, so that a bad file is reported before anything starts.

    ``left_out`` names the images that are copies or near copies of confirmation images.
    """

    augmentation = Augmentation(rotation_deg=12.0, log_scale=0.2, shift=0.1)

    def __init__(self, options: FolderOptions, base: Path, maker: Maker | None = None) -> None:
        super().__init__("segmentation-folder", options.classes, options)
        self._maker = maker
        self.channels = channels_of(options)
        if maker is not None:
            self.architecture = {"resolution": options.resolutions}
        _check_classes(options.classes)
        if not options.root:
            raise SpecError("task.options.root", "it is missing", "Name the folder that holds images/ and masks/")
        self._options = options
        self._root = place_of(base, options.root)
        if not self._root.is_dir():
            raise DataError(f"task.options.root = {options.root!r}", f"no folder at {self._root}", "Correct the path")
        if options.value_range == "raw":
            found = "pictures, training and splits need black and white"
            raise SpecError("task.options.value_range", found, "State them as [black, white]")
        self._rules = ImageRules(options.value_range, options.page)
        self._reader = ImageReader(self._rules, self._images())
        self.notes = (self._reader.note,) if self._reader.note else ()
        confirmation = _unique(self._pairs(options.confirmation_images, options.confirmation_masks))
        search = _unique(self._pairs(options.images, options.masks))
        groups = near_copies([pair.thumbnail for pair in (*confirmation, *search)], options.near_copy_correlation)
        self._groups = groups_of(self._root, options.groups)
        self.groups_known = bool(self._groups)
        groups = joined(groups, [self._group(pair) for pair in (*confirmation, *search)])
        held_out, groups = set(groups[: len(confirmation)]), groups[len(confirmation) :]
        free = [index for index, group in enumerate(groups) if group not in held_out]
        self.left_out = tuple(pair.name for pair, group in zip(search, groups, strict=True) if group in held_out)
        self._splits = self._draw([search[i] for i in free], [groups[i] for i in free], confirmation)
        self._files = {case: pair for cases in self._splits.values() for case, pair in cases.items()}
        self._read = lru_cache(maxsize=FULL_SIZE_IN_MEMORY)(self._load)

    def build(self, **arch: Scalar) -> Any:
        if self._maker is None:
            return super().build(**arch)
        outputs = len(self.classes) + 1
        offered = {"in_channels": self.channels, "out_channels": outputs, "classes": outputs, **arch}
        return build_network(self._maker, offered, self.options.seed)

    def group_of(self, case: Case) -> str:
        return self._group(self._files[case]) or case.id

    def _group(self, pair: _Pair) -> str | None:
        """A table may name the file below ``root``, or alone."""
        return self._groups.get(pair.image.relative_to(self._root).as_posix()) or self._groups.get(pair.image.name)

    def cases(self, split: Split) -> Sequence[Case]:
        return tuple(self._splits[split])

    def load(self, case: Case) -> tuple[Shades, Labels]:
        return self._read(case)

    def _load(self, case: Case) -> tuple[Shades, Labels]:
        pair = self._files[case]
        return self._open(pair.image, pair.mask, colour=self._options.colour == "rgb")

    def fixed(self) -> Fixed | None:
        return (self._options.mean, self._options.std) if self._options.intensity == "fixed" else None

    def _open(self, image: Path, mask: Path, *, colour: bool = False) -> tuple[Shades, Labels]:
        labels = read_labels(mask, self._options.classes, self._rules, image)
        return self._reader.shades(image, colour=colour), labels

    def _images(self) -> list[Path]:
        """Every image of the folders that are there; what is missing is told when pairs are made."""
        folders = (self._root / self._options.images, self._root / self._options.confirmation_images)
        return [path for folder in folders if folder.is_dir() for path in image_files(folder)]

    def _draw(
        self, search: list[_Pair], groups: list[int], confirmation: list[_Pair]
    ) -> dict[Split, dict[Case, _Pair]]:
        options = self._options
        counts = self._counts
        dealt = (
            self._stratified(search, groups)
            if options.stratified
            else deal(groups, counts, "train", options.split_seed)
        )
        found = {split: len(places) for split, places in dealt.items()}
        if min(found.values()) < 1 or found["train"] < MIN_CASES:
            raise DataError(
                f"split {self._root / options.images}",
                f"{len(search)} images ({len(set(groups))} apart from near copies) give {found['selection']} cases for "
                f"selection, {found['calibration']} for calibration and leave {found['train']} to train on",
                f"Each split needs one and training {MIN_CASES}: bring more images, or write smaller selection_cases (now "
                f"{options.selection_cases}) and calibration_cases ({options.calibration_cases}) in [task.options]",
            )
        parts = {split: [search[place] for place in places] for split, places in dealt.items()}
        parts["confirmation"] = confirmation
        return {
            split: {Case(f"{split}/{p.name}", split): p for p in sorted(parts[split], key=_by_name)} for split in SPLITS
        }

    @property
    def _counts(self) -> dict[Split, int]:
        return {"selection": self._options.selection_cases, "calibration": self._options.calibration_cases}

    def _stratified(self, search: list[_Pair], groups: list[int]) -> dict[Split, list[int]]:
        names = list(self._options.classes)
        items = []
        for pair, group in zip(search, groups, strict=True):
            _, labels = self._open(pair.image, pair.mask)
            there = [names[label - 1] for label in np.unique(labels).tolist() if label]
            items.append(Item(pair.name, " and ".join(there) or "no class", str(group)))
        where, options = str(self._root / self._options.images), self._options
        return draw_splits(items, range(len(items)), self._counts, options.split_seed, where)

    def _pairs(self, images: str, masks: str) -> list[_Pair]:
        """Every image of a folder with its mask, both opened and checked. Raises ``DataError``."""
        folder, mask_folder = self._root / images, self._root / masks
        for place in (folder, mask_folder):
            if not place.is_dir():
                raise DataError("read the data", f"no folder at {place}", "Correct the path in [task.options]")
        found = image_files(folder)
        if not found:
            raise DataError(
                f"images in {folder}", "the folder holds none", f"Put {', '.join(SUFFIXES[:3])} files there"
            )
        masks_found = _by_stem(image_files(mask_folder))
        return [self._check(path, masks_found.get(path.stem), mask_folder) for path in _by_stem(found).values()]

    def _check(self, path: Path, mask: Path | None, mask_folder: Path) -> _Pair:
        if mask is None:
            raise DataError(
                f"mask of {path}", f"no file {path.stem}.* in {mask_folder}", "Add the mask, or remove the image"
            )
        image, labels = self._open(path, mask)
        if image.shape != labels.shape:
            sizes = f"the image is {image.shape[1]}x{image.shape[0]}, the mask {labels.shape[1]}x{labels.shape[0]}"
            raise DataError(f"mask {mask}", sizes, "Image and mask must have one size")
        return _Pair(path.stem, path, mask, pixel_digest(image), thumbnail(image))


def read_labels(path: Path, classes: Mapping[str, int], rules: ImageRules, image: Path) -> Labels:
    """Label map uint8 (H, W): ``i + 1`` where the mask has the value of the i-th class, else 0; upright as its image.

    Raises ``DataError`` naming the values that no class stands for.
    """
    values = read_label_values(path, rules, image)
    known = {0, *classes.values()}
    unknown = sorted(set(np.unique(values).tolist()) - known)
    if unknown:
        names = ", ".join(f"{name} = {value}" for name, value in classes.items())
        raise DataError(
            f"mask {path}",
            f"unknown label{'s' if len(unknown) > 1 else ''} {', '.join(map(str, unknown[:8]))}",
            f"Known: background = 0, {names}; name more in [task.options.classes]",
        )
    labels = np.zeros(values.shape, np.uint8)
    for label, value in enumerate(classes.values(), start=1):
        labels[values == value] = label
    return labels


def _check_classes(classes: Mapping[str, int]) -> None:
    values = list(classes.values())
    if len(set(values)) < len(values) or 0 in values:
        raise SpecError(
            "task.options.classes",
            f"got {dict(classes)}",
            "Every class needs a mask value of its own; 0 is background. For example { nerve = 1, vessel = 2 }",
        )


def _by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """Files by their name without suffix, which is what pairs an image with its mask."""
    named: dict[str, Path] = {}
    for path in paths:
        if path.stem in named:
            raise DataError(
                f"files named {path.stem}", f"both {named[path.stem].name} and {path.name} in {path.parent}", "Keep one"
            )
        named[path.stem] = path
    return named


def _unique(pairs: list[_Pair]) -> list[_Pair]:
    """The first of every group of images with equal pixels."""
    return list({pair.digest: pair for pair in reversed(pairs)}.values())[::-1]


def _by_name(pair: _Pair) -> str:
    return pair.name
