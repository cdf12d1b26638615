"""Image files as numbers: every kind of file that people bring, with the right values, or one sentence that asks."""

from __future__ import annotations

import logging
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from edgedeploy.errors import DataError, SpecError
from edgedeploy.tasks.images.files import image_files, read_pixels
from edgedeploy.tasks.images.labels import read_label_values
from edgedeploy.tasks.images.reader import ImageReader
from edgedeploy.tasks.images.rules import ImageRules

PLAIN = ImageRules()


def unit(path: Path, rules: ImageRules = PLAIN, *, colour: bool = False, beside: tuple[Path, ...] = ()) -> Any:
    return ImageReader(rules, [path, *beside]).unit(path, colour=colour)


def ramp(dtype: Any, top: float, low: float = 0) -> Any:
    return np.linspace(low, top, 48).round().astype(dtype).reshape(6, 8)


def saved(path: Path, values: Any, **options: Any) -> Path:
    Image.fromarray(values).save(path, **options)
    return path


# -- bits and ranges


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(("top", "bits"), [(4095, 12), (65535, 16), (900, 10), (9000, 14), (200, 8)])
def test_sixteen_bit_files_keep_their_shades(tmp_path: Path, suffix: str, top: int, bits: int) -> None:
    values = ramp(np.uint16, top)
    path = saved(tmp_path / f"a{suffix}", values)
    reader = ImageReader(PLAIN, [path])
    assert reader.unit(path, colour=False) == pytest.approx(values / (2**bits - 1), abs=1e-6)
    assert f"0 to {2**bits - 1} ({bits} bits)" in reader.note
    assert reader.unit(path, colour=True).shape == (6, 8, 3)
    assert reader.unit(path, colour=True).dtype == np.float32


def test_one_range_holds_for_the_whole_data_set(tmp_path: Path) -> None:
    dark, bright = saved(tmp_path / "a.png", ramp(np.uint16, 800)), saved(tmp_path / "b.png", ramp(np.uint16, 4000))
    assert unit(dark, beside=(bright,)).max() == pytest.approx(800 / 4095)
    assert unit(dark, ImageRules((0.0, 1600.0))).max() == pytest.approx(0.5)
    assert unit(bright, ImageRules((0.0, 1600.0))).max() == 1.0
    assert unit(bright, ImageRules("raw")).max() == 4000
    with pytest.raises(DataError, match=r"values of 0 to 4000\. State value_range"):
        ImageReader(PLAIN, [dark]).unit(bright, colour=False)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (ramp(np.int32, 3071, -1024), "-1024 to 3071"),
        (ramp(np.float32, 3071, -1024), "-1024 to 3071"),
        (ramp(np.int32, 200_000), "0 to 200000"),
    ],
    ids=["int32", "float", "large"],
)
def test_hounsfield_units_are_asked_and_then_right(tmp_path: Path, values: Any, told: str) -> None:
    path = saved(tmp_path / "ct.tif", values)
    with pytest.raises(DataError, match=f"{told}. State value_range"):
        unit(path)
    window = unit(path, ImageRules((-160.0, 240.0)))
    assert window == pytest.approx(np.clip((values.astype(float) + 160) / 400, 0, 1), abs=1e-6)
    assert np.array_equal(unit(path, ImageRules("raw")), values.astype(np.float32))


def test_fractions_between_0_and_1_are_taken_as_such(tmp_path: Path) -> None:
    values = np.linspace(0, 0.7, 48, dtype=np.float32).reshape(6, 8)
    assert np.allclose(unit(saved(tmp_path / "f.tif", values)), values, atol=1e-6)
    values[0, 0] = np.nan
    with pytest.raises(DataError, match="NaN or Inf"):
        unit(saved(tmp_path / "f.tif", values))


def test_a_small_int32_file_follows_the_rule_of_16_bits(tmp_path: Path) -> None:
    assert unit(saved(tmp_path / "i.tif", ramp(np.int32, 4095))).max() == 1.0


def tiff(path: Path, bits: int, photometric: int, data: bytes, size: tuple[int, int], samples: int = 1) -> Path:
    """An uncompressed little-endian TIFF that Pillow itself would not write."""
    height, width = size
    offset = 8 + 2 + 12 * 8 + 4
    depths = (3, samples, bits) if samples == 1 else (3, samples, offset + len(data))
    entries = [(256, 3, 1, width), (257, 3, 1, height), (258, *depths), (262, 3, 1, photometric), (273, 4, 1, offset)]
    entries += [(277, 3, 1, samples), (278, 3, 1, height), (279, 4, 1, len(data))]
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries))
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    path.write_bytes(head + table + b"\0\0\0\0" + data + struct.pack("<H", bits) * samples)
    return path


def test_a_tiff_of_12_bits_states_its_range(tmp_path: Path) -> None:
    values = ramp(np.uint16, 1000)
    pairs = values.reshape(-1, 2).astype(int)
    packed = b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pairs)
    assert unit(tiff(tmp_path / "a.tif", 12, 1, packed, (6, 8))).max() == pytest.approx(1000 / 4095)


def test_white_is_zero(tmp_path: Path) -> None:
    values = ramp(np.uint16, 4095)
    path = tiff(tmp_path / "a.tif", 16, 0, values.tobytes(), (6, 8))
    assert unit(path) == pytest.approx(1 - values / 4095, abs=1e-6)
    with pytest.raises(DataError, match="smallest value is white"):
        unit(path, ImageRules("raw"))


def png(path: Path, depth: int, colour: int, rows: list[bytes], width: int) -> Path:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b""))
    return path


def test_colours_of_16_bits_are_not_cut_to_8_in_silence(tmp_path: Path) -> None:
    rows = [np.full((8, 3), 4000, ">u2").tobytes()] * 6
    for path in (
        png(tmp_path / "c.png", 16, 2, rows, 8),
        tiff(tmp_path / "c.tif", 16, 2, np.full((6, 8, 3), 4000, np.uint16).tobytes(), (6, 8), samples=3),
    ):
        with pytest.raises(DataError, match="16 bits a channel"):
            unit(path)


# -- modes


def test_palettes_alpha_and_one_bit(tmp_path: Path) -> None:
    colours = Image.new("RGB", (8, 6), (10, 200, 30))
    colours.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.png")
    assert unit(tmp_path / "p.png", colour=True)[2, 3] * 255 == pytest.approx([10, 200, 30], abs=1)
    saved(tmp_path / "bit.png", ramp(np.uint8, 255) > 100)
    assert set(np.unique(unit(tmp_path / "bit.png"))) == {0.0, 1.0}
    shown = np.dstack([np.full((6, 8, 3), 200, np.uint8), np.full((6, 8), 255, np.uint8)])
    shown[0, 0, 3] = 0
    saved(tmp_path / "rgba.png", shown)
    saved(tmp_path / "la.png", np.ascontiguousarray(shown[..., 2:]))
    for name in ("rgba.png", "la.png"):
        found = unit(tmp_path / name)
        assert (found[0, 0], found[1, 1]) == (0.0, pytest.approx(200 / 255))
    Image.new("CMYK", (8, 6), (0, 0, 0, 0)).save(tmp_path / "k.jpg")
    assert unit(tmp_path / "k.jpg", colour=True).min() == 1.0


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "options"),
    [(".png", {}), (".tif", {}), (".tif", {"compression": "tiff_lzw"}), (".webp", {"lossless": True})],
)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str, options: dict[str, Any]) -> None:
    image, exif = Image.fromarray(ramp(np.uint8, 255)), Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / f"a{suffix}", exif=exif, **options)
    image.getexif()[0x0112] = orientation
    wanted = np.asarray(ImageOps.exif_transpose(image))
    assert unit(tmp_path / f"a{suffix}") * 255 == pytest.approx(wanted, abs=1e-3)
    wide = Image.fromarray(ramp(np.uint16, 4095))
    if suffix == ".tif":
        wide.save(tmp_path / "wide.tif", exif=exif, **options)
        wide.getexif()[0x0112] = orientation
        wanted = np.asarray(ImageOps.exif_transpose(wide))
        assert unit(tmp_path / "wide.tif") * 4095 == pytest.approx(wanted, abs=1e-2)


# -- pages, limits, folders


@pytest.mark.parametrize("suffix", [".tif", ".gif"])
def test_several_pages_are_asked(tmp_path: Path, suffix: str) -> None:
    pages = [Image.fromarray(np.full((6, 8), shade, np.uint8)) for shade in (10, 20, 30)]
    path = tmp_path / f"a{suffix}"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match=r"it has 3 pages. State which one: page = 1 to 3"):
        unit(path)
    assert unit(path, ImageRules(page=2)).max() * 255 == pytest.approx(20)
    with pytest.raises(DataError, match="page 4 of image"):
        unit(path, ImageRules(page=4))


def test_what_is_no_image_or_far_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(DataError, match="no image that can be read"):
        unit(tmp_path / "a.png")
    (tmp_path / "program.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(DataError, match="no image that can be read"):
        unit(tmp_path / "program.png")
    png(tmp_path / "bomb.png", 8, 0, [b"\0" * 9000] * 9000, 9000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=r"9000x9000 pixels\. At most"):
            unit(tmp_path / "bomb.png")
    whole = saved(tmp_path / "cut.png", np.random.default_rng(0).integers(0, 255, (60, 80), np.uint8)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be decoded"):
        unit(tmp_path / "cut.png")


def test_a_folder_lists_images_alone(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "._a.jpg", ".hidden.png", "notes.txt", "README"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
    assert [path.name for path in image_files(tmp_path)] == ["IM0001", "a.jpg", "b.PNG"]


@pytest.mark.parametrize("value", [[5, 5], [0], "white", [0, float("nan")], True, [0, True]])
def test_a_wrong_range_is_named(value: Any) -> None:
    with pytest.raises(SpecError, match=r"task.options.value_range.*For example \[0, 4095\]"):
        ImageRules.from_table({"value_range": value}, "task.options")


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "first"])
def test_a_wrong_page_is_named(value: Any) -> None:
    with pytest.raises(SpecError, match=r"task.options.page.*counted from 1"):
        ImageRules.from_table({"page": value}, "task.options")


# -- label images


def test_labels_are_numbers_and_not_colours(tmp_path: Path) -> None:
    values = np.array([[0, 1, 2, 3]] * 4)
    palette = Image.fromarray(values.astype(np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 9, 9, 9])
    palette.save(tmp_path / "palette.png")
    palette.save(tmp_path / "palette.gif")
    saved(tmp_path / "deep.png", (values * 20000).astype(np.uint16))
    png(tmp_path / "two.png", 2, 0, [bytes([0b00011011])] * 4, 4)
    saved(tmp_path / "grey.png", np.repeat(values.astype(np.uint8)[..., None], 3, axis=2))
    saved(tmp_path / "float.tif", values.astype(np.float32))
    for name in ("palette.png", "palette.gif", "two.png", "grey.png", "float.tif"):
        assert np.array_equal(read_label_values(tmp_path / name, PLAIN), values), name
    assert read_label_values(tmp_path / "deep.png", PLAIN).max() == 60000
    saved(tmp_path / "colours.png", np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    with pytest.raises(DataError, match="one channel of class numbers"):
        read_label_values(tmp_path / "colours.png", PLAIN)
    saved(tmp_path / "half.tif", values.astype(np.float32) / 2)
    with pytest.raises(DataError, match="fractions"):
        read_label_values(tmp_path / "half.tif", PLAIN)


# -- DICOM


def dicom(path: Path, values: Any, **tags: Any) -> Path:
    """A secondary capture with the pixels ``values`` and a patient whom nobody may read about in a message."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = tags.pop("syntax", ExplicitVRLittleEndian)
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    bits = values.dtype.itemsize * 8
    described = {
        "PatientName": "Doe^Jane",
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "Rows": values.shape[0],
        "Columns": values.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": tags.get("BitsStored", bits) - 1,
        "PixelRepresentation": int(values.dtype.kind == "i"),
        "PixelData": values.tobytes(),
    }
    for name, value in {**described, **tags}.items():
        setattr(data, name, value)
    data.save_as(path)
    return path


CT = {"BitsStored": 12, "RescaleSlope": 1, "RescaleIntercept": -1024}


def test_dicom_rescale_and_bits_stored_give_the_range(tmp_path: Path) -> None:
    stored = ramp(np.uint16, 2048)
    path = dicom(tmp_path / "IM1", stored, **CT)
    assert image_files(tmp_path) == [path]
    assert unit(path) == pytest.approx(stored / 4095, abs=1e-6)
    assert np.array_equal(unit(path, ImageRules("raw")), stored.astype(np.float32) - 1024)
    window = unit(path, ImageRules((-160.0, 240.0)))
    assert window == pytest.approx(np.clip((stored - 1024.0 + 160) / 400, 0, 1), abs=1e-5)


def test_a_dicom_rescale_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    """Black and white would be one value, and every pixel NaN."""
    path = dicom(tmp_path / "IM1", ramp(np.uint16, 4095), **{**CT, "RescaleSlope": 0})
    with pytest.raises(DataError, match="IM1: its rescale slope makes one value of all its pixels"):
        unit(path)


def test_a_dicom_files_own_window(tmp_path: Path) -> None:
    stored = ramp(np.uint16, 2048)
    path = dicom(tmp_path / "a.dcm", stored, **CT, WindowCenter=40, WindowWidth=400)
    hounsfield = stored - 1024.0
    wanted = np.clip((hounsfield - 39.5) / 399 + 0.5, 0, 1)  # PS3.3 C.11.2.1.2.1
    assert unit(path, ImageRules("window")) == pytest.approx(wanted, abs=1e-5)
    several = dicom(tmp_path / "b.dcm", stored, **CT, WindowCenter=[40, 300], WindowWidth=[400, 2000])
    assert unit(several, ImageRules("window")) == pytest.approx(wanted, abs=1e-5)
    with pytest.raises(DataError, match="it states no window"):
        unit(dicom(tmp_path / "c.dcm", stored, **CT), ImageRules("window"))


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    stored = ramp(np.uint16, 4095)
    path = dicom(tmp_path / "a.dcm", stored, BitsStored=12, PhotometricInterpretation="MONOCHROME1")
    assert unit(path) == pytest.approx(1 - stored / 4095, abs=1e-6)


def test_signed_dicom_and_bits_that_say_nothing(tmp_path: Path) -> None:
    signed = ramp(np.int16, 2000, -1000)
    path = dicom(tmp_path / "a.dcm", signed)
    with pytest.raises(DataError, match=r"-1000 to 2000\. State value_range"):
        unit(path)
    assert unit(path, ImageRules((-1000.0, 2000.0))) == pytest.approx((signed + 1000.0) / 3000, abs=1e-6)
    unsigned = dicom(tmp_path / "b.dcm", ramp(np.uint16, 4000))
    assert unit(unsigned).max() == pytest.approx(4000 / 4095)
    assert unit(dicom(tmp_path / "c.dcm", ramp(np.uint8, 255))).max() == 1.0


def test_dicom_colours(tmp_path: Path) -> None:
    colours = np.zeros((6, 8, 3), np.uint8)
    colours[..., 1] = 200
    rgb = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "RGB"}
    found = unit(dicom(tmp_path / "a.dcm", colours, **rgb), colour=True)
    assert found[2, 3] == pytest.approx([0, 200 / 255, 0])
    indices = (np.arange(48) % 3).astype(np.uint8).reshape(6, 8)
    table = np.array([0, 30000, 65535], np.uint16)
    palette = {f"{c}PaletteColorLookupTableData": table.tobytes() for c in ("Red", "Green", "Blue")}
    palette |= {f"{c}PaletteColorLookupTableDescriptor": [3, 0, 16] for c in ("Red", "Green", "Blue")}
    path = dicom(tmp_path / "b.dcm", indices, PhotometricInterpretation="PALETTE COLOR", **palette)
    assert unit(path, colour=True)[..., 2] == pytest.approx(table[indices] / 65535, abs=1e-6)


def test_frames_are_asked(tmp_path: Path) -> None:
    frames = np.stack([np.full((6, 8), shade, np.uint8) for shade in (10, 20, 30)])
    path = dicom(tmp_path / "a.dcm", frames, NumberOfFrames=3, Rows=6, Columns=8)
    with pytest.raises(DataError, match=r"it has 3 frames. State which one: page = 1 to 3"):
        unit(path)
    assert unit(path, ImageRules(page=3)).max() * 255 == pytest.approx(30)


def encapsulated(path: Path, syntax: str) -> Path:
    from pydicom.encaps import encapsulate

    return dicom(path, ramp(np.uint8, 255), syntax=syntax, PixelData=encapsulate([b"\xff\xd8\xff\xf7" + b"\0" * 60]))


def broken(change: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.write_bytes(change(dicom(path, ramp(np.uint8, 255)).read_bytes()))
        return path

    return make


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: encapsulated(path, "1.2.840.10008.1.2.4.80"), r'JPEG-LS.*pip install "pyjpegls"'),
        (lambda path: encapsulated(path, "1.2.840.10008.1.2.4.70"), r'JPEG Lossless.*pip install "pylibjpeg'),
        (lambda path: dicom(path, ramp(np.uint8, 9), Rows=60000, Columns=60000), "60000x60000 pixels"),
        (lambda path: dicom(path, ramp(np.uint8, 9), Rows=50), "cannot be decoded"),
        (broken(lambda data: data[:140] + b"Doe^Jane" * 9), "0x0 pixels"),
        (lambda path: dicom(path, ramp(np.uint8, 9), syntax="1.2.840.10008.1.2.1.99"), "deflated as a whole"),
    ],
    ids=["jpeg-ls", "lossless", "large", "short", "damaged", "deflated"],
)
def test_a_dicom_file_that_cannot_be_read_says_nothing_of_the_patient(
    make: Callable[[Path], Path],
    told: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pixels = pytest.importorskip("pydicom.pixels")
    for syntax in ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.70"):  # as on a host without their decoders
        monkeypatch.setattr(pixels.get_decoder(syntax), "_available", {})
    path = make(tmp_path / "a.dcm")
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=told) as caught:
            read_pixels(path, PLAIN)
    assert "Doe" not in str(caught.value)
    assert "Doe" not in caplog.text
