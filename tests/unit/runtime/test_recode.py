"""DICOM in the transfer syntax of a codec: what is written is read back by other decoders, and an outside validator."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("imagecodecs")
pydicom = pytest.importorskip("pydicom")
for needed in ("pylibjpeg", "libjpeg", "openjpeg", "jpeg_ls"):
    pytest.importorskip(needed)

from pydicom import examples  # noqa: E402

from edgedeploy.runtime.dicom import DicomError, open_clip, recode  # noqa: E402
from edgedeploy.runtime.dicom.recode import capture, recode_clip  # noqa: E402
from edgedeploy.runtime.pipeline.codecs import codec_of, decode  # noqa: E402

READ_BY_PYDICOM = ("jpeg-q90", "jpegls", "jpegls-near2", "j2k", "j2k-psnr45", "htj2k", "htj2k-step0.02")
KNOWN_TO_DCIODVFY = READ_BY_PYDICOM[:5]
"""dicom3tools of 2024 takes transfer syntaxes of HTJ2K and JPEG XL for uncompressed ones."""


def image(bits: int = 8) -> np.ndarray:
    rows, columns = np.mgrid[0:48, 0:64]
    levels = 0.5 + 0.5 * np.sin(rows / 7) * np.cos(columns / 11)
    levels[4:12, 4:30] = 1.0
    return np.round(levels * ((1 << bits) - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def errors(path: Path) -> list[str]:
    validator = shutil.which("dciodvfy")
    if validator is None:
        pytest.skip("no dciodvfy on this machine: apt-get install dicom3tools")
    done = subprocess.run([validator, "-new", str(path)], capture_output=True, text=True, timeout=300, check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


@pytest.mark.parametrize("name", READ_BY_PYDICOM)
@pytest.mark.parametrize("bits", [8, 12])
def test_pydicom_reads_what_is_written(name: str, bits: int, tmp_path: Path) -> None:
    codec = codec_of(name)
    told = capture(tmp_path / "image.dcm", image(bits), codec, bits)
    data = pydicom.dcmread(told.path)
    assert (data.BitsStored, data.HighBit) == (bits, bits - 1) and told.syntax == codec.syntax(bits)
    error = np.abs(open_clip(told.path)[0].astype(int) - image(bits).astype(int)).max()
    assert error <= told.largest_error and (error == 0) == codec.lossless
    assert (data.LossyImageCompression == "01") == (not codec.lossless)
    if not codec.lossless:
        assert float(data.LossyImageCompressionRatio) == pytest.approx(told.ratio, abs=0.01)


@pytest.mark.parametrize("name", KNOWN_TO_DCIODVFY)
@pytest.mark.parametrize("colour", [False, True])
def test_an_outside_validator_finds_no_error(name: str, colour: bool, tmp_path: Path) -> None:
    values = np.stack([image()] * 3, axis=-1) if colour else image()
    assert errors(capture(tmp_path / "image.dcm", values, codec_of(name)).path) == []


def test_the_same_image_gives_the_same_bytes(tmp_path: Path) -> None:
    paths = [capture(tmp_path / f"{n}.dcm", image(), codec_of("jpegls")).path for n in range(2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_jpeg_xl_is_written_though_pydicom_decodes_none(tmp_path: Path) -> None:
    from pydicom.encaps import get_frame

    told = capture(tmp_path / "image.dcm", image(), codec_of("jxl"))
    frame = get_frame(pydicom.dcmread(told.path).PixelData, 0, number_of_frames=1)
    assert np.array_equal(decode(codec_of("jxl"), frame, (48, 64)), image())
    with pytest.raises(DicomError, match="nothing that is installed decodes"):
        open_clip(told.path)


def test_a_clip_is_coded_anew_with_all_that_it_says(tmp_path: Path) -> None:
    clip = open_clip(examples.get_path("ybr_color"))
    told = recode_clip(tmp_path / "less.dcm", clip, codec_of("jpegls"))
    found = open_clip(told.path)
    assert told.frames == len(found) == len(clip) and found.interval_ms == clip.interval_ms
    assert np.array_equal(found[3], clip[3]) and found.source.PatientID == clip.source.PatientID
    assert found.source.SOPInstanceUID == clip.source.SOPInstanceUID, "nothing is lost: the same instance"


def test_what_is_lost_makes_another_instance_that_names_its_source(tmp_path: Path) -> None:
    clip = open_clip(capture(tmp_path / "source.dcm", image(), codec_of("jpegls")).path)
    found = open_clip(recode_clip(tmp_path / "less.dcm", clip, codec_of("j2k-psnr45")).path).source
    assert found.SOPInstanceUID != clip.source.SOPInstanceUID == found.SourceImageSequence[0].ReferencedSOPInstanceUID
    assert found.ImageType[0] == "DERIVED" and found.LossyImageCompressionMethod == "ISO_15444_1"


def test_signed_pixels_and_wrong_bits_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    clip = open_clip(examples.get_path("ct"))
    assert clip.source.PixelRepresentation == 1
    for name in ("jpegls-near2", "j2k", "j2k-psnr45", "htj2k"):
        with pytest.raises(DicomError, match="signed pixels"):
            recode_clip(tmp_path / "less.dcm", clip, codec_of(name))
    with pytest.raises(DicomError, match="8 or 12 bits"):
        capture(tmp_path / "less.dcm", image(16), codec_of("jpeg-q90"), 16)
    assert not list(tmp_path.iterdir())


def test_signed_pixels_of_a_ct_come_back_from_jpeg_ls(tmp_path: Path) -> None:
    clip = open_clip(examples.get_path("ct"))
    found = open_clip(recode_clip(tmp_path / "less.dcm", clip, codec_of("jpegls")).path)
    assert np.array_equal(found[0], clip[0]) and found[0].dtype == clip[0].dtype
    assert found.source.RescaleIntercept == clip.source.RescaleIntercept


def grey_file(path: Path, values: np.ndarray, stored: int, interpretation: str) -> Path:
    """An uncompressed file of ``values``, of which so many bits are said to be stored."""
    capture(path, np.zeros(values.shape, np.uint8), codec_of("jpegls"))
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.PhotometricInterpretation = interpretation
    data.BitsAllocated = 8 * values.dtype.itemsize
    data.BitsStored, data.HighBit = stored, stored - 1
    data.PixelRepresentation = int(values.dtype.kind == "i")
    data.PixelData = values.tobytes()
    data["PixelData"].VR = "OW" if data.BitsAllocated == 16 else "OB"
    data["PixelData"].is_undefined_length = False
    data.save_as(path)
    return path


@pytest.mark.parametrize("interpretation", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("dtype", "stored"), [("uint8", 7), ("uint16", 7), ("uint16", 8), ("int8", 8), ("int16", 12), ("int16", 16)]
)
def test_black_and_white_stay_where_they_were(dtype: str, stored: int, interpretation: str, tmp_path: Path) -> None:
    """MONOCHROME1 is turned, and a network's input scaled, by the bits that a file says are stored."""
    from edgedeploy.tasks.images.dicom import read_dicom
    from edgedeploy.tasks.images.rules import ImageRules

    levels = np.random.default_rng(0).integers(0, 1 << stored, (20, 30))
    values = (levels - (1 << (stored - 1)) if dtype[0] == "i" else levels).astype(dtype)
    source = grey_file(tmp_path / "in.dcm", values, stored, interpretation)
    told = recode_clip(tmp_path / "out.dcm", open_clip(source), codec_of("jpegls"))
    assert np.array_equal(open_clip(told.path)[0], open_clip(source)[0])
    before, after = (read_dicom(path, ImageRules(), 1 << 20) for path in (source, told.path))
    assert before.stated == after.stated and before.inverted == after.inverted
    assert np.array_equal(before.values, after.values)


def test_what_cannot_be_kept_is_refused_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (8, 8)).astype(np.uint16)
    narrow = open_clip(grey_file(tmp_path / "narrow.dcm", values % 256, 8, "MONOCHROME2"))
    with monkeypatch.context() as decoders:  # pydicom cuts such values of uncompressed files itself
        decoders.setattr(recode, "decoded", lambda *given: values)
        with pytest.raises(DicomError, match="more than the 8 bits"):
            recode_clip(tmp_path / "out.dcm", narrow, codec_of("jpegls"))
    path = grey_file(tmp_path / "big.dcm", values, 12, "MONOCHROME2")
    data = pydicom.dcmread(path)
    swapped = pydicom.Dataset({item.tag: item for item in data if item.keyword != "PixelData"})
    swapped.file_meta = data.file_meta
    swapped.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
    swapped.add_new("PixelData", "OW", values.astype(">u2").tobytes())
    swapped.save_as(path, enforce_file_format=True)
    clip = open_clip(path)
    assert np.array_equal(clip[0], values)
    with pytest.raises(DicomError, match="big endian"):
        recode_clip(tmp_path / "out.dcm", clip, codec_of("jpegls"))
    assert not (tmp_path / "out.dcm").exists()


def test_a_jpeg_2000_file_in_place_of_a_codestream_is_held_to_the_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenJPEG reads both, and allocates what either says."""
    import imagecodecs
    from pydicom.encaps import encapsulate

    path = capture(tmp_path / "image.dcm", image(), codec_of("j2k")).path
    data = pydicom.dcmread(path)

    def with_frame(frame: bytes) -> Path:
        data.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2)])
        data["PixelData"].is_undefined_length = True
        data.save_as(path)
        return path

    whole = bytes(imagecodecs.jpeg2k_encode(image(), codecformat="jp2", reversible=True))
    assert np.array_equal(open_clip(with_frame(whole))[0], image())
    large = bytes(imagecodecs.jpeg2k_encode(np.zeros((480, 640), np.uint8), codecformat="jp2", reversible=True))
    monkeypatch.setattr(pydicom.pixels, "pixel_array", lambda *given, **more: pytest.fail("it was decoded"))
    with pytest.raises(DicomError, match="640x480 pixels by itself"):
        open_clip(with_frame(large))[0]
    for nothing in (whole[:40], b"\0" * 64, b"\xff\xd8\xff\xe0\0\2"):
        with pytest.raises(DicomError, match=r"says no size|cannot be decoded"):
            open_clip(with_frame(nothing))[0]
