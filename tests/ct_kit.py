"""Pairs of slices in HU without a scan: made-up bodies, and the same with noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgedeploy.tasks.lowdose.phantoms import phantom

Slice = npt.NDArray[np.float32]


def low_hu(number: int, side: int = 32, noise_hu: float = 40.0) -> Slice:
    noise = np.random.default_rng(number).normal(0, noise_hu, (side, side))
    return np.clip(phantom(side, number) + noise, -1024, 3071).astype(np.float32)


def hu_pairs(root: Path, cases: int = 24, side: int = 32) -> Path:
    """TIFF files of floats in ``low`` and ``normal``; two slices of a patient."""
    rows = ["image,group"]
    for half in ("low", "normal"):
        (root / half).mkdir(parents=True)
    for number in range(cases):
        Image.fromarray(low_hu(number, side)).save(root / "low" / f"{number:03d}.tif")
        Image.fromarray(phantom(side, number)).save(root / "normal" / f"{number:03d}.tif")
        rows.append(f"{number:03d}.tif,patient {number // 2}")
    (root / "groups.csv").write_text("\n".join(rows))
    return root
