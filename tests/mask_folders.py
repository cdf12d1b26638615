"""A made-up folder of images and masks, for tests of the kind that reads one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from picture_kit import Pixels, save
from scipy.ndimage import gaussian_filter

from edgedeploy.interfaces.task import Split
from edgedeploy.tasks.options import read_options
from edgedeploy.tasks.segmentation.folder import FolderOptions, SegmentationFolder

COUNTS = {"calibration_cases": 4, "selection_cases": 6, "resolutions": [64], "depth": 2, "base_channels": 4}


def picture(seed: int, size: tuple[int, int] = (48, 60)) -> Pixels:
    """Cloudy grey values that no other seed comes near."""
    clouds = gaussian_filter(np.random.default_rng(seed).normal(size=size), 4)
    return np.asarray(255 * (clouds - clouds.min()) / np.ptp(clouds), np.uint8)


def mask(size: tuple[int, int] = (48, 60), nerve: int = 1, vessel: int = 2) -> npt.NDArray[Any]:
    values = np.zeros(size, np.int32)
    values[4:14, 5:25] = nerve
    values[20:40, 30:50] = vessel
    return values


def put(root: Path, place: str, name: str, image: Pixels, values: npt.NDArray[Any] | None = None) -> None:
    save(root / place / "images" / f"{name}.png", image)
    size = (image.shape[0], image.shape[1])
    save(root / place / "masks" / f"{name}.png", np.asarray(mask(size) if values is None else values, np.uint8))


def fill(root: Path) -> Path:
    """24 images to search on and 5 to confirm on, of two sizes, all different."""
    for number in range(24):
        put(root, ".", f"{number:04d}", picture(number, (48, 60) if number % 3 else (70, 50)))
    for number in range(100, 105):
        put(root, "test", f"{number:04d}", picture(number))
    return root


def load(root: Path, **options: Any) -> SegmentationFolder:
    table = {"root": str(root), **COUNTS, **options}
    return SegmentationFolder(read_options(FolderOptions, FolderOptions(), table, "task.options"), Path("elsewhere"))


def names(task: SegmentationFolder, split: Split) -> set[str]:
    return {case.id.rpartition("/")[2] for case in task.cases(split)}


def logits_of(labels: Pixels, classes: int = 3) -> dict[str, np.ndarray]:
    return {"logits": (9.0 * np.eye(classes)[labels].transpose(2, 0, 1)[None]).astype(np.float32)}
