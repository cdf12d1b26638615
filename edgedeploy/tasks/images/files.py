"""PNG, JPEG, TIFF, BMP, GIF and WebP files through Pillow, which may read these formats alone: it knows others that run
programs. Nothing is decoded before its size is known."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from edgedeploy.errors import DataError
from edgedeploy.tasks.images.dicom import SUFFIXES as DICOM_SUFFIXES
from edgedeploy.tasks.images.dicom import is_dicom, read_dicom
from edgedeploy.tasks.images.rules import ImageRules, Pixels, ValueRange, Values, page_of

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", *DICOM_SUFFIXES)
FORMATS: Final = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP")
MAX_PIXELS: Final = 64_000_000

_ORIENTATION: Final = 0x0112
_WIDTH: Final = 256
_HEIGHT: Final = 257
_BITS_PER_SAMPLE: Final = 258
_PHOTOMETRIC: Final = 262
_SAMPLE_FORMAT: Final = 339
_DAMAGED: Final = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, struct.error)


def image_files(folder: Path) -> list[Path]:
    """The image files of a folder by name: known suffixes, and DICOM files without one. Hidden files are left out."""
    shown = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(p for p in shown if p.suffix.lower() in SUFFIXES or (not p.suffix and p.is_file() and is_dicom(p)))


def read_pixels(path: Path, rules: ImageRules) -> Pixels:
    """The picture of a file, upright. Raises ``DataError`` for what is no image, cut short, far too large, has several
    pages of which none is named, or holds more than can be read without a loss."""
    if path.suffix.lower() in DICOM_SUFFIXES or is_dicom(path):
        return read_dicom(path, rules, MAX_PIXELS)
    with opened(path, rules) as image:
        turned = load_as_stored(image)
        pixels = _pixels(path, image)
    return replace(pixels, values=upright(pixels.values, turned), turned=turned)


def leaves_range_open(path: Path, rules: ImageRules) -> bool:
    """Whether a look at the pixels may be needed to say what is black and white. Raises ``DataError``."""
    if path.suffix.lower() in DICOM_SUFFIXES or is_dicom(path):
        return True
    with opened(path, rules) as image:
        return image.mode in ("I", "F") or image.mode.startswith("I;16")


@contextmanager
def opened(path: Path, rules: ImageRules, *, mask: bool = False) -> Iterator[Image.Image]:
    """The file at its page, of a size that may be decoded; faults of decoding inside become ``DataError``. A ``mask`` of
    one page is taken beside any page of its image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is narrower
            with Image.open(path, formats=FORMATS) as image:
                _check_size(path, image)
                pages = int(getattr(image, "n_frames", 1))
                alone = image.format == "MPO" or (mask and pages == 1)  # MPO: a camera's JPEG, then its previews
                if not alone:
                    page = page_of(path, rules, pages, "page")
                    if page:
                        image.seek(page)
                        _check_size(path, image)
                yield image
    except UnidentifiedImageError:
        raise DataError(f"image {path}", "it is no image that can be read", "Replace or remove the file") from None
    except (*_DAMAGED, Image.DecompressionBombError) as exc:
        raise DataError(f"image {path}", f"it cannot be decoded ({exc})", "Replace or remove the file") from None


def bits_of(path: Path, image: Image.Image) -> int:
    """Bits of a sample as the file has them; Pillow widens those below 8 and cuts colours of 16 to 8."""
    if image.format == "PNG":
        return _png_bits(path)
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        return int(max(tags.get(_BITS_PER_SAMPLE, (1,))))
    return 1 if image.mode == "1" else 8


def _png_bits(path: Path) -> int:
    with path.open("rb") as stream:
        return stream.read(25)[24]  # signature 8, length and name 8, width and height 8, then the depth


def _check_size(path: Path, image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"image {path}", f"{image.width}x{image.height} pixels", f"At most {MAX_PIXELS} are read")


def _pixels(path: Path, image: Image.Image) -> Pixels:
    bits = bits_of(path, image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _wide(path, image, bits)
    if bits > 8:
        found, remedy = f"colours of {bits} bits a channel", "Store 8 bits a channel, or grey values of 16 bits"
        raise DataError(f"image {path}", f"it has {found}, of which 8 would be read", remedy)
    if image.mode in ("1", "L"):
        return Pixels(np.asarray(image.convert("L")), (0.0, 255.0))
    if image.mode in ("LA", "La") or (image.mode == "L" and "transparency" in image.info):
        return Pixels(np.asarray(_on_black(image.convert("LA")).convert("L")), (0.0, 255.0))
    if image.has_transparency_data:
        return Pixels(np.asarray(_on_black(image.convert("RGBA")).convert("RGB")), (0.0, 255.0))
    if image.mode not in ("P", "RGB", "RGBX", "CMYK", "YCbCr"):
        raise DataError(f"image {path}", f"it has mode {image.mode}", "Store grey values or RGB")
    return Pixels(np.asarray(image.convert("RGB")), (0.0, 255.0))


def _on_black(image: Image.Image) -> Image.Image:
    """What is transparent becomes black, which it often is not in the file's hidden colours."""
    ground = Image.new(image.mode, image.size, (0,) * (len(image.getbands()) - 1) + (255,))
    if image.mode == "LA":  # alpha_composite takes colours only
        ground, image = ground.convert("RGBA"), image.convert("RGBA")
    return Image.alpha_composite(ground, image)


def _wide(path: Path, image: Image.Image, bits: int) -> Pixels:
    """16-bit, 32-bit and float grey values. Their format names black and white only where it has fewer bits than its
    container."""
    values: Values = np.asarray(image)
    inverted, stated = False, None
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        inverted = tags.get(_PHOTOMETRIC) == 0
        if bits == 32 and image.mode == "I" and tags.get(_SAMPLE_FORMAT, (1,))[0] == 1:
            values = values.view(np.uint32)
        stated = _full(bits) if bits not in (16, 32) else None
    if image.mode.startswith("I;16"):
        return Pixels(values.astype(np.uint16), stated, inverted)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError(f"image {path}", "it holds NaN or Inf", "Replace or remove the file")
    return Pixels(values.copy(), stated, inverted)


def _full(bits: int) -> ValueRange:
    return 0.0, float(2**bits - 1)


def orientation(image: Image.Image) -> int:
    """EXIF orientation of a file that was not loaded, 1 to 8, of which 1 is upright."""
    value = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def shown_size(path: Path, rules: ImageRules) -> tuple[int, int]:
    """Width and height of an image file that is no DICOM, as it is shown, from its header. Raises ``DataError``."""
    with opened(path, rules) as file:
        if orientation(file) >= 5 and file.format != "TIFF":  # Pillow states the upright size of a TIFF file alone
            return file.height, file.width
        return file.width, file.height


def load_as_stored(image: Image.Image) -> int:
    """Decode a file without turning it; returns its orientation."""
    exif = image.getexif()
    turned = orientation(image)
    if image.format == "TIFF" and _ORIENTATION in exif:
        # Pillow would turn it while it loads, and mixes up the rows of an uncompressed file that lies on its side.
        tags = image.tag_v2  # type: ignore[attr-defined]
        image._size = int(tags[_WIDTH]), int(tags[_HEIGHT])
        del exif[_ORIENTATION]
        if _ORIENTATION in tags:
            del tags[_ORIENTATION]
    image.load()
    return turned


def upright(values: Values, turned: int) -> Values:
    """An array (H, W, ...) turned as the EXIF orientation ``turned`` says."""
    ways: dict[int, Callable[[], Values]] = {
        1: lambda: values,
        2: lambda: values[:, ::-1],
        3: lambda: values[::-1, ::-1],
        4: lambda: values[::-1],
        5: lambda: values.swapaxes(0, 1),
        6: lambda: np.rot90(values, -1),
        7: lambda: values[::-1, ::-1].swapaxes(0, 1),
        8: lambda: np.rot90(values, 1),
    }
    return np.ascontiguousarray(ways[turned]())
