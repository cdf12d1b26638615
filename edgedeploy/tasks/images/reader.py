"""Image files as numbers between black and white, by one rule for the whole data set.

What is black and white: the option ``value_range``; else what the file states (8 bits, TIFF of 12 bits, DICOM's bits
stored); else, for whole numbers of 0 to 65535, the smallest of 8, 10, 12, 14 and 16 bits that holds the largest value of
all such files of the data set, and for fractions 0 to 1 if all of them are in it. Anything else is asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgedeploy.errors import Advice, DataError
from edgedeploy.tasks.images.dicom import is_dicom
from edgedeploy.tasks.images.files import leaves_range_open, read_pixels
from edgedeploy.tasks.images.rules import ImageRules, Pixels, ValueRange, Values

Shades = npt.NDArray[np.uint8] | npt.NDArray[np.float32]

BIT_DEPTHS: Final = (8, 10, 12, 14, 16)
_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)
"""Red, green and blue in grey: ITU-R 601, as Pillow has it for 8 bits."""


@dataclass
class _Seen:
    """Smallest and largest value of files whose format leaves their range open."""

    low: float = np.inf
    high: float = -np.inf
    files: int = 0

    def add(self, values: Values) -> None:
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self.files += 1


class ImageReader:
    """Reads the images of one data set.

    The constructor opens every file of ``paths``, unless ``value_range`` is stated, and decodes those whose range is
    open; it raises ``DataError`` for a bad one. A file whose range is open and that was not among ``paths`` is read by the
    range of those that were.
    """

    def __init__(self, rules: ImageRules, paths: Iterable[Path]) -> None:
        self.rules = rules
        whole, fractions = _Seen(), _Seen()
        self._decoders: set[str] = set()
        if rules.value_range:  # nothing to find: one file says what decodes
            paths = islice((path for path in paths if is_dicom(path)), 1)
        for path in paths:
            if not leaves_range_open(path, rules):
                continue
            pixels = self._read(path)
            if pixels.stated is None:
                (fractions if pixels.values.dtype.kind == "f" else whole).add(pixels.values)
        self._whole, self._fractions = whole, fractions

    def _read(self, path: Path) -> Pixels:
        pixels = read_pixels(path, self.rules)
        if pixels.decoder:
            self._decoders.add(pixels.decoder)
        return pixels

    @property
    def note(self) -> str:
        """What was found in the data set about its range, and what decoded its DICOM files, for people; empty when nothing
        had to be found."""
        decoders = f"DICOM files were decoded by {' and by '.join(sorted(self._decoders))}" if self._decoders else ""
        return "; ".join(filter(None, (self._range_note, decoders)))

    @property
    def _range_note(self) -> str:
        if not self._whole.files or self._bits is None:
            return ""
        text = f"{self._whole.files} images of more than 8 bits do not state their range; their largest value is "
        return f"{text}{self._whole.high:g}, so 0 to {2**self._bits - 1} ({self._bits} bits) is black to white"

    def shades(self, path: Path, *, colour: bool) -> Shades:
        """Black 0 to white 255: (H, W), or (H, W, 3) as red, green, blue. uint8 where the file has 8 bits, else float32
        with fractions, so that nothing is lost. With ``value_range = "raw"``: float32, the file's own numbers.

        Raises ``DataError``.
        """
        pixels = self._read(path)
        if self.rules.value_range is None and pixels.plain:
            return _as_colour(pixels.values, colour)
        values = self._unit(path, pixels)
        return _as_colour(values if self.rules.value_range == "raw" else values * np.float32(255), colour)

    def unit(self, path: Path, *, colour: bool) -> npt.NDArray[np.float32]:
        """As :meth:`shades`, float32 and black 0 to white 1 (the file's own numbers with ``"raw"``)."""
        shades = self.shades(path, colour=colour).astype(np.float32)
        return shades if self.rules.value_range == "raw" else shades / np.float32(255)

    def _unit(self, path: Path, pixels: Pixels) -> npt.NDArray[np.float32]:
        stated = self.rules.value_range
        if stated == "raw":
            if pixels.inverted:
                found = "its smallest value is white, and its own numbers do not say where black is"
                remedy = Advice("State", {"value_range": "[low, high]"})
                raise DataError(f"image {path} by value_range = 'raw'", found, remedy)
            return pixels.values.astype(np.float32)
        if isinstance(stated, tuple):
            low, high = stated
        else:
            low, high = self._range(path, pixels)
            if stated is None:
                self._check_inside(path, pixels.values, low, high)
        scaled = np.clip((pixels.values.astype(np.float64) - low) / (high - low), 0.0, 1.0)
        return (1.0 - scaled if pixels.inverted else scaled).astype(np.float32)

    def _range(self, path: Path, pixels: Pixels) -> ValueRange:
        if pixels.stated is not None:
            return pixels.stated
        seen = self._fractions if pixels.values.dtype.kind == "f" else self._whole
        if not seen.files:
            seen = _Seen()
            seen.add(pixels.values)
        elif pixels.values.dtype.kind != "f" and self._bits is not None:
            return 0.0, float(2**self._bits - 1)
        if seen is self._fractions and seen.low >= 0 and seen.high <= 1:
            return 0.0, 1.0
        raise DataError(
            f"black and white of image {path}",
            f"its format does not state them; the values are {seen.low:g} to {seen.high:g}",
            Advice(
                "State",
                {"value_range": "[black, white]"},
                "[task.options]",
                ", or 'raw' for the file's own numbers",
            ),
        )

    @property
    def _bits(self) -> int | None:
        if self._whole.low < 0:
            return None
        return next((bits for bits in BIT_DEPTHS if self._whole.high < 2**bits), None)

    def _check_inside(self, path: Path, values: Values, low: float, high: float) -> None:
        least, most = float(values.min()), float(values.max())
        if least < low or most > high:
            found = f"it has values of {least:g} to {most:g}"
            raise DataError(f"image {path} within {low:g} to {high:g}", found, "State value_range in the options")


def _as_colour(values: Values, colour: bool) -> Shades:
    if colour:
        return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)
    if values.ndim == 2:
        return values
    if values.dtype == np.uint8:
        return np.asarray(Image.fromarray(values).convert("L"))
    return np.asarray(values @ _LUMA, np.float32)
