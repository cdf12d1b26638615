"""Image codecs by name: what stands in front of a model in the clinic, coded and decoded by imagecodecs.

A **codec** is a family and, where something is lost, how much: ``jpeg-q75``, ``jpegls``, ``jpegls-near2``, ``j2k``,
``j2k-psnr45``, ``htj2k``, ``htj2k-step0.02``, ``jxl``, ``jxl-d1``. An **image** is (H, W), or (H, W, 3) of 8 bits:
``uint8``, or ``uint16`` with 9 to 16 bits. imagecodecs is imported when it is used.

The size that bytes say of themselves has to be the one that is expected, before a decoder sees them, and what the decoder
gives has to be it too. Strangers' bytes belong into :mod:`edgedeploy.runtime.pipeline.coded_apart`: decoders hang on some.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Mapping

from edgedeploy.runtime.pipeline.coded_header import frame_size
from edgedeploy.runtime.pipeline.numpy_later import np

MOST_PIXELS = 64_000_000
MOST_BYTES = 1 << 28
"""Of one coded image."""

_LEVELS: Mapping[str, tuple[str, float, float, bool, str]] = {
    "jpeg": ("q", 1, 100, True, "quality of libjpeg"),
    "jpegls": ("near", 1, 255, True, "largest error of a pixel"),
    "j2k": ("psnr", 20, 100, False, "PSNR in dB"),
    "htj2k": ("step", 1e-5, 0.5, False, "quantization step, as a share of the range"),
    "jxl": ("d", 0.01, 15, False, "distance in just noticeable differences"),
}
"""Family -> the word of its level, from, to, whether it is a whole number, and what it is."""

FAMILIES = tuple(_LEVELS)
_FORM = re.compile(r"([a-z0-9]+?)(?:-(q|near|psnr|step|d)([0-9]{1,5}(?:\.[0-9]{1,6})?))?")

_SYNTAXES = {
    "jpeg": ("", "1.2.840.10008.1.2.4.50"),
    "jpegls": ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"),
    "j2k": ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"),
    "htj2k": ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.203"),
    "jxl": ("1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.112"),
}
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
"""Of 12 bits, where the baseline has 8."""


class CodecError(ValueError):
    """An image that a codec does not take, or bytes that are not what they should be."""


class CodecMissing(CodecError):
    """This machine has no imagecodecs, or one without the codec."""


@dataclass(frozen=True)
class Codec:
    """``level`` is None where nothing is lost."""

    family: str
    level: float | None = None

    @property
    def name(self) -> str:
        if self.level is None:
            return self.family
        number = f"{self.level:.6f}".rstrip("0").rstrip(".")  # never with an exponent, which no name may have
        return f"{self.family}-{_LEVELS[self.family][0]}{number}"

    @property
    def lossless(self) -> bool:
        return self.level is None

    @property
    def near(self) -> int | None:
        """The largest error of a pixel that the codec promises; None where it promises none."""
        if self.level is None:
            return 0
        return int(self.level) if self.family == "jpegls" else None

    def syntax(self, bits: int) -> str:
        """UID of the DICOM transfer syntax (PS3.5 A.4) for an image of so many bits."""
        if self.family == "jpeg" and bits > 8:
            return JPEG_EXTENDED
        return _SYNTAXES[self.family][0 if self.lossless else 1]


def codec_of(text: object) -> Codec:
    """Raises ``ValueError`` for a text that names no codec."""
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    if found is None or found[1] not in _LEVELS:
        raise ValueError(f"expected a codec such as {', '.join(map(_example, FAMILIES))}, but got {text!r}")
    family = found[1]
    word, low, high, whole, what = _LEVELS[family]
    if found[2] is None:
        if family == "jpeg":
            raise ValueError("jpeg loses something at any quality: name it, such as 'jpeg-q90'")
        return Codec(family)
    level = float(found[3])
    if found[2] != word or not low <= level <= high or (whole and level != int(level)):
        raise ValueError(f"expected {family}-{word}{low:g} to {word}{high:g} ({what}), but got {text!r}")
    return Codec(family, level)


def _example(family: str) -> str:
    return {
        "jpeg": "jpeg-q90",
        "jpegls": "jpegls-near2",
        "j2k": "j2k-psnr45",
        "htj2k": "htj2k-step0.02",
        "jxl": "jxl-d1",
    }[family]


def check_image(codec: Codec, image: Any, bits: int) -> None:
    """Raises :class:`CodecError` for an image that the codec cannot hold."""
    if not isinstance(image, np.ndarray) or image.dtype not in (np.uint8, np.uint16):
        found = f"an array of {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise CodecError(f"{codec.name}: expected an image of uint8 or uint16, but got {found}")
    if not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)) or 0 in image.shape:
        raise CodecError(f"{codec.name}: expected (height, width) or (height, width, 3), but got {image.shape}")
    if image.shape[0] * image.shape[1] > MOST_PIXELS:
        raise CodecError(f"{codec.name}: {image.shape[0]} x {image.shape[1]} pixels are more than {MOST_PIXELS}")
    narrow, wide = (8, 8) if image.dtype == np.uint8 else (9, 16)
    if not narrow <= bits <= wide or int(image.max()) >= 1 << bits:
        raise CodecError(f"{codec.name}: {image.dtype} up to {int(image.max())} is no image of {bits} bits")
    if image.ndim == 3 and bits > 8:
        raise CodecError(f"{codec.name}: images in colour have 8 bits, but got {bits}")
    if codec.family == "jpeg" and bits not in (8, 12):
        raise CodecError(f"{codec.name}: JPEG has 8 or 12 bits, but got {bits}; jpegls and j2k have them")
    if codec.family == "htj2k" and not codec.lossless and bits == 16:
        raise CodecError(
            f"{codec.name}: what overflows 16 bits cannot be told in this decoder; take htj2k, or j2k-psnr"
        )


def bits_of(image: Any) -> int:
    """8 of uint8; of uint16 as many as its largest value needs, 9 at least."""
    return 8 if image.dtype == np.uint8 else max(9, int(image.max()).bit_length())


def encode(codec: Codec, image: Any, bits: int = 8, *, bare: bool = False) -> bytes:
    """The image as bytes. Raises :class:`CodecError`, and :class:`CodecMissing`.

    Lossy HTJ2K of 8 bits is coded with 16, of which 8 are empty: OpenJPH's decoder in imagecodecs does not cut what passes
    white or black by a rounding, so that 254 may come back as 0. ``bare`` codes it with 8, for decoders that cut:
    OpenJPEG's, which :func:`decode` then takes, does, and is slower. ``bare`` is what a DICOM file gets.
    """
    check_image(codec, image, bits)
    coders = _imagecodecs(codec)
    try:
        return bytes(_ENCODERS[codec.family](coders, codec, np.ascontiguousarray(image), bits, bare))
    except (ImportError, AttributeError) as exc:
        raise CodecMissing(f"{codec.name}: this imagecodecs has no {codec.family} ({exc})") from None
    except (RuntimeError, ValueError) as exc:
        raise CodecError(f"{codec.name} does not take the image: {type(exc).__name__}: {str(exc)[:200]}") from None


def decode(codec: Codec, data: bytes, shape: tuple[int, ...], bits: int = 8, *, bare: bool = False) -> Any:
    """The image of this shape: uint8, or uint16 of more than 8 bits. Raises :class:`CodecError` for bytes that are no such
    image, without decoding those that say so, and :class:`CodecMissing`."""
    if len(data) > MOST_BYTES:
        raise CodecError(f"{codec.name}: {len(data)} bytes, at most {MOST_BYTES} are decoded")
    if shape[0] * shape[1] > MOST_PIXELS:
        raise CodecError(f"{codec.name}: {shape[0]} x {shape[1]} pixels are more than {MOST_PIXELS}")
    said = frame_size(data)
    if said != tuple(shape[:2]):
        text = "no size that is read" if said is None else f"{said[0]} x {said[1]} pixels"
        raise CodecError(f"{codec.name}: the bytes say {text}, and {shape[0]} x {shape[1]} are expected")
    coders = _imagecodecs(codec)
    try:
        found = np.asarray(_decoder(coders, "j2k" if bare and codec.family == "htj2k" else codec.family)(data))
    except (ImportError, AttributeError) as exc:
        raise CodecMissing(f"{codec.name}: this imagecodecs has no {codec.family} ({exc})") from None
    except (RuntimeError, ValueError, MemoryError) as exc:
        raise CodecError(f"{codec.name} does not decode the bytes: {type(exc).__name__}: {str(exc)[:200]}") from None
    if _is_wide(codec, bits) and found.dtype == np.uint16:
        found = np.clip(found.view(np.int16), 0, (1 << bits) - 1).astype(np.uint8 if bits == 8 else np.uint16)
    elif found.dtype == np.uint16 and bits < 16:
        found = np.minimum(found, (1 << bits) - 1).astype(np.uint16)  # JPEG-LS has 16 bits of 12, and may pass white
    wanted = np.uint8 if bits == 8 else np.uint16
    if found.shape != tuple(shape) or found.dtype != wanted:
        raise CodecError(f"{codec.name}: decoded {found.dtype} {found.shape}, expected {np.dtype(wanted)} {shape}")
    return found


def _is_wide(codec: Codec, bits: int) -> bool:
    """Whether the image lies in more bits than it has, so that what passes its range can be cut."""
    return codec.family == "htj2k" and not codec.lossless and bits < 16


def _imagecodecs(codec: Codec) -> Any:
    try:
        import imagecodecs
    except ImportError as exc:
        raise CodecMissing(f"{codec.name}: imagecodecs is not installed here ({exc})") from None
    return imagecodecs


def _jpeg(coders: Any, codec: Codec, image: Any, bits: int, bare: bool) -> Any:
    """Chroma at full size, or halved as DICOM's YBR_FULL_422 has it. Huffman tables of the image's own cost the encoder
    alone."""
    colour = {"subsampling": "422" if bare else "444"} if image.ndim == 3 else {}
    return coders.jpeg8_encode(image, level=int(codec.level or 0), optimize=True, bitspersample=bits, **colour)


def _jpegls(coders: Any, codec: Codec, image: Any, bits: int, bare: bool) -> Any:
    return coders.jpegls_encode(image, level=codec.near)


def _j2k(coders: Any, codec: Codec, image: Any, bits: int, bare: bool) -> Any:
    settings: dict[str, Any] = {"reversible": codec.lossless}
    if not codec.lossless:
        settings["level"] = codec.level
    return coders.jpeg2k_encode(image, codecformat="j2k", bitspersample=bits, **settings)


def _htj2k(coders: Any, codec: Codec, image: Any, bits: int, bare: bool) -> Any:
    """OpenJPH's step is a share of the range of the type."""
    if codec.lossless:
        return coders.htj2k_encode(image, reversible=True)
    if bare and bits == 8:
        return coders.htj2k_encode(image, reversible=False, level=codec.level)
    step = (codec.level or 0) * 2.0 ** (bits - 16)
    return coders.htj2k_encode(image.astype(np.uint16), reversible=False, level=step)


def _jxl(coders: Any, codec: Codec, image: Any, bits: int, bare: bool) -> Any:
    settings: dict[str, Any] = {"effort": 3, "lossless": True} if codec.lossless else {"effort": 4}
    if not codec.lossless:
        settings["distance"] = codec.level
    return coders.jpegxl_encode(image, usecontainer=False, bitspersample=bits, numthreads=1, **settings)


_ENCODERS = {"jpeg": _jpeg, "jpegls": _jpegls, "j2k": _j2k, "htj2k": _htj2k, "jxl": _jxl}


def _decoder(coders: Any, family: str) -> Any:
    names = {"jpeg": "jpeg8", "jpegls": "jpegls", "j2k": "jpeg2k", "htj2k": "htj2k", "jxl": "jpegxl"}
    return getattr(coders, f"{names[family]}_decode")
