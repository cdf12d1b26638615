"""Damaged JPEG-LS in a DICOM file: an error in time, and no image that its decoder made up."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("jpeg_ls")
pytest.importorskip("imagecodecs")

from edgedeploy.runtime.dicom import DicomError, open_clip, tried  # noqa: E402
from edgedeploy.runtime.dicom.recode import capture  # noqa: E402
from edgedeploy.runtime.pipeline.codecs import codec_of, encode  # noqa: E402

pytestmark = pytest.mark.beside


def image() -> np.ndarray:
    """Clouds with a white and a black field."""
    clouds = gaussian_filter(np.random.default_rng(0).normal(size=(61, 75)), 3)
    levels = (clouds - clouds.min()) / np.ptp(clouds)
    levels[5:25, 5:30], levels[30:40, 40:60] = 1.0, 0.0
    return np.round(levels * 255).astype(np.uint8)


def with_frame(path: Path, frame: bytes) -> Path:
    from pydicom.encaps import encapsulate

    capture(path, image(), codec_of("jpegls"))
    data = pydicom.dcmread(path)
    data.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2)])
    data["PixelData"].is_undefined_length = True
    data.save_as(path)
    return path


def test_a_sound_file_is_read_as_before(tmp_path: Path) -> None:
    capture(tmp_path / "sound.dcm", image(), codec_of("jpegls"))
    clip = open_clip(tmp_path / "sound.dcm")
    assert clip.decoder.plugin == "pyjpegls" and np.array_equal(clip[0], image())


def test_half_of_a_frame_is_an_error_and_no_image(tmp_path: Path) -> None:
    """pylibjpeg gives an image of it."""
    whole = encode(codec_of("jpegls"), image())
    with pytest.raises(DicomError, match="damaged JPEG-LS: it is cut off"):
        open_clip(with_frame(tmp_path / "half.dcm", whole[: len(whole) // 2]))[0]


def test_bytes_that_are_no_image_are_refused(tmp_path: Path) -> None:
    whole = bytearray(encode(codec_of("jpegls"), image()))
    whole[whole.index(b"\xff\xf7") + 4] = 99  # bits of a pixel
    with pytest.raises(DicomError, match="its decoder refuses it"):
        open_clip(with_frame(tmp_path / "none.dcm", bytes(whole)))[0]


def test_a_frame_that_charls_does_not_come_back_from_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = encode(codec_of("jpegls"), image())
    comment = b"\xff\xfe\0\4\xff\xd9"  # as if it had its end
    cut = whole[:2] + comment + whole[2 : len(whole) // 2]
    monkeypatch.setattr(tried, "MOST_SECONDS", 1.0)
    open_clip(with_frame(tmp_path / "sound.dcm", encode(codec_of("jpegls"), image())))[0]  # its process is there now
    clip, begun = open_clip(with_frame(tmp_path / "hangs.dcm", cut)), time.monotonic()
    with pytest.raises(DicomError, match="crashed, or did not come back in 1 s"):
        clip[0]
    assert time.monotonic() - begun < 30
    again = open_clip(with_frame(tmp_path / "next.dcm", encode(codec_of("jpegls"), image())))
    assert np.array_equal(again[0], image()), "the next file has a process of its own"
