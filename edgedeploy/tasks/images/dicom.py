"""DICOM files as images: rescaled values, the photometric interpretation, the file's own window.

pydicom's messages may quote what a file says of a patient, so none of them gets into an error of ours.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.errors import Advice, DataError
from edgedeploy.runtime.dicom.clip import DicomError, NoDecoder, decoded, decoder_of, unquoted
from edgedeploy.tasks.images.rules import ImageRules, Pixels, ValueRange, Values, page_of

SUFFIXES: Final = (".dcm", ".dicom")
MAX_FILE_BYTES: Final = 1 << 30
_STATE_THEM: Final = Advice("State", {"value_range": "[black, white]"})
_DEFLATED: Final = "1.2.840.10008.1.2.1.99"
_GREY: Final = ("MONOCHROME1", "MONOCHROME2")
_DECODERS: Final = {
    "JPEG-LS": 'pip install "pyjpegls"',
    "JPEG 2000": 'pip install "pylibjpeg[openjpeg]"',
    "JPEG": 'pip install "pylibjpeg[libjpeg]"',
}
"""What decodes a transfer syntax, by a part of its name; the first that fits counts."""


def is_dicom(path: Path) -> bool:
    """Whether the file has DICOM's preamble."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_dicom(path: Path, rules: ImageRules, max_pixels: int) -> Pixels:
    """One frame of a DICOM file. Raises ``DataError``, which says nothing of what the file says of a patient."""
    with unquoted():
        data = _parsed(path)
        rows, columns = _number(path, data, "Rows"), _number(path, data, "Columns")
        frames = _number(path, data, "NumberOfFrames", 1)
        if not 1 <= rows * columns <= max_pixels or frames < 1:
            found = f"{columns}x{rows} pixels in {frames} frames"
            raise DataError(f"image {path}", found, f"1 to {max_pixels} pixels a frame are read")
        values, decoder = _decoded(path, data, page_of(path, rules, frames, "frame"))
        return replace(_interpreted(path, data, values, rules), decoder=decoder)


def _parsed(path: Path) -> Any:
    asked = f"image {path}"
    try:
        import pydicom
    except ImportError:
        raise DataError(asked, "pydicom is not installed", "pip install edgedeploy[dicom]") from None
    try:
        size_bytes = path.stat().st_size
        if size_bytes > MAX_FILE_BYTES:
            raise DataError(asked, f"{size_bytes} bytes", f"At most {MAX_FILE_BYTES} are read")
        if str(pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID", "")) == _DEFLATED:
            raise DataError(asked, "it is deflated as a whole", "Store it in another transfer syntax")
        return pydicom.dcmread(path)
    except DataError:
        raise
    except Exception as exc:  # a damaged file fails in many ways inside pydicom
        found = f"pydicom cannot read it ({type(exc).__name__})"
        raise DataError(asked, found, "Is it a whole DICOM file?") from None


def _number(path: Path, data: Any, name: str, default: int = 0) -> int:
    try:
        return int(data.get(name) or default)
    except Exception:
        raise DataError(f"image {path}", f"its {name} is no whole number", "Replace or remove the file") from None


def _decoded(path: Path, data: Any, frame: int) -> tuple[Values, str]:
    """The frame, and what decoded it."""
    asked = f"image {path}"
    if "PixelData" not in data:
        raise DataError(asked, "it holds no pixels", "Remove the file: it is a report or a plan")
    syntax = str(data.file_meta.TransferSyntaxUID.name)
    try:
        decoder = decoder_of(data)
        return decoded(data, frame, decoder.plugin), decoder.text
    except NoDecoder as exc:
        known = (remedy for part, remedy in _DECODERS.items() if part in syntax)
        remedy = next(known, 'pip install "pylibjpeg[all]"')
        raise DataError(asked, str(exc), f"{remedy}, or store it uncompressed") from None
    except DicomError as exc:
        raise DataError(asked, str(exc), "Replace or remove the file") from None


def _interpreted(path: Path, data: Any, values: Values, rules: ImageRules) -> Pixels:
    """Values after modality rescale and palette, with the range that the file states for them."""
    asked = f"image {path}"
    interpretation = str(data.get("PhotometricInterpretation", ""))
    try:
        if interpretation == "PALETTE COLOR":
            from pydicom.pixels import apply_color_lut

            colours = np.asarray(apply_color_lut(values, data))
            bits = int(data.RedPaletteColorLookupTableDescriptor[2])
            return Pixels(colours, (0.0, float(2**bits - 1)))
        if values.ndim == 3 and values.shape[2] == 3 and interpretation not in _GREY:
            return Pixels(values, (0.0, float(2 ** int(data.BitsStored) - 1)))
        if interpretation not in _GREY or values.ndim != 2:
            found = f"its photometric interpretation is not read, with values of shape {values.shape}"
            raise DataError(asked, found, "Store it as MONOCHROME2 or RGB")
        return _grey(asked, data, values, rules, interpretation == "MONOCHROME1")
    except DataError:
        raise
    except Exception as exc:
        found = f"its description of the pixels is damaged ({type(exc).__name__})"
        raise DataError(asked, found, "Replace or remove the file") from None


def _grey(asked: str, data: Any, values: Values, rules: ImageRules, inverted: bool) -> Pixels:
    from pydicom.pixels import apply_modality_lut

    stored, allocated = int(data.BitsStored), int(data.BitsAllocated)
    signed = bool(data.PixelRepresentation)
    stated: ValueRange | None = None
    rescaled = "ModalityLUTSequence" in data or float(data.get("RescaleSlope", 1)) != 1
    rescaled = rescaled or float(data.get("RescaleIntercept", 0)) != 0
    if stored < allocated or (allocated == 8 and not rescaled):
        low = -(2 ** (stored - 1)) if signed else 0
        ends = np.asarray(apply_modality_lut(np.array([low, low + 2**stored - 1], values.dtype), data), float)
        stated = float(ends.min()), float(ends.max())
        if not stated[0] < stated[1]:
            found = "its rescale slope makes one value of all its pixels"
            raise DataError(asked, found, "Replace or remove the file")
    if rescaled:
        values = np.asarray(apply_modality_lut(values, data)).astype(np.float32)
        if not np.isfinite(values).all():
            raise DataError(asked, "its rescale gives NaN or Inf", "Replace or remove the file")
    elif values.dtype.kind not in "f" and values.dtype not in (np.uint8, np.uint16):
        values = values.astype(np.int32 if values.dtype.kind == "i" else np.uint32)
    if rules.value_range == "window":
        stated = _window(asked, data)
    return Pixels(values, stated, inverted)


def _window(asked: str, data: Any) -> ValueRange:
    """Black and white of the file's first window (PS3.3 C.11.2.1.2)."""
    center, width = data.get("WindowCenter"), data.get("WindowWidth")
    function = str(data.get("VOILUTFunction") or "LINEAR")
    if center is None or width is None or function not in ("LINEAR", "LINEAR_EXACT"):
        found = "it states no window" if center is None or width is None else "its window is no straight line"
        raise DataError(f"{asked} by value_range = 'window'", found, _STATE_THEM)
    first_center, first_width = (float(v[0] if hasattr(v, "__getitem__") else v) for v in (center, width))
    if function == "LINEAR":
        first_center, first_width = first_center - 0.5, first_width - 1
    if not first_width > 0:
        raise DataError(f"{asked} by value_range = 'window'", "its window has no width", _STATE_THEM)
    return first_center - first_width / 2, first_center + first_width / 2
