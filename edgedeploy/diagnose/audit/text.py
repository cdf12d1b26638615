"""Text that was burned into images which leave: names, dates and numbers of patients that a scanner wrote into the
pixels.

Read by PP-OCR's networks (`pip install 'edgedeploy[audit]'`), which come inside the package: nothing is fetched, and
nothing leaves this machine. What was read is not written down: it may be a name. Where it stands is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from edgedeploy.interfaces.task import Array

PACKAGE: Final = "rapidocr_onnxruntime"
MISSING: Final = "not looked for: no reader of text is installed. pip install 'edgedeploy[audit]'"
FEWEST_CHARACTERS: Final = 3
"""Speckle and edges are read as single letters now and then."""
LEAST_CERTAIN: Final = 0.6
MOST_IMAGES: Final = 24
SMALLEST_SIDE: Final = 32

LIMITS: Final = (
    "A reader of printed text misses some: small, faint, turned or handwritten text, and scripts other than Latin and "
    "Chinese. Not found does not show that images are free of names; whoever lets images out looks at them."
)


@dataclass(frozen=True)
class Found:
    """Text in one image, by its place among those that were looked at: ``box`` is left, top, right, bottom in
    pixels."""

    image: int
    box: tuple[int, int, int, int]
    characters: int
    certainty: float


@dataclass(frozen=True)
class Text:
    images: int = 0
    found: tuple[Found, ...] = ()
    why_not: str = ""
    cut: bool = False
    """The time was over before all images were looked at."""

    @property
    def images_with_text(self) -> int:
        return len({item.image for item in self.found})

    def as_json(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "images_with_text": self.images_with_text,
            "found": [asdict(item) for item in self.found],
            "not_measured": self.why_not,
        }


def look_for_text(images: Iterable[Array], deadline: Callable[[], bool] = lambda: False) -> Text:
    """Of images (H, W), (H, W, 3) or a network's input (C, H, W), of any range of values."""
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError as exc:
        return Text(
            why_not=MISSING if exc.name == PACKAGE else f"not looked for: {PACKAGE} does not start here ({exc})"
        )
    read = RapidOCR()
    found: list[Found] = []
    count = 0
    for image in images:
        if deadline():
            return Text(count, tuple(found), "" if count else "the time was over before the first image", cut=True)
        shown = as_picture(image)
        if shown is None:
            continue
        lines, _ = read(shown)
        for corners, text, certainty in lines or ():
            characters = sum(letter.isalnum() for letter in text)
            if characters >= FEWEST_CHARACTERS and float(certainty) >= LEAST_CERTAIN:
                found.append(Found(count, _box(corners), characters, round(float(certainty), 3)))
        count += 1
    return (
        Text(count, tuple(found))
        if count
        else Text(why_not=f"no image has {SMALLEST_SIDE} pixels a side, or none was there")
    )


def _box(corners: Any) -> tuple[int, int, int, int]:
    points = np.asarray(corners, np.float64)
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    return round(left), round(top), round(right), round(bottom)


def as_picture(image: Array) -> Array | None:
    """(H, W, 3) uint8, the range of values spread from black to white; None for what is no picture of a readable
    size."""
    image = np.asarray(image)
    if image.ndim == 3 and image.shape[0] in (1, 3) and image.shape[2] not in (1, 3):
        image = np.moveaxis(image, 0, -1)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3) or min(image.shape[:2]) < SMALLEST_SIDE:
        return None
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        image = np.rint(255 * (image.astype(np.float64) - low) / (high - low or 1)).astype(np.uint8)
    return np.ascontiguousarray(np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image)
