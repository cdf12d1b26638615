"""Small made-up image data sets, for tests of the kinds of task that need no code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]


def striped(seed: int, upright: bool, side: int = 24) -> Pixels:
    """Stripes with noise, upright or lying: two classes that a small network can tell apart."""
    rng = np.random.default_rng(seed)
    wave = np.sin(np.arange(side) / 2 + rng.uniform(0, 6))
    stripes = np.tile(wave, (side, 1)) if upright else np.tile(wave[:, None], (1, side))
    return np.asarray(np.clip(127 + 90 * stripes + rng.normal(0, 12, (side, side)), 0, 255), np.uint8)


def save(path: Path, pixels: npt.NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def two_classes(root: Path, cases: int = 24) -> Path:
    """ROOT/lying and ROOT/upright, ``cases`` images each."""
    for number in range(cases):
        for name in ("lying", "upright"):
            save(root / name / f"{number:03d}.png", striped(2 * number + (name == "upright"), name == "upright"))
    return root


def table_of_patients(root: Path, patients: int = 12, images: int = 4) -> Path:
    """ROOT/images and ROOT/labels.csv: each patient has ``images`` images of one class, every third is upright."""
    lines = ["image,label,group"]
    for patient in range(patients):
        for number in range(images):
            upright, name = patient % 3 == 0, f"images/p{patient}-{number}.png"
            save(root / name, striped(100 * patient + number, upright))
            lines.append(f"{name},{'upright' if upright else 'lying'},patient {patient}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root
