"""What a model found in a clip, as a DICOM segmentation (SEG, PS3.3 A.51)."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple, Sequence

from edgedeploy.runtime.dicom.clip import Clip, DicomError, unquoted
from edgedeploy.runtime.dicom.saving import save
from edgedeploy.runtime.pipeline.numpy_later import np

MAX_SEGMENTS = 255
_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"

_COPIED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime"),
    *("ReferringPhysicianName", "StudyID", "AccessionNumber"),
)
"""What a segmentation has of its source: it belongs to the same patient and study."""

_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


class Segment(NamedTuple):
    """A class of a label mask. ``category`` and ``type`` are codes (value, scheme, meaning), by default those of any
    anatomical structure (SNOMED CT)."""

    label: str
    category: tuple[str, str, str] = ("123037004", "SCT", "Anatomical Structure")
    type: tuple[str, str, str] = ("123037004", "SCT", "Anatomical Structure")


def write_segmentation(
    path: str | os.PathLike[str],
    clip: Clip,
    masks: Sequence[Any],
    segments: Sequence[Segment],
    model: str,
    version: str,
    manufacturer: str = "edgedeploy",
    serial: str = "0",
) -> Path:
    """Write a SEG (PS3.3 A.51) of the ``clip`` and return its path. ``masks`` has an array (rows, columns) of whole numbers
    for each frame: 0 is nothing, n is the n-th of ``segments``. ``model`` and ``version`` name what found them. The same
    arguments give the same bytes: identifiers are made of them. Raises ``DicomError`` for masks that do not fit the clip, a
    clip that does not say whose it is, and a place that cannot be written."""
    stack = _checked(clip, masks, segments)
    with unquoted():
        try:
            data = _segmentation(clip, stack, segments, model, version, manufacturer, serial)
            save(data, Path(path))
        except OSError as exc:
            raise DicomError(f"{path}: {exc.strerror or exc}") from None
        except Exception as exc:  # as in `open_clip`: what it takes over from the clip may be damaged
            raise DicomError(
                f"the clip's description of patient, study or series is damaged ({type(exc).__name__})"
            ) from None
    return Path(path)


def _checked(clip: Clip, masks: Sequence[Any], segments: Sequence[Segment]) -> Any:
    if not 1 <= len(segments) <= MAX_SEGMENTS:
        raise DicomError(f"{len(segments)} segments; 1 to {MAX_SEGMENTS} can be written")
    if len(masks) != len(clip):
        raise DicomError(f"{len(masks)} masks for {len(clip)} frames")
    stack = np.stack([np.asarray(mask) for mask in masks])
    wanted = (len(clip), clip.rows, clip.columns)
    if stack.shape != wanted or stack.dtype.kind not in "biu":
        raise DicomError(f"masks are {stack.dtype} {stack.shape}; whole numbers of {wanted} are wanted")
    if stack.min() < 0 or stack.max() > len(segments):
        raise DicomError(f"masks have values of {stack.min()} to {stack.max()}, and there are {len(segments)} segments")
    return stack.astype(np.uint8)


def _segmentation(
    clip: Clip, stack: Any, segments: Sequence[Segment], model: str, version: str, manufacturer: str, serial: str
) -> Any:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.pixels.utils import pack_bits
    from pydicom.uid import UID

    source = clip.source
    seed = [
        str(source.SOPInstanceUID),
        hashlib.sha256(stack.tobytes()).hexdigest(),
        model,
        version,
        repr(list(segments)),
    ]
    planes = np.concatenate([stack == number for number in range(1, len(segments) + 1)])
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(_SEGMENTATION)
    meta.MediaStorageSOPInstanceUID = _uid(seed, "instance")
    meta.TransferSyntaxUID = UID(_EXPLICIT_LITTLE_ENDIAN)
    data = Dataset()
    data.file_meta = meta
    for name in _COPIED:
        setattr(data, name, source.get(name, ""))
    values = {
        "SOPClassUID": _SEGMENTATION,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "Modality": "SEG",
        "SeriesInstanceUID": _uid(seed, "series"),
        "SeriesNumber": int(source.get("SeriesNumber") or 0) + 1000,
        "InstanceNumber": 1,
        "ContentDate": source.get("ContentDate") or source.get("StudyDate") or "19000101",
        "ContentTime": source.get("ContentTime") or source.get("StudyTime") or "000000",
        "Manufacturer": manufacturer,
        "ManufacturerModelName": model,
        "DeviceSerialNumber": serial,
        "SoftwareVersions": version,
        "ImageType": ["DERIVED", "PRIMARY"],
        "ContentLabel": "SEGMENTATION",
        "ContentDescription": None,
        "ContentCreatorName": None,
        "PatientOrientation": None,
        "SegmentationType": "BINARY",
        "SegmentsOverlap": "NO",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "NumberOfFrames": len(planes),
        "Rows": clip.rows,
        "Columns": clip.columns,
        "BitsAllocated": 1,
        "BitsStored": 1,
        "HighBit": 0,
        "PixelRepresentation": 0,
        "LossyImageCompression": "00",
    }
    values.update({name: source.get(name) for name in _LOSSY if source.get(name)})
    values.update(_dimensions(seed))
    values.update(_sequences(source, segments, model, version, clip))
    for name, value in values.items():
        setattr(data, name, value)
    data.PixelData = pack_bits(planes.astype(np.uint8), pad=True)
    data["PixelData"].VR = "OB"
    return data


def _uid(seed: Sequence[str], what: str) -> Any:
    from pydicom.uid import generate_uid

    return generate_uid(entropy_srcs=[*seed, what])


def _dimensions(seed: Sequence[str]) -> dict[str, Any]:
    """A frame is one segment at one time of the clip."""
    organization = _uid(seed, "dimensions")
    pointers = ((0x0062000B, 0x0062000A), (0x00209128, 0x00209111))  # segment number; temporal position
    return {
        "DimensionOrganizationSequence": [_item(DimensionOrganizationUID=organization)],
        "DimensionIndexSequence": [
            _item(
                DimensionOrganizationUID=organization,
                DimensionIndexPointer=pointer,
                FunctionalGroupPointer=group,
            )
            for pointer, group in pointers
        ],
    }


def _sequences(source: Any, segments: Sequence[Segment], model: str, version: str, clip: Clip) -> dict[str, Any]:
    frames: list[Any] = []
    for number in range(1, len(segments) + 1):
        for place in range(1, len(clip) + 1):
            frames.append(
                _item(
                    FrameContentSequence=[_item(DimensionIndexValues=[number, place], TemporalPositionIndex=place)],
                    SegmentIdentificationSequence=[_item(ReferencedSegmentNumber=number)],
                    DerivationImageSequence=[_derivation(source, place, len(clip))],
                )
            )
    reference = _item(ReferencedSOPClassUID=source.SOPClassUID, ReferencedSOPInstanceUID=source.SOPInstanceUID)
    series = _item(SeriesInstanceUID=source.SeriesInstanceUID, ReferencedInstanceSequence=[reference])
    return {
        "SegmentSequence": [
            _item(
                SegmentNumber=number,
                SegmentLabel=segment.label,
                SegmentedPropertyCategoryCodeSequence=[_code(segment.category)],
                SegmentedPropertyTypeCodeSequence=[_code(segment.type)],
                SegmentAlgorithmType="AUTOMATIC",
                SegmentAlgorithmName=f"{model} {version}"[:64],
            )
            for number, segment in enumerate(segments, 1)
        ],
        "ReferencedSeriesSequence": [series],
        "SharedFunctionalGroupsSequence": [_item()],
        "PerFrameFunctionalGroupsSequence": frames,
    }


def _derivation(source: Any, place: int, count: int) -> Any:
    image = _item(
        ReferencedSOPClassUID=source.SOPClassUID,
        ReferencedSOPInstanceUID=source.SOPInstanceUID,
        SpatialLocationsPreserved="YES",
        PurposeOfReferenceCodeSequence=[_code(("121322", "DCM", "Source image for image processing operation"))],
    )
    if count > 1:
        image.ReferencedFrameNumber = place
    return _item(SourceImageSequence=[image], DerivationCodeSequence=[_code(("113076", "DCM", "Segmentation"))])


def _code(code: tuple[str, str, str]) -> Any:
    value, scheme, meaning = code
    return _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _item(**values: Any) -> Any:
    from pydicom.dataset import Dataset

    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item
