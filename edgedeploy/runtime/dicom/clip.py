"""A clip in a DICOM file, frame by frame. pydicom is imported when it is used.

Sizes are held against limits, and against what a compressed frame says of itself, before anything is decoded. Decoders
answer differently to the same JPEG, so the one that is used is named. No message says what a file says of a patient, and
pydicom's own messages, which may, are kept to themselves.
"""

from __future__ import annotations

import logging
import os
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, NamedTuple

from edgedeploy.runtime.dicom.tried import SYNTAXES, Damaged, try_frame
from edgedeploy.runtime.pipeline.coded_header import frame_size
from edgedeploy.runtime.pipeline.numpy_later import np

MAX_FILE_BYTES = 1 << 30
MAX_PIXELS = 64000000
"""Of one frame."""

MAX_CLIP_BYTES = 16 << 30
"""Of all frames together, decoded: more is no clip but a file that lies."""

PREFERRED = ("pylibjpeg", "pillow", "pyjpegls", "gdcm", "pydicom")
"""Plugins that decode, the first that is installed for a transfer syntax counts."""

PREFERRED_OF_JPEG_LS = ("pyjpegls", *PREFERRED)
"""pylibjpeg answers to most damaged JPEG-LS with an image, and no error."""

_PACKAGES = {
    "pylibjpeg": ("pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle"),
    "pillow": ("pillow",),
    "pyjpegls": ("pyjpegls",),
    "gdcm": ("python-gdcm",),
    "pydicom": ("pydicom",),
}
_RLE = "1.2.840.10008.1.2.5"
"""Its frames state no size, and decode to that of the file's header alone."""
_DEFLATED = "1.2.840.10008.1.2.1.99"
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT")


class DicomError(Exception):
    """A file or masks that cannot be used; the message says nothing of a patient."""


class NoDecoder(DicomError):
    """Nothing that is installed decodes the file."""


class Decoder(NamedTuple):
    """What decodes a file's frames: the ``plugin`` of pydicom with the versions of its packages, and the transfer
    ``syntax`` by its name; an uncompressed file has pydicom itself."""

    plugin: str
    versions: tuple[str, ...]
    syntax: str

    @property
    def text(self) -> str:
        return "{} ({}) for {}".format(self.plugin, ", ".join(self.versions) or "version not known", self.syntax)


class Clip:
    """The frames of a DICOM file. Of one thread at a time.

    - ``decoder``: what decodes it. - ``interval_ms``: between two frames, as the file says, or None.
    - ``rows``, ``columns``, ``colour``: the shape of a frame, (rows, columns) or (rows, columns, 3).
    - ``source``: pydicom's data set, with its pixels.
    """

    def __init__(self, source: Any, decoder: Decoder) -> None:
        self.source = source
        self.decoder = decoder
        self.rows, self.columns = int(source.Rows), int(source.Columns)
        self.colour = _interpretation(source) not in _GREY
        self.interval_ms = _interval_ms(source)
        self._count = int(source.get("NumberOfFrames") or 1)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        """The frame at ``index``: uint8 of 8 bits and of colours, else the type of the file. Raises ``IndexError``,
        ``DicomError``."""
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        with unquoted():
            return _shown(self.source, decoded(self.source, place, self.decoder.plugin))

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))


def open_clip(path: str | os.PathLike[str]) -> Clip:
    """The clip in a file, of one frame or more. Raises ``DicomError`` for what is no image of a size that is read, or
    what nothing that is installed decodes."""
    where = Path(path)
    with unquoted():
        data = _parsed(where)
        try:
            check_size(data)
            return Clip(data, decoder_of(data))
        except DicomError:
            raise
        except Exception as exc:  # pydicom reads a value when it is asked for, and a damaged one fails in many ways
            raise DicomError(f"its header is damaged ({type(exc).__name__})") from None


def _parsed(path: Path) -> Any:
    try:
        import pydicom
    except ImportError:
        raise DicomError("pydicom is not installed: pip install edgedeploy[dicom]") from None
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise DicomError(f"the file has {size} bytes; at most {MAX_FILE_BYTES} are read")
        meta = pydicom.filereader.read_file_meta_info(path)
        if str(meta.get("TransferSyntaxUID", "")) == _DEFLATED:
            raise DicomError("the file is deflated as a whole: store it in another transfer syntax")
        return pydicom.dcmread(path)
    except DicomError:
        raise
    except OSError as exc:
        raise DicomError(f"{path}: {exc.strerror or exc}") from None
    except Exception as exc:  # a damaged file fails in many ways inside pydicom
        raise DicomError(f"pydicom cannot read it ({type(exc).__name__}): is it a whole DICOM file?") from None


def check_size(data: Any) -> None:
    """Raises ``DicomError`` for frames that are not of a size that is read, or more than the file can hold, or of a kind
    that is none of an image. Nothing is decoded."""
    rows, columns, samples = (_number(data, name, 0) for name in ("Rows", "Columns", "SamplesPerPixel"))
    bits, frames = _number(data, "BitsAllocated", 0), _number(data, "NumberOfFrames", 1)
    if "PixelData" not in data:
        raise DicomError("the file holds no pixels: it is a report or a plan")
    said = f"{frames} frames of {columns}x{rows} pixels with {samples} samples of {bits} bits"
    if not 1 <= rows * columns <= MAX_PIXELS or samples not in (1, 3) or bits not in (8, 16) or frames < 1:
        raise DicomError(f"{said}; 1 to {MAX_PIXELS} pixels a frame, 1 or 3 samples of 8 or 16 bits are read")
    size = rows * columns * samples * (bits // 8) * frames
    if size > MAX_CLIP_BYTES:
        raise DicomError(f"{said} are {size} bytes; at most {MAX_CLIP_BYTES} are read")
    if not data.file_meta.TransferSyntaxUID.is_compressed and _stored(data, size, frames) > len(data.PixelData):
        raise DicomError(f"{said} are {size} bytes, and the file has {len(data.PixelData)}")
    if _interpretation(data) not in (*_GREY, *_COLOURS, "PALETTE COLOR"):
        raise DicomError("its photometric interpretation is not read: store it as MONOCHROME2 or RGB")


def _stored(data: Any, size: int, frames: int) -> int:
    """Bytes of uncompressed pixels: two of three chroma samples are left out of YBR_FULL_422."""
    return size * 2 // 3 if _interpretation(data) == "YBR_FULL_422" else size


def _number(data: Any, name: str, default: int) -> int:
    try:
        return int(data.get(name) or default)
    except Exception:
        raise DicomError(f"its {name} is no whole number") from None


def _interpretation(data: Any) -> str:
    return str(data.get("PhotometricInterpretation", ""))


def decoder_of(data: Any) -> Decoder:
    """What :func:`decoded` takes for this file. Raises ``NoDecoder`` where nothing that is installed does."""
    from pydicom.pixels import get_decoder

    syntax = data.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return Decoder("pydicom", _versions("pydicom"), str(syntax.name))
    try:
        there = get_decoder(syntax).available_plugins
    except NotImplementedError:
        there = ()
    preferred = PREFERRED_OF_JPEG_LS if str(syntax) in SYNTAXES else PREFERRED
    plugin = next((name for name in (*preferred, *there) if name in there), None)
    if plugin is None:
        raise NoDecoder(f"nothing that is installed decodes {syntax.name}")
    return Decoder(plugin, _versions(plugin), str(syntax.name))


def _versions(plugin: str) -> tuple[str, ...]:
    from importlib import metadata

    found = []
    for name in _PACKAGES.get(plugin, (plugin,)):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return tuple(found)


def decoded(data: Any, index: int, plugin: str) -> Any:
    """One frame as pydicom decodes it with that plugin: stored values, or RGB. Raises ``DicomError``."""
    from pydicom.pixels import pixel_array

    syntax = data.file_meta.TransferSyntaxUID
    try:
        if not syntax.is_compressed:
            return np.asarray(pixel_array(data, index=index))
        frame = _checked_frame(data, index)
        if plugin == "pyjpegls":
            try_frame(frame, int(data.Rows) * int(data.Columns))
        return np.asarray(pixel_array(data, index=index, decoding_plugin=plugin))
    except DicomError:
        raise
    except Damaged as exc:
        raise DicomError(f"frame {index} is damaged JPEG-LS: {exc}") from None
    except Exception as exc:
        raise DicomError(f"its pixels cannot be decoded ({type(exc).__name__}, {syntax.name})") from None


def _checked_frame(data: Any, index: int) -> bytes:
    """The bytes of a compressed frame. The size that it says of itself is what its decoder will allocate."""
    from pydicom.encaps import get_frame

    count = int(data.get("NumberOfFrames") or 1)
    frame = get_frame(data.PixelData, index, number_of_frames=count)
    size = frame_size(frame)
    if size is None:
        if str(data.file_meta.TransferSyntaxUID) != _RLE:
            raise DicomError(f"frame {index} says no size that is read: it is no image of its transfer syntax")
    elif size != (int(data.Rows), int(data.Columns)):
        raise DicomError(
            f"frame {index} is {size[1]}x{size[0]} pixels by itself, and {data.Columns}x{data.Rows} by the file's header"
        )
    return bytes(frame)


def _shown(data: Any, values: Any) -> Any:
    """Grey with black at 0, or RGB."""
    interpretation = _interpretation(data)
    try:
        if interpretation == "PALETTE COLOR":
            from pydicom.pixels import apply_color_lut

            colours = np.asarray(apply_color_lut(values, data))
            if colours.dtype == np.uint8:
                return colours
            top = 2 ** int(data.RedPaletteColorLookupTableDescriptor[2]) - 1
            return np.round(colours * (255.0 / top)).astype(np.uint8)
        if interpretation == "MONOCHROME1":
            signed = bool(data.PixelRepresentation)
            stored = int(data.BitsStored)
            return (-1 if signed else 2**stored - 1) - values
        return values
    except Exception as exc:
        found = f"its description of the pixels is damaged ({type(exc).__name__})"
        raise DicomError(found) from None


def _interval_ms(data: Any) -> float | None:
    for name in ("FrameTime", "CineRate", "RecommendedDisplayFrameRate"):
        try:
            value = float(data.get(name) or 0)
        except Exception:  # it is no number
            value = 0.0
        if value > 0:
            return value if name == "FrameTime" else 1000.0 / value
    return None


@contextmanager
def unquoted() -> Iterator[None]:
    """Keeps pydicom's warnings and log, which quote values of the file, to itself."""
    log = logging.getLogger("pydicom")

    def nothing(record: logging.LogRecord) -> bool:
        return False

    log.addFilter(nothing)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.removeFilter(nothing)
