"""Clips of DICOM files and segmentations of them, on the real files that pydicom brings."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("PIL")

from edgedeploy.runtime.dicom import Clip, DicomError, Segment, open_clip, write_segmentation  # noqa: E402
from edgedeploy.runtime.dicom.clip import MAX_CLIP_BYTES, NoDecoder  # noqa: E402
from edgedeploy.runtime.pipeline.coded_header import frame_size  # noqa: E402

ULTRASOUND = "ybr_color"
"""A clip of 30 frames: YBR_FULL_422 in JPEG baseline."""


def example(name: str) -> Path:
    return Path(pydicom.examples.get_path(name))


@pytest.fixture(scope="module")
def clip() -> Clip:
    return open_clip(example(ULTRASOUND))


def changed(tmp_path: Path, change: Callable[[Any], None], name: str = ULTRASOUND) -> Path:
    data = pydicom.dcmread(example(name))
    change(data)
    path = tmp_path / "changed.dcm"
    data.save_as(path)
    return path


def test_a_clip_is_read_frame_by_frame_as_rgb(clip: Clip) -> None:
    assert len(clip) == 30 and (clip.rows, clip.columns, clip.colour) == (240, 320, True)
    first, last = clip[0], clip[-1]
    assert first.shape == (240, 320, 3) and first.dtype == np.uint8
    assert np.abs(first.astype(int) - last).max() > 50, "they are different frames"
    grey = np.ptp(first.astype(int), axis=2)
    assert np.median(grey) <= 2, "an ultrasound image is mostly grey: YBR was converted"
    with pytest.raises(IndexError):
        clip[30]


def test_the_decoder_is_named_with_its_version(clip: Clip) -> None:
    assert clip.decoder.plugin in ("pylibjpeg", "pillow", "gdcm")
    assert clip.decoder.syntax.startswith("JPEG Baseline") and clip.decoder.versions
    assert clip.decoder.plugin in clip.decoder.text and "JPEG Baseline" in clip.decoder.text


def test_how_fast_its_frames_follow_is_known(tmp_path: Path) -> None:
    def timed(data: Any) -> None:
        data.FrameTime = "40"

    assert open_clip(changed(tmp_path, timed)).interval_ms == 40


def test_a_palette_is_applied_and_rgb_stays() -> None:
    palette = open_clip(example("palette_color"))
    frame = palette[0]
    assert frame.shape == (palette.rows, palette.columns, 3) and frame.dtype == np.uint8
    assert frame.max() >= 250 and np.ptp(frame.astype(int), axis=2).max() > 50
    rgb = open_clip(example("rgb_color"))
    assert rgb.colour and rgb[0].shape == (rgb.rows, rgb.columns, 3)
    assert rgb.decoder.plugin == "pydicom"


def test_grey_values_stay_and_black_is_zero(tmp_path: Path) -> None:
    ct = open_clip(example("ct"))
    assert ct[0].ndim == 2 and ct[0].dtype.itemsize == 2

    def inverted(data: Any) -> None:
        data.PhotometricInterpretation = "MONOCHROME1"

    other = open_clip(changed(tmp_path, inverted, "ct"))[0]
    signed = bool(ct.source.PixelRepresentation)
    assert np.array_equal(other, (-1 if signed else 2**ct.source.BitsStored - 1) - ct[0])


def _frames(data: Any) -> None:
    data.NumberOfFrames = 100_000


def _rows(data: Any) -> None:
    data.Rows = 241


def _huge(data: Any) -> None:
    data.Rows = data.Columns = 60_000


def _bits(data: Any) -> None:
    data.BitsAllocated = 64


def _words(data: Any) -> None:
    data.PhotometricInterpretation = "ARGB"


def _nothing(data: Any) -> None:
    del data.PixelData


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_frames, f"at most {MAX_CLIP_BYTES} are read"),
        (_huge, "60000x60000 pixels"),
        (_bits, "samples of 64 bits"),
        (_words, "photometric interpretation is not read"),
        (_nothing, "holds no pixels"),
    ],
)
def test_what_its_header_says_is_held_against_limits_before_anything_is_decoded(
    tmp_path: Path, change: Callable[[Any], None], told: str
) -> None:
    with pytest.raises(DicomError, match=told):
        open_clip(changed(tmp_path, change))


def test_a_frame_that_is_larger_than_the_header_says_is_not_decoded(tmp_path: Path) -> None:
    with pytest.raises(DicomError, match="320x240 pixels by itself, and 320x241 by the file's header"):
        open_clip(changed(tmp_path, _rows))[0]


def test_an_uncompressed_file_cannot_say_it_has_more_than_it_holds(tmp_path: Path) -> None:
    def more(data: Any) -> None:
        data.NumberOfFrames = 3

    with pytest.raises(DicomError, match="and the file has"):
        open_clip(changed(tmp_path, more, "ct"))


def test_sizes_are_read_from_each_kind_of_compressed_frame() -> None:
    jpeg = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xff\xc0\x00\x11\x08\x01\xe0\x02\x80\x03"
    assert frame_size(jpeg) == (480, 640)
    assert frame_size(b"\xff\xd8\xff\xf7\x00\x0b\x08\x00\x10\x00\x20\x01") == (16, 32), "JPEG-LS"
    siz = b"\xff\x4f\xff\x51\x00\x2f\x00\x00" + b"".join(n.to_bytes(4, "big") for n in (110, 60, 10, 10))
    assert frame_size(siz) == (50, 100), "JPEG 2000, without its offset"
    assert frame_size(b"RLE") is None and frame_size(b"\xff\xd8\xff\xc0") is None


def test_a_file_that_nothing_decodes_is_told(tmp_path: Path) -> None:
    def other(data: Any) -> None:
        data.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML

    with pytest.raises(NoDecoder, match="MPEG2"):
        open_clip(changed(tmp_path, other))


def test_no_message_says_what_a_file_says_of_a_patient(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = pydicom.dcmread(example("ct"))
    data.PatientName = "Doe^Jane"
    data.Rows = 60_000
    data.save_as(tmp_path / "a.dcm")
    with pytest.raises(DicomError) as caught:
        open_clip(tmp_path / "a.dcm")
    (tmp_path / "b.dcm").write_bytes((tmp_path / "a.dcm").read_bytes()[:140] + b"Doe^Jane" * 9)
    with pytest.raises(DicomError) as again:
        open_clip(tmp_path / "b.dcm")
    assert "Doe" not in f"{caught.value}{again.value}{caplog.text}"
    assert caught.value.__cause__ is None


def masks_of(clip: Clip) -> list[Any]:
    """A square that grows, and one that moves: made up, no model found them."""
    masks = []
    for index in range(len(clip)):
        mask = np.zeros((clip.rows, clip.columns), np.uint8)
        mask[50 : 70 + index, 100 : 120 + index] = 1
        mask[150:160, 10 * index : 10 * index + 10] = 2
        masks.append(mask)
    return masks


SEGMENTS = [
    Segment("nerve", type=("3057000", "SCT", "Nerve")),
    Segment("vessel", type=("59820001", "SCT", "Blood Vessel")),
]


@pytest.fixture(scope="module")
def written(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("seg") / "seg.dcm"
    return write_segmentation(path, clip, masks_of(clip), SEGMENTS, "made-up-net", "1.0")


def test_a_segmentation_of_a_clip_is_read_back(clip: Clip, written: Path) -> None:
    data = pydicom.dcmread(written)
    assert data.SOPClassUID.name == "Segmentation Storage" and data.NumberOfFrames == 60
    assert data.StudyInstanceUID == clip.source.StudyInstanceUID and data.PatientID == clip.source.PatientID
    planes = data.pixel_array.reshape(2, 30, clip.rows, clip.columns)
    wanted = np.stack(masks_of(clip))
    assert np.array_equal(planes[0], wanted == 1) and np.array_equal(planes[1], wanted == 2)
    for frame, (number, place) in zip(data.PerFrameFunctionalGroupsSequence, np.ndindex(2, 30), strict=True):
        assert frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number + 1
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        assert (source.ReferencedFrameNumber, source.ReferencedSOPInstanceUID) == (
            place + 1,
            clip.source.SOPInstanceUID,
        )


def test_the_same_masks_give_the_same_bytes_and_others_another_identity(
    clip: Clip, written: Path, tmp_path: Path
) -> None:
    again = write_segmentation(tmp_path / "a.dcm", clip, masks_of(clip), SEGMENTS, "made-up-net", "1.0")
    assert again.read_bytes() == written.read_bytes()
    masks = masks_of(clip)
    masks[3][0, 0] = 1
    other = write_segmentation(tmp_path / "b.dcm", clip, masks, SEGMENTS, "made-up-net", "1.0")
    assert pydicom.dcmread(other).SOPInstanceUID != pydicom.dcmread(written).SOPInstanceUID
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_an_outside_validator_finds_no_error(written: Path) -> None:
    validator = shutil.which("dciodvfy")
    if validator is None:
        pytest.skip("no dciodvfy on this machine: apt-get install dicom3tools")

    def errors(path: Path) -> list[str]:
        done = subprocess.run([validator, "-new", str(path)], capture_output=True, text=True, timeout=300, check=False)
        return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]

    assert errors(written) == []
    damaged = pydicom.dcmread(written)
    del damaged.SegmentSequence[0].SegmentNumber
    damaged.save_as(written.with_name("damaged.dcm"))
    assert errors(written.with_name("damaged.dcm")), "it would find one"


def test_highdicom_reads_what_stands_at_each_frame(clip: Clip, written: Path) -> None:
    highdicom = pytest.importorskip("highdicom", reason="no highdicom in this environment: pip install highdicom")
    found = highdicom.seg.segread(written)
    pixels = found.get_pixels_by_source_frame(
        clip.source.SOPInstanceUID, list(range(1, 31)), combine_segments=True, ignore_spatial_locations=True
    )
    assert np.array_equal(pixels, np.stack(masks_of(clip)))


def test_a_single_frame_has_a_segmentation_too(tmp_path: Path) -> None:
    single = open_clip(example("ct"))
    mask = np.zeros((single.rows, single.columns), bool)
    mask[10:20, 10:20] = True
    path = write_segmentation(tmp_path / "a.dcm", single, [mask], [Segment("one")], "net", "1")
    data = pydicom.dcmread(path)
    assert np.array_equal(data.pixel_array.reshape(mask.shape), mask)


@pytest.mark.parametrize(
    ("masks", "segments", "told"),
    [
        ([], SEGMENTS, "0 masks for 30 frames"),
        ([np.zeros((4, 4), int)] * 30, SEGMENTS, "whole numbers of"),
        ([np.zeros((240, 320))] * 30, SEGMENTS, "float64"),
        ([np.full((240, 320), 3, np.int8)] * 30, SEGMENTS, "3 to 3, and there are 2"),
        ([np.zeros((240, 320), int)] * 30, [], "0 segments"),
    ],
)
def test_masks_that_do_not_fit_are_told(
    clip: Clip, masks: list[Any], segments: list[Segment], told: str, tmp_path: Path
) -> None:
    with pytest.raises(DicomError, match=told):
        write_segmentation(tmp_path / "a.dcm", clip, masks, segments, "net", "1")
    assert list(tmp_path.iterdir()) == []


def test_damaged_files_are_refused_or_read(tmp_path: Path) -> None:
    """As ``scripts/bench evidence`` does some thousand times."""
    rng = np.random.default_rng(0)
    whole = np.frombuffer(example("ct").read_bytes(), np.uint8)
    outcomes = set()
    for _ in range(150):
        damaged = whole.copy()
        places = rng.integers(132, 6000, rng.choice((1, 4, 16)))
        damaged[places] = rng.integers(0, 256, places.size)
        path = tmp_path / "damaged.dcm"
        path.write_bytes(damaged.tobytes()[: rng.choice((whole.size, rng.integers(132, whole.size)))])
        try:
            open_clip(path)[0]
            outcomes.add("read")
        except DicomError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}
