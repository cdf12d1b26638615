"""Time stamps of real ultrasound sequences, and headers that are not what they should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgedeploy.errors import DataError
from edgedeploy.spec import recordings
from edgedeploy.spec.recordings import dicom_arrivals_ns, metaimage_arrivals_ns


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "frames", "second_ns", "last_ns"),
    [
        # The differences of the decimal numbers in the files' headers.
        ("TimestampFilteringTest.igs.mha", 500, 32_770_000, 32_200_187_000),
        ("fCal_Test_Calibration_3NWires.igs.mha", 188, None, 14_847_528_000),
    ],
)
def test_real_sequences(shared: Path, name: str, frames: int, second_ns: int | None, last_ns: int) -> None:
    arrivals = metaimage_arrivals_ns(shared / "data" / "us_sequences" / name)
    assert len(arrivals) == frames
    assert arrivals[0] == 0
    assert arrivals == sorted(arrivals)
    # The stamps are decimals of 1e-6 s near 1.8e6 s: floats hold them to 0.25 ns.
    assert abs(arrivals[-1] - last_ns) <= 1
    assert second_ns is None or abs(arrivals[1] - second_ns) <= 1


def header(stamps: list[str], *extra: str, end: str = "ElementDataFile = LOCAL") -> bytes:
    lines = ["ObjectType = Image", *extra, *(f"Seq_Frame{i:04d}_Timestamp = {s}" for i, s in enumerate(stamps)), end]
    return "\n".join(lines).encode() + b"\n\x00\x01binary"


def write(folder: Path, data: bytes) -> Path:
    path = folder / "sequence.mha"
    path.write_bytes(data)
    return path


def test_stamps_count_from_the_first_whatever_the_order_of_the_lines(tmp_path: Path) -> None:
    data = header(["5.0", "5.5"], "Seq_Frame0002_Timestamp = 7.25", "Seq_Frame0000_UnfilteredTimestamp = 1")
    assert metaimage_arrivals_ns(write(tmp_path, data)) == [0, 500_000_000, 2_250_000_000]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x00\x01\x02\x03", "no `key = value`"),
        (b"", "no `key = value`"),
        (header(["0", "1"], end="Offset = 0"), "no `key = value`"),
        (header(["0"]), "1 frames"),
        (header([]), "0 frames"),
        (header(["0", "soon"]), "no number of seconds"),
        (header(["0", "nan"]), "frame 1 is at nan"),
        (header(["0", "inf"]), "frame 1 is at inf"),
        (header(["3", "2"]), "frame 1 is at 2.0"),
        (header(["0", "1e9"]), "spans"),
        (header(["0", "1"], "Seq_Frame0007_Timestamp = 3"), "frame 2 has no time stamp"),
        (header(["0", "1"], "Comment = " + "x" * recordings.MAX_LINE_BYTES), "does not end"),
    ],
)
def test_headers_that_are_not_what_they_should_be(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        metaimage_arrivals_ns(write(tmp_path, data))


def test_limits_on_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, header(["0", "1", "2"]))
    monkeypatch.setattr(recordings, "MAX_FRAMES", 2)
    with pytest.raises(DataError, match="more than 2 frames"):
        metaimage_arrivals_ns(path)
    monkeypatch.setattr(recordings, "MAX_HEADER_BYTES", 40)
    with pytest.raises(DataError, match="does not end"):
        metaimage_arrivals_ns(path)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.mha: it cannot be read"):
        metaimage_arrivals_ns(tmp_path / "gone.mha")


class TestDicom:
    def clip(self, folder: Path, **elements: Any) -> Path:
        pydicom = pytest.importorskip("pydicom", reason="no pydicom here: pip install edgedeploy[dicom]")
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = pydicom.uid.UltrasoundMultiFrameImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        for name, value in elements.items():
            setattr(data, name, value)
        path = folder / "clip.dcm"
        data.save_as(path, enforce_file_format=True)
        return path

    def test_frame_time_is_the_time_between_frames(self, tmp_path: Path) -> None:
        path = self.clip(tmp_path, NumberOfFrames=3, FrameTime="33.25")
        assert dicom_arrivals_ns(path) == [0, 33_250_000, 66_500_000]

    def test_frame_time_vector_holds_increments_and_comes_first(self, tmp_path: Path) -> None:
        path = self.clip(tmp_path, NumberOfFrames=3, FrameTime="10", FrameTimeVector=["0", "20", "35.5"])
        assert dicom_arrivals_ns(path) == [0, 20_000_000, 55_500_000]

    @pytest.mark.parametrize(
        ("elements", "message"),
        [
            ({"NumberOfFrames": 1, "FrameTime": "10"}, "1 frames"),
            ({"NumberOfFrames": 3}, "neither FrameTimeVector nor"),
            ({"NumberOfFrames": 3, "FrameTime": "0"}, "neither FrameTimeVector nor"),
            ({"NumberOfFrames": 3, "FrameTimeVector": ["0", "20"]}, "2 values for 3 frames"),
            ({"NumberOfFrames": 3, "FrameTimeVector": ["0", "20", "-5"]}, "frame 2"),
        ],
    )
    def test_clips_without_usable_times(self, tmp_path: Path, elements: dict[str, Any], message: str) -> None:
        with pytest.raises(DataError, match=message):
            dicom_arrivals_ns(self.clip(tmp_path, **elements))

    def test_what_is_no_dicom_is_named(self, tmp_path: Path) -> None:
        pytest.importorskip("pydicom", reason="no pydicom here: pip install edgedeploy[dicom]")
        path = tmp_path / "clip.dcm"
        path.write_bytes(b"no clip" * 100)
        with pytest.raises(DataError, match="Is it a DICOM file"):
            dicom_arrivals_ns(path)
