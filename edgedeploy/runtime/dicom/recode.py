"""Images as DICOM in a transfer syntax of a codec's: a clip coded anew, or images of no DICOM as a secondary capture.

Every frame is coded, decoded and held against its image before a file is written. Where something is lost, the file says so
and is another instance than its source (PS3.3 C.7.6.1.1.5, PS3.4 B.4.1).
"""

from __future__ import annotations

import copy
import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple, Sequence

from edgedeploy.runtime.dicom.clip import Clip, DicomError, decoded, unquoted
from edgedeploy.runtime.dicom.saving import save
from edgedeploy.runtime.pipeline.codecs import Codec, CodecError
from edgedeploy.runtime.pipeline.coded_check import Coded, checked
from edgedeploy.runtime.pipeline.numpy_later import np

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

_METHODS = {
    "jpeg": "ISO_10918_1",
    "jpegls": "ISO_14495_1",
    "j2k": "ISO_15444_1",
    "htj2k": "ISO_15444_15",
    "jxl": "ISO_18181_1",
}
"""Defined terms of Lossy Image Compression Method (PS3.3 C.7.6.1.1.5.1)."""

_COLOUR = {
    "jpeg": ("", "YBR_FULL_422"),
    "jpegls": ("RGB", "RGB"),
    "j2k": ("YBR_RCT", "YBR_ICT"),
    "htj2k": ("YBR_RCT", "YBR_ICT"),
    "jxl": ("RGB", "XYB"),
}
"""Photometric interpretation of coded RGB, without and with loss (PS3.5 8.2)."""

_NEWER = {"1.2.840.10008.1.2.4.110": "JPEG XL Lossless", "1.2.840.10008.1.2.4.112": "JPEG XL"}
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_GREY = ("MONOCHROME1", "MONOCHROME2")


class Recoded(NamedTuple):
    """``ratio`` is that of the pixels' bytes to the coded ones', ``largest_error`` that of a pixel."""

    path: Path
    syntax: str
    frames: int
    ratio: float
    largest_error: int
    seconds: tuple[str, ...]


def recode_clip(path: str | os.PathLike[str], clip: Clip, codec: Codec) -> Recoded:
    """Write ``clip`` with all that its file says, its frames coded by ``codec``. Raises ``DicomError`` for pixels that the
    codec does not hold (palettes; signed ones but by ``jpegls``) or does not give back, and for a place that cannot be
    written."""
    source = clip.source
    interpretation = str(source.get("PhotometricInterpretation", ""))
    if interpretation == "PALETTE COLOR":
        raise DicomError("the file has a palette, which is coded by no codec here; keep its transfer syntax")
    if str(source.file_meta.TransferSyntaxUID) == _BIG_ENDIAN:
        raise DicomError("the file is big endian, which DICOM has retired: store it as little endian first")
    with unquoted():
        stored, bits = _bits(source, codec)
        images = [_stored(clip, index, bits) for index in range(len(clip))]
        coded = _coded(codec, images, bits)
        try:
            data = copy.deepcopy(source)
            _describe(data, codec, images, coded, bits, _interpretation(interpretation, codec))
            # black, white and where MONOCHROME1 turns hang on the bits that the file says
            data.BitsStored, data.HighBit = stored, stored - 1
            data.PixelRepresentation = int(source.get("PixelRepresentation") or 0)
            _derive(data, source, codec, coded)
            return _written(data, Path(path), codec, images, coded)
        except OSError as exc:
            raise DicomError(f"{path}: {exc.strerror or exc}") from None
        except DicomError:
            raise
        except Exception as exc:  # what it takes over from the file may be damaged
            raise DicomError(f"the file's description of its pixels is damaged ({type(exc).__name__})") from None


def capture(path: str | os.PathLike[str], image: Any, codec: Codec, bits: int = 8) -> Recoded:
    """Write an image of no patient, (H, W) or (H, W, 3), as a secondary capture. The same image and codec give the same
    bytes: identifiers are made of them. Raises as :func:`recode_clip`."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, generate_uid

    images = [np.asarray(image)]
    coded = _coded(codec, images, bits)
    seed = [hashlib.sha256(coded[0].data).hexdigest(), codec.name]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(SECONDARY_CAPTURE)
    data = Dataset()
    data.file_meta = meta
    told: dict[str, Any] = {
        "SOPClassUID": SECONDARY_CAPTURE,
        "SOPInstanceUID": generate_uid(entropy_srcs=[*seed, "instance"]),
        "StudyInstanceUID": generate_uid(entropy_srcs=[*seed, "study"]),
        "SeriesInstanceUID": generate_uid(entropy_srcs=[*seed, "series"]),
        "Modality": "OT",
        "ConversionType": "WSD",
        "ImageType": ["DERIVED", "SECONDARY"],
        "SeriesNumber": 1,
        "InstanceNumber": 1,
        **dict.fromkeys(("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"), ""),
        **dict.fromkeys(
            ("ReferringPhysicianName", "StudyID", "AccessionNumber", "PatientOrientation", "Laterality"), ""
        ),
    }
    for name, value in told.items():
        setattr(data, name, value)
    colour = images[0].ndim == 3
    interpretation = _interpretation("RGB" if colour else "MONOCHROME2", codec)
    with unquoted():
        try:
            _describe(data, codec, images, coded, bits, interpretation)
            if codec.lossless:
                data.LossyImageCompression = "00"
            return _written(data, Path(path), codec, images, coded)
        except OSError as exc:
            raise DicomError(f"{path}: {exc.strerror or exc}") from None


def _bits(source: Any, codec: Codec) -> tuple[int, int]:
    """What the file says are stored, and what is coded. Signed pixels are coded as the 8 or 16 bits of their two's
    complement (JPEG-LS knows no sign): a codec that changed these by little might change a sign."""
    try:
        stored, allocated = int(source.BitsStored), int(source.BitsAllocated)
        signed = bool(int(source.get("PixelRepresentation") or 0))
    except Exception as exc:
        raise DicomError(f"the file's description of its pixels is damaged ({type(exc).__name__})") from None
    if not 1 <= stored <= allocated:
        raise DicomError(f"the file says {stored} bits of {allocated}")
    if signed and (codec.name != "jpegls" or stored < 8):
        raise DicomError(
            f"the file has signed pixels of {stored} bits: from 8 on jpegls codes them, and no other codec"
        )
    return stored, 16 if signed and stored > 8 else max(8, stored)


def _stored(clip: Clip, index: int, bits: int) -> Any:
    """A frame's stored values, or RGB."""
    values = decoded(clip.source, index, clip.decoder.plugin)
    if values.dtype.kind == "i":
        values = values.astype(np.int64) & ((1 << bits) - 1)
    elif int(values.max(initial=0)) >= 1 << bits:
        raise DicomError(f"frame {index} has values of more than the {bits} bits that the file says")
    return values.astype(np.uint8) if bits == 8 else values.astype(np.uint16)


def _coded(codec: Codec, images: Sequence[Any], bits: int) -> list[Coded]:
    found = []
    for number, image in enumerate(images):
        try:
            found.append(checked(codec, image, bits, bare=True))
        except CodecError as exc:
            raise DicomError(f"frame {number}: {exc}") from None
    return found


def _interpretation(source: str, codec: Codec) -> str:
    return source if source in _GREY else _COLOUR[codec.family][0 if codec.lossless else 1]


def _describe(
    data: Any, codec: Codec, images: Sequence[Any], coded: Sequence[Coded], bits: int, interpretation: str
) -> None:
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID

    first = images[0]
    data.Rows, data.Columns = first.shape[:2]
    data.SamplesPerPixel = 3 if first.ndim == 3 else 1
    data.PhotometricInterpretation = interpretation
    if first.ndim == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated = 8 if bits == 8 else 16
    data.BitsStored, data.HighBit, data.PixelRepresentation = bits, bits - 1, 0
    for name in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):  # of the frames that were there before
        if name in data:
            delattr(data, name)
    data.PixelData = encapsulate([_even(item.data) for item in coded], has_bot=True)
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = _known(UID(codec.syntax(bits)))
    if not codec.lossless:
        ratios = [*_list(data.get("LossyImageCompressionRatio")), f"{_ratio(images, coded):.2f}"]
        methods = [*_list(data.get("LossyImageCompressionMethod")), _METHODS[codec.family]]
        data.LossyImageCompression = "01"
        data.LossyImageCompressionRatio, data.LossyImageCompressionMethod = ratios, methods


def _known(syntax: Any) -> Any:
    """pydicom 3.0 does not have JPEG XL's (Supplement 232) in its dictionary, and writes no syntax that is not there; what
    is registered with it counts where it is private alone."""
    from pydicom._uid_dict import UID_dictionary

    if not syntax.is_transfer_syntax:
        UID_dictionary.setdefault(str(syntax), (_NEWER[str(syntax)], "Transfer Syntax", "", "", ""))
    return syntax


def _derive(data: Any, source: Any, codec: Codec, coded: Sequence[Coded]) -> None:
    """With loss it is another instance, which names its source."""
    if codec.lossless:
        return
    from pydicom.dataset import Dataset
    from pydicom.uid import generate_uid

    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    seed = [str(source.SOPInstanceUID), codec.name, *(hashlib.sha256(item.data).hexdigest() for item in coded)]
    data.SOPInstanceUID = generate_uid(entropy_srcs=seed)
    data.ImageType = ["DERIVED", *list(data.get("ImageType") or ["DERIVED", "PRIMARY"])[1:]]
    data.SourceImageSequence = [reference]
    data.DerivationDescription = f"Lossy compression: {codec.name}"


def _written(data: Any, where: Path, codec: Codec, images: Sequence[Any], coded: Sequence[Coded]) -> Recoded:
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    save(data, where)
    seconds = tuple(sorted({item.second for item in coded if item.second}))
    largest = max(item.largest_error for item in coded)
    return Recoded(where, str(data.file_meta.TransferSyntaxUID), len(coded), _ratio(images, coded), largest, seconds)


def _ratio(images: Sequence[Any], coded: Sequence[Coded]) -> float:
    return float(sum(image.nbytes for image in images) / sum(len(item.data) for item in coded))


def _list(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return [value] if isinstance(value, (str, float, int)) else list(value)


def _even(data: bytes) -> bytes:
    return data + b"\0" * (len(data) % 2)
