"""Segmentation of volumes: NIfTI images, or folders with a DICOM series, with label volumes of the same name.

    ROOT/images/*.nii.gz  ROOT/labels/*.nii.gz                splits are drawn
    ROOT/SPLIT/images/*   ROOT/SPLIT/labels/*                 train, val, test as they are; what is not there is drawn

Every volume is turned to one orientation and brought to one spacing (MONAI), then cut out around its middle, or squeezed, to
the network's size. Answers are scored on the volume at that spacing: what a cut leaves out counts as background.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from edgedeploy.errors import DataError, MeasurementError
from edgedeploy.interfaces.task import Array, Case, Split, TrainRecipe
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Scalar
from edgedeploy.tasks.batching import in_batches
from edgedeploy.tasks.network import Maker, answered_maps, build_network, logit_channels, with_background
from edgedeploy.tasks.options import at_least
from edgedeploy.tasks.pictures.entries import Entry, data_folder, pairs_of, split_entries
from edgedeploy.tasks.segmentation.base import CONTOUR_COLOURS, outline
from edgedeploy.tasks.segmentation.metrics import mean_of_defined, structure_metrics
from edgedeploy.tasks.splitting import check_shares, shares_of
from edgedeploy.tasks.volume_files import (
    MAX_VOXELS,
    Affine,
    Labels,
    Volume,
    onto,
    read_nifti,
    read_volume,
    same_voxels,
    stem_of,
    volume_files,
    write_labels,
)

MAX_CLASSES: Final = 254
"""Label maps are of 8 bits."""

VOLUMES_IN_MEMORY: Final = 32
STEP: Final = 16
"""Sides of the network's input are multiples of it: four steps down."""

FITS: Final = ("crop", "squeeze")

_ENDS: Final = (("L", "R"), ("P", "A"), ("I", "S"))
"""Of the axes of RAS+: MONAI's own default has changed."""


@dataclass(frozen=True)
class VolumeOptions:
    """Where the volumes are, how they become inputs, and how a network is made of them.

    - ``root``: the data's folder, relative to the study file.
    - ``images``, ``labels``: folder below ``root``; pairs have equal names.
    - ``groups``: a CSV table below ``root`` with the columns ``image,group``; volumes of one group are on one side.
    - ``classes``: what the label values mean; 0 is background.
    - ``size``: of the network's input in voxels along the axes of ``orientation``, multiples of 16.
    - ``spacing_mm``: of a voxel along them, 0 to leave it as it is.
    - ``orientation``: the axes that every volume is turned to.
    - ``fit``: ``"crop"`` cuts the middle out, ``"squeeze"`` squeezes the whole volume.
    - ``window``: values that become 0 and 1 (HU for a CT); two equal ones bring each volume to zero mean and unit variance.
    - ``surface_tolerance_mm``: how far apart two surfaces may lie and still agree, for the surface Dice.
    - ``network``: ``"file.py:function"`` makes the network in place of the kind's own.
    - ``base_channels``: channels of the kind's own network at full size.
    - ``calibration_share``, ``selection_share``, ``confirmation_share``: of the cases that came without a split.
    - ``split_seed``: decides the draw.
    - ``seed``: decides the network's first weights.
    - ``flip``: mirrors half of the training volumes along each axis.
    - ``baseline``: how the baseline is trained.
    - ``recovery``: how a pruned variant is trained further.
    """

    root: str = ""
    images: str = "images"
    labels: str = "labels"
    groups: str = ""
    classes: Mapping[str, int] = field(default_factory=lambda: {"structure": 1})
    size: tuple[int, ...] = (64, 64, 64)
    spacing_mm: tuple[float, ...] = (0.0, 0.0, 0.0)
    orientation: str = "RAS"
    fit: str = "crop"
    window: tuple[float, ...] = (0.0, 0.0)
    surface_tolerance_mm: float = 2.0
    network: str = ""
    base_channels: int = 8
    calibration_share: float = 0.1
    selection_share: float = 0.2
    confirmation_share: float = 0.2
    split_seed: int = 0
    seed: int = 0
    flip: bool = True
    baseline: TrainRecipe = field(default_factory=lambda: TrainRecipe(epochs=100, batch_size=2, learning_rate=1e-3))
    recovery: TrainRecipe = field(
        default_factory=lambda: TrainRecipe(
            epochs=10, batch_size=2, learning_rate=5e-4, warmup_epochs=0.5, distill_weight=0.3
        )
    )

    def __post_init__(self) -> None:
        at_least(self, base_channels=1, seed=0, split_seed=0)
        check_shares(self)
        if len(self.size) != 3 or any(side % STEP or side < STEP for side in self.size):
            raise ValueError(f"size is three multiples of {STEP}, but got {list(self.size)}")
        if math.prod(self.size) > MAX_VOXELS:
            raise ValueError(f"size is at most {MAX_VOXELS} voxels, but got {list(self.size)}")
        if len(self.spacing_mm) != 3 or any(not 0 <= side < math.inf for side in self.spacing_mm):
            raise ValueError(f"spacing_mm is three lengths, 0 to leave one as it is, but got {list(self.spacing_mm)}")
        if sorted("LRAPSI".index(c) // 2 for c in self.orientation if c in "LRAPSI") != [0, 1, 2]:
            raise ValueError(f"orientation names three axes, such as RAS, but got {self.orientation!r}")
        if self.fit not in FITS:
            raise ValueError(f"fit is {' or '.join(FITS)}, but got {self.fit!r}")
        if not 0 < self.surface_tolerance_mm < math.inf:
            raise ValueError(f"surface_tolerance_mm must be positive, but got {self.surface_tolerance_mm}")
        if len(self.window) != 2 or self.window[0] > self.window[1]:
            raise ValueError(f"window is two rising values, but got {list(self.window)}")
        values = list(self.classes.values())
        if len(values) > MAX_CLASSES:
            raise ValueError(f"at most {MAX_CLASSES} classes are taken, but got {len(values)}")
        if len(set(values)) < len(values) or 0 in values:
            raise ValueError(f"every class needs a value of its own that is not 0, but got {dict(self.classes)}")


class _Place(NamedTuple):
    """``grid``: the affine of a case's voxels as the network sees them; ``shape`` and ``affine``: those of its file."""

    grid: Affine
    shape: tuple[int, ...]
    affine: Affine


class Volumes:
    """See :class:`edgedeploy.Task`, ``Trainable``, ``Grouped`` and ``Pictured``. The constructor reads every volume once, so
    that a bad file is reported before anything starts."""

    name = "volumes"
    architecture: Mapping[str, Sequence[Scalar]] = {}

    def __init__(self, options: VolumeOptions, base: Path, maker: Maker | None = None) -> None:
        root = data_folder(options.root, base, f"{options.images}/ and {options.labels}/")
        entries = pairs_of(root, (options.images, options.labels), options.groups, volume_files, stem_of)
        self.options = options
        self._maker = maker
        self.baseline_recipe: TrainRecipe = options.baseline
        self.recovery_recipe: TrainRecipe = options.recovery
        self._splits = split_entries(entries, shares_of(options), options.split_seed, str(root))
        self._entries = {case: entry for cases in self._splits.values() for case, entry in cases.items()}
        self.groups_known = any(entry.group is not None for entry in entries)
        self._spacing_mm: dict[Case, tuple[float, ...]] = {}
        self._places: dict[Case, _Place] = {}
        self.load = lru_cache(maxsize=VOLUMES_IN_MEMORY)(self._load)
        for case in self._entries:
            self.load(case)
        table = {
            "dice_mean": MetricInfo(
                "maximize", "1", "Dice, mean over the classes defined in the volume", bound=1.0, yes_or_no=False
            )
        }
        near = f"{options.surface_tolerance_mm:g} mm"
        for name in options.classes:
            table[f"dice_{name}"] = MetricInfo("maximize", "1", f"Dice of {name}", bound=1.0, yes_or_no=False)
            table[f"nsd_{name}"] = MetricInfo(
                "maximize", "1", f"surface Dice of {name} at {near}", bound=1.0, yes_or_no=False
            )
            table[f"hd95_{name}_mm"] = MetricInfo(
                "minimize", "mm", f"95th percentile Hausdorff distance of {name}", bound=0.0
            )
        self.metrics: Mapping[str, MetricInfo] = table

    # -- the task protocol

    def build(self, **arch: Scalar) -> Any:
        import torch
        from monai.networks.nets import BasicUNet

        outputs = len(self.options.classes) + 1
        if self._maker is not None:
            offered = {"in_channels": 1, "out_channels": outputs, "classes": outputs, **arch}
            return build_network(self._maker, offered, self.options.seed)
        base = self.options.base_channels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.options.seed)
            return BasicUNet(
                spatial_dims=3,
                in_channels=1,
                out_channels=outputs,
                features=(base, base, 2 * base, 4 * base, 8 * base, base),
                act="relu",
                norm="batch",  # both run as part of the convolution once it is quantised
            )

    def input_specs(self, **arch: Scalar) -> tuple[TensorSpec, ...]:
        return (TensorSpec("volume", "float32", (1, 1, *self.options.size)),)

    def cases(self, split: Split) -> Sequence[Case]:
        return tuple(self._splits[split])

    def group_of(self, case: Case) -> str:
        return self._entries[case].group or case.id

    def inputs(self, case: Case, **arch: Scalar) -> dict[str, Array]:
        volume, _ = self.load(case)
        fitted = _squeezed(volume, self.options.size, "trilinear") if self.options.fit == "squeeze" else None
        return {"volume": (placed(volume, self.options.size) if fitted is None else fitted)[None, None]}

    def evaluate(self, outputs: Mapping[str, Array], case: Case) -> dict[str, float | None]:
        """Empty structures as in ``segmentation/metrics.py``."""
        truth = self.load(case)[1]
        answer = self.answer(outputs, truth.shape)
        found: dict[str, float | None] = {}
        tolerance, spacing = self.options.surface_tolerance_mm, self._spacing_mm[case]
        for label, name in enumerate(self.options.classes, start=1):
            dice, nsd, hd95 = structure_metrics(answer == label, truth == label, tolerance, spacing)
            found[f"dice_{name}"], found[f"nsd_{name}"], found[f"hd95_{name}_mm"] = dice, nsd, hd95
        return {**found, "dice_mean": mean_of_defined(found[f"dice_{name}"] for name in self.options.classes)}

    def answer(self, outputs: Mapping[str, Array], shape: tuple[int, ...]) -> Labels:
        """Logits (1, C, *size) as a label map of ``shape``. Raises ``MeasurementError``."""
        logits = answered_maps(outputs, logit_channels(len(self.options.classes)), axes=3)
        if not np.isfinite(logits).all():
            raise MeasurementError("finite logits", "NaN or Inf", "Choose a wider precision")
        if logits.shape[1] == 1:
            logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
        if self.options.fit == "crop":
            return np.asarray(placed(logits[0].argmax(axis=0).astype(np.uint8), shape), np.uint8)
        import torch
        import torch.nn.functional as F  # noqa: N812

        full = F.interpolate(torch.from_numpy(logits), size=shape, mode="trilinear", align_corners=False)
        return np.asarray(full[0].argmax(dim=0), np.uint8)

    # -- training

    def batches(self, seed: int, batch_size: int, **arch: Scalar) -> Iterator[tuple[Any, Any]]:
        """Batches of (N, 1, *size) float32 and (N, 1, *size) int64 tensors, cut out where there is a structure in every
        second one; a last batch of one is left out (batch norm)."""
        import torch

        rng = np.random.default_rng(seed)
        batches = in_batches(self.cases("train"), batch_size, rng)
        change = self._augmentation(int(rng.integers(2**31)))
        for chosen in batches:
            rows = [self._row(change, case) for case in chosen]
            volumes = torch.stack([torch.as_tensor(np.asarray(row["volume"], np.float32)) for row in rows])
            yield volumes, torch.stack([torch.as_tensor(np.asarray(row["label"])).long() for row in rows])

    def _row(self, change: Any, case: Case) -> Any:
        volume, label = self.load(case)
        if self.options.fit == "squeeze":
            volume = _squeezed(volume, self.options.size, "trilinear")
            label = np.asarray(_squeezed(label.astype(np.float32), self.options.size, "nearest-exact"), np.uint8)
        row = change({"volume": volume[None], "label": label[None]})
        return row[0] if isinstance(row, list) else row

    def _augmentation(self, seed: int) -> Any:
        from monai import transforms

        both, size = ["volume", "label"], self.options.size
        steps: list[Any] = []
        if self.options.fit == "crop":
            steps.append(transforms.SpatialPadd(both, size))
            steps.append(transforms.RandCropByPosNegLabeld(both, "label", size, pos=1, neg=1, num_samples=1))
        if self.options.flip:
            steps += [transforms.RandFlipd(both, prob=0.5, spatial_axis=axis) for axis in range(3)]
        steps.append(transforms.RandScaleIntensityd("volume", prob=0.5, factors=0.1))
        steps.append(transforms.RandShiftIntensityd("volume", prob=0.5, offsets=0.1))
        change = transforms.Compose(steps)
        change.set_random_state(seed=seed)
        return change

    def loss(self, outputs: Any, target: Any) -> Any:
        """Cross-entropy plus soft Dice (MONAI)."""
        from monai.losses import DiceCELoss

        loss = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
        return loss(with_background(outputs), target)

    # -- pictures and files

    def picture(self, case: Case, outputs: Mapping[str, Array] | None) -> npt.NDArray[np.uint8]:
        """The slice along the third axis with the most truth, with the outlines of the truth or of the answer."""
        volume, truth = self.load(case)
        labels = truth if outputs is None else self.answer(outputs, truth.shape)
        place = int((truth > 0).sum(axis=(0, 1)).argmax()) if truth.any() else truth.shape[2] // 2
        plane, marks = np.rot90(volume[..., place]), np.rot90(labels[..., place])
        low, high = np.percentile(plane, [1, 99])
        grey = np.clip((plane - low) / max(float(high - low), 1e-6) * 255, 0, 255).astype(np.uint8)
        canvas = np.repeat(grey[..., None], 3, axis=2)
        for index in range(len(self.options.classes)):
            canvas[outline(marks == index + 1)] = CONTOUR_COLOURS[index % len(CONTOUR_COLOURS)]
        return canvas

    def write_answer(self, outputs: Mapping[str, Array], case: Case, path: Path) -> None:
        """The answer as a NIfTI file of the image's own voxels and affine; values are those of ``classes``. Raises
        ``DataError``, ``MeasurementError``."""
        place = self._places[case]
        labels = onto(self.answer(outputs, self.load(case)[1].shape), place.grid, place.shape, place.affine)
        write_labels(path, np.array([0, *self.options.classes.values()], np.int32)[labels], place.affine)

    def _load(self, case: Case) -> tuple[Volume, Labels]:
        """The volume, its values brought to the network's, and its label map, both at the options' orientation and
        spacing. Raises ``DataError``."""
        entry = self._entries[case]
        (values, affine), (marks, other) = read_volume(entry.image), read_nifti(_truth(entry))
        if not same_voxels(other, marks.shape, affine, values.shape):
            found = f"the image has {values.shape} voxels, the labels {marks.shape}, or they lie elsewhere"
            raise DataError(f"labels {entry.truth}", found, "Image and labels must have the same voxels")
        if not np.allclose(affine, other, atol=1e-3):
            marks, other = onto(marks, other, values.shape, affine), affine
        volume, grid = self._regular(values, affine, "bilinear")
        self._spacing_mm[case] = tuple(float(np.linalg.norm(grid[:3, axis])) for axis in range(3))
        self._places[case] = _Place(grid, values.shape, affine)
        labels, _ = self._regular(_numbered(_truth(entry), marks, self.options.classes), affine, "nearest")
        return self._normalised(volume), np.asarray(np.rint(labels), np.uint8)

    def _regular(self, values: Volume, affine: Affine, mode: str) -> tuple[Volume, Affine]:
        """``values`` at the options' orientation and spacing, and the affine that they have then."""
        import torch
        from monai.data import MetaTensor
        from monai.transforms import Orientation, Spacing

        volume: Any = MetaTensor(torch.from_numpy(values)[None], affine=torch.from_numpy(affine))
        volume = Orientation(self.options.orientation, labels=_ENDS)(volume)
        if any(self.options.spacing_mm):
            now = volume.pixdim.tolist()
            wanted = [mine or theirs for mine, theirs in zip(self.options.spacing_mm, now, strict=True)]
            voxels = math.prod(volume.shape[1:]) * math.prod(now) / math.prod(wanted)
            if voxels > MAX_VOXELS:
                asked = f"volumes of spacing {', '.join(f'{side:g}' for side in wanted)} mm"
                raise DataError(asked, f"one has {voxels:.3g} voxels then", f"At most {MAX_VOXELS}: widen spacing_mm")
            volume = Spacing(wanted, mode=mode)(volume)
        return np.ascontiguousarray(volume[0].numpy(), np.float32), np.asarray(volume.affine.numpy(), np.float64)

    def _normalised(self, volume: Volume) -> Volume:
        low, high = self.options.window
        if low < high:
            return np.asarray(np.clip((volume - low) / (high - low), 0, 1), np.float32)
        return np.asarray((volume - volume.mean()) / (volume.std() + 1e-6), np.float32)


def placed(values: npt.NDArray[Any], shape: Sequence[int]) -> npt.NDArray[Any]:
    """``values`` around the middle of an array of ``shape``: cut where it is larger, zero around it where it is smaller.
    Placing the result back in an array of the first shape brings every voxel that was kept to where it came from."""
    result = np.zeros(tuple(shape), values.dtype)
    ours, theirs = [], []
    for wanted, there in zip(shape, values.shape, strict=True):
        kept = min(wanted, there)
        ours.append(slice((wanted - kept) // 2, (wanted - kept) // 2 + kept))
        theirs.append(slice((there - kept) // 2, (there - kept) // 2 + kept))
    result[tuple(ours)] = values[tuple(theirs)]
    return result


def _truth(entry: Entry) -> Path:
    assert entry.truth is not None
    return entry.truth


def _numbered(path: Path, marks: Volume, classes: Mapping[str, int]) -> Volume:
    """``i + 1`` where the file has the value of the i-th class, else 0. Raises ``DataError`` for other values."""
    unknown = sorted(set(np.unique(marks).tolist()) - {0.0, *map(float, classes.values())})
    if unknown:
        names = ", ".join(f"{name} = {value}" for name, value in classes.items())
        found = f"unknown label{'s' if len(unknown) > 1 else ''} {', '.join(f'{value:g}' for value in unknown[:8])}"
        raise DataError(f"labels {path}", found, f"Known: background = 0, {names}; name more in [task.options.classes]")
    labels = np.zeros(marks.shape, np.float32)
    for label, value in enumerate(classes.values(), start=1):
        labels[marks == value] = label
    return labels


def _squeezed(values: Volume, size: Sequence[int], mode: str) -> Volume:
    """Voxels are areas for both modes: torch's plain "nearest" takes them for points, and labels would lie half a voxel of
    the network's aside of the volume."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    align = {"align_corners": False} if mode == "trilinear" else {}
    return np.asarray(F.interpolate(torch.from_numpy(values)[None, None], size=tuple(size), mode=mode, **align)[0, 0])
