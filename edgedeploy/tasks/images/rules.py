"""What a study states about its image files, and what a file turned out to hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from edgedeploy.errors import Advice, DataError, Setting, SpecError

ValueRange = tuple[float, float]
Values = npt.NDArray[Any]

MAX_PAGE: Final = 100_000


@dataclass(frozen=True)
class ImageRules:
    """Options of a task on how its image files become numbers.

    ``value_range``: the file's values that become black and white, in its own units (HU for a CT); values beyond them are
    clipped. ``"raw"``: the file's own numbers, not scaled. ``"window"``: a DICOM file's own window. None: what the file
    states, else what :class:`edgedeploy.tasks.images.reader.ImageReader` finds in the data set.

    ``page``: of a file with several pages or frames the one that is read, counted from 1; 0 when nothing is stated.
    """

    value_range: ValueRange | Literal["raw", "window"] | None = None
    page: int = 0

    @classmethod
    def from_table(cls, table: Mapping[str, Any], where: str) -> ImageRules:
        """The keys ``value_range`` and ``page`` of a table of options, if they are there. Raises ``SpecError``."""
        return cls(
            read_value_range(table["value_range"], f"{where}.value_range") if "value_range" in table else None,
            read_page(table["page"], f"{where}.page") if "page" in table else 0,
        )


def read_value_range(value: Any, where: str) -> ValueRange | Literal["raw", "window"]:
    """Raises ``SpecError`` for what is neither two rising numbers nor one of the words."""
    if value in ("raw", "window"):
        return "raw" if value == "raw" else "window"
    if isinstance(value, (list, tuple)) and len(value) == 2:
        numbers = [float(v) for v in value if isinstance(v, (int, float)) and not isinstance(v, bool)]
        if len(numbers) == 2 and all(map(math.isfinite, numbers)) and numbers[0] < numbers[1]:
            return numbers[0], numbers[1]
    example = 'For example [0, 4095], "raw" for the file\'s own numbers, or "window" for a DICOM file\'s own window'
    raise SpecError(Setting(where), f"got {value!r}", example)


def read_page(value: Any, where: str) -> int:
    """Raises ``SpecError`` for what is no number of a page."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_PAGE:
        return value
    remedy = f"A whole number, 1 to {MAX_PAGE}: pages and frames are counted from 1"
    raise SpecError(Setting(where), f"got {value!r}", remedy)


@dataclass(frozen=True)
class Pixels:
    """One picture, upright: (H, W), or (H, W, 3) as red, green, blue.

    - ``values``: uint8, uint16, uint32, int32 or float32, in the file's own units (a DICOM file's after its rescale).
    - ``stated``: the values that the file's format makes black and white; None when it leaves that open.
    - ``inverted``: the smallest value is white (DICOM's MONOCHROME1, TIFF's WhiteIsZero).
    - ``turned``: its EXIF orientation, 1 to 8, which has been applied.
    - ``decoder``: what decoded a DICOM file, with its versions: decoders answer differently to the same JPEG.
    """

    values: Values
    stated: ValueRange | None
    inverted: bool = False
    turned: int = 1
    decoder: str = ""

    @property
    def plain(self) -> bool:
        """Whether they are 8-bit grey values that can stay as they are."""
        return self.values.dtype == np.uint8 and self.stated == (0.0, 255.0) and not self.inverted


def page_of(path: Path, rules: ImageRules, pages: int, kind: str) -> int:
    """Which page of a file to read, from 0 on. Raises ``DataError`` when that has to be asked."""
    if not rules.page:
        if pages == 1:
            return 0
        remedy = Advice("State which one:", {"page": f"1 to {pages}"}, "[task.options]")
        raise DataError(f"image {path}", f"it has {pages} {kind}s", remedy)
    if rules.page > pages:
        raise DataError(f"{kind} {rules.page} of image {path}", f"it has {pages}", "Correct the option `page`")
    return rules.page - 1
