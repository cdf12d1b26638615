"""Label images: the whole numbers of a mask, which are no grey values and no colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgedeploy.errors import DataError
from edgedeploy.tasks.images.dicom import is_dicom
from edgedeploy.tasks.images.files import bits_of, load_as_stored, opened, orientation, shown_size, upright
from edgedeploy.tasks.images.rules import ImageRules

Numbers = npt.NDArray[np.int64]


def read_label_values(path: Path, rules: ImageRules, image: Path | None = None) -> Numbers:
    """The numbers of a mask (H, W) as they are in the file: of a palette the indices, of 16 bits all, of 2 or 4 bits 0 to
    3 or 15. With ``image``, the mask is turned as its image was.

    Raises ``DataError`` for colours, for what :func:`edgedeploy.tasks.images.files.read_pixels` refuses, and for a mask
    without an EXIF orientation of which nobody can say whether it must be turned like its image.
    """
    with opened(path, rules, mask=True) as file:
        turned = load_as_stored(file)
        values = upright(_numbers(path, file), turned)
    if image is None or turned != 1 or is_dicom(image):
        return values
    with opened(image, rules) as beside:
        turned = orientation(beside)
    width, height = shown_size(image, rules)
    return _turned_like(path, values, (height, width), turned)


def _numbers(path: Path, file: Image.Image) -> Numbers:
    mode, bits = file.mode, bits_of(path, file)
    if mode == "L" and bits in (2, 4):  # Pillow spreads them over 0 to 255
        return np.asarray(np.asarray(file, np.int64) // (255 // (2**bits - 1)))
    if mode in ("L", "P", "1", "I") or mode.startswith("I;16"):
        return np.asarray(file).astype(np.int64)
    if mode == "F":
        numbers = np.asarray(file)
        if np.isfinite(numbers).all() and not np.any(numbers % 1) and np.abs(numbers).max(initial=0) < 2**24:
            return numbers.astype(np.int64)
        raise DataError(f"mask {path}", "it holds fractions", "A mask is one channel of class numbers")
    if mode in ("LA", "RGB", "RGBA") and bits == 8:
        channels: npt.NDArray[Any] = np.asarray(file)
        colours = channels[..., : 1 if mode == "LA" else 3]
        seen = mode == "RGB" or bool(np.all(channels[..., -1] == 255))
        if seen and np.all(colours == colours[..., :1]):
            return np.asarray(colours[..., 0], np.int64)
    raise DataError(f"mask {path}", f"it has mode {mode}", "A mask is one channel of class numbers")


def _turned_like(path: Path, values: Numbers, shown: tuple[int, int], turned: int) -> Numbers:
    """A mask without an orientation of its own beside an image of the upright size ``shown`` that had one: its size says
    how it was drawn."""
    stored = shown[::-1] if turned >= 5 else shown
    if turned == 1 or values.shape != stored:
        return values
    if stored == shown:
        raise DataError(
            f"mask {path}",
            f"its image has EXIF orientation {turned} and the mask has none: it may be drawn before or after turning",
            "Store the image upright (Pillow's ImageOps.exif_transpose), or give the mask the same orientation",
        )
    return upright(values, turned)
