"""Encoder and decoder held against each other, image by image, and against a second decoder where one is installed.

A codec that is wrong once in a hundred images looks right on the average: a wrapper that turned white into black did so in
15 of 120 ultrasound images at a mean PSNR that nobody would question.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any, Callable

from edgedeploy.runtime.pipeline.codecs import Codec, CodecError, decode, encode
from edgedeploy.runtime.pipeline.numpy_later import np

LEAST_PSNR_DB = 20.0
"""Below it a decoded image is a failure, not a quality: JPEG at quality 10 has 33 dB on ultrasound."""

DECODERS_DIFFER = 4 / 255
"""Share of the range by which sound decoders of one lossy image may differ: inverse transforms are rounded differently (T.83
allows it), and Pillow's and libjpeg's differ by up to 3 of 255."""

DECODERS_DIFFER_IN_COLOUR = 16 / 255
"""As much in colour: chroma is weighed by up to 1.77 on its way back to RGB, and smoothed by some."""


@dataclass(frozen=True)
class Coded:
    """A coded image that was found sound. ``largest_error`` is that of a pixel, in its own units; ``psnr_db`` is infinite
    where nothing is lost; ``second`` names the second decoder that agreed, empty where none is installed."""

    data: bytes
    image: Any
    largest_error: int
    psnr_db: float
    second: str = ""


Decoder = Callable[..., Any]
"""Takes what :func:`~edgedeploy.runtime.pipeline.codecs.decode` takes."""


def checked(codec: Codec, image: Any, bits: int = 8, *, bare: bool = False, decoder: Decoder = decode) -> Coded:
    """Code and decode an image. Raises :class:`~edgedeploy.runtime.pipeline.codecs.CodecError`, which names the pixel, where

    - a lossless codec changes one, or a near-lossless one changes it by more than it promises;
    - a lossy one changes a pixel by more than half of the range, which is white for black, or has less than
      :data:`LEAST_PSNR_DB`;
    - a second decoder gives another image of the same bytes.
    """
    data = encode(codec, image, bits, bare=bare)
    found = decoder(codec, data, image.shape, bits, bare=bare)
    error = np.abs(found.astype(np.int32) - image.astype(np.int32))
    largest = int(error.max())
    allowed = codec.near if codec.near is not None else 1 << (bits - 1)
    if largest > allowed:
        what = "changes a pixel by" if codec.near is not None else "turns white into black: it changes a pixel by"
        raise CodecError(_told(codec, image, found, error, f"{what} {largest}, at most {allowed} is sound"))
    psnr_db = psnr(image, found, bits)
    if psnr_db < LEAST_PSNR_DB:
        text = f"has a PSNR of {psnr_db:.1f} dB, less than {LEAST_PSNR_DB:g} dB is no quality"
        raise CodecError(_told(codec, image, found, error, text))
    return Coded(data, found, largest, psnr_db, _seconded(codec, data, found, bits))


def may_differ(image: Any) -> float:
    """The share of the range by which sound decoders of a lossy image may differ."""
    return DECODERS_DIFFER if image.ndim == 2 else DECODERS_DIFFER_IN_COLOUR


def psnr(image: Any, other: Any, bits: int) -> float:
    """Peak signal-to-noise ratio in dB, of a peak of 2**bits - 1; infinite for equal images."""
    power = float(np.mean((image.astype(np.float64) - other.astype(np.float64)) ** 2))
    return math.inf if power == 0 else 20 * math.log10((1 << bits) - 1) - 10 * math.log10(power)


def _told(codec: Codec, image: Any, found: Any, error: Any, text: str) -> str:
    place = np.unravel_index(int(error.argmax()), error.shape)
    where = f"row {place[0]}, column {place[1]}"
    return f"{codec.name} {text} ({where}: {int(image[place])} became {int(found[place])})"


def _seconded(codec: Codec, data: bytes, found: Any, bits: int) -> str:
    """The second decoder that agrees. Raises ``CodecError`` where it does not."""
    name, second = _second(codec)
    if second is None:
        return ""
    try:
        other = np.asarray(second(data))
    except ImportError:
        return ""
    except Exception as exc:  # decoders of others fail in many ways
        raise CodecError(f"{codec.name}: {name} does not decode what was coded: {str(exc)[:200]}") from None
    if other.shape != found.shape:
        raise CodecError(f"{codec.name}: {name} decodes an image of {other.shape}, not {found.shape}")
    error = np.abs(np.clip(other.astype(np.int32), 0, (1 << bits) - 1) - found.astype(np.int32))
    allowed = 0 if codec.near is not None else math.ceil(may_differ(found) * ((1 << bits) - 1))
    if int(error.max()) > allowed:
        text = f"is decoded otherwise by {name}: a pixel differs by {int(error.max())}, {allowed} is sound"
        raise CodecError(_told(codec, other, found, error, text))
    return name


def _second(codec: Codec) -> tuple[str, Callable[[bytes], Any] | None]:
    """A decoder of another library, or of another wrapper where there is but one library."""
    if codec.family == "jpegls":
        return "pyjpegls", _pyjpegls
    if codec.family == "jpeg":
        return "pylibjpeg-libjpeg", _libjpeg
    if codec.family == "j2k":
        return "pylibjpeg-openjpeg", _openjpeg
    if codec.family == "htj2k":
        return "OpenJPEG", _openjpeg_of_imagecodecs
    return "", None


def _pyjpegls(data: bytes) -> Any:
    import jpeg_ls

    return jpeg_ls.decode(np.frombuffer(data, np.uint8))


def _libjpeg(data: bytes) -> Any:
    import libjpeg

    samples = data[data.index(b"\xff\xda") + 4]  # of the scan: 1, or 3 of YCbCr
    return libjpeg.decode(io.BytesIO(data), colour_transform=int(samples == 3))


def _openjpeg(data: bytes) -> Any:
    import openjpeg

    return openjpeg.decode(io.BytesIO(data))


def _openjpeg_of_imagecodecs(data: bytes) -> Any:
    import imagecodecs

    return imagecodecs.jpeg2k_decode(data)
