"""Image codecs: names, round trips, what the check finds, and bytes that lie about their size."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import gaussian_filter

from edgedeploy.runtime.pipeline import codecs, coded_check
from edgedeploy.runtime.pipeline.codecs import Codec, CodecError, CodecMissing, codec_of, decode, encode
from edgedeploy.runtime.pipeline.coded_apart import decode_apart
from edgedeploy.runtime.pipeline.coded_check import checked, psnr
from edgedeploy.runtime.pipeline.coded_header import frame_size

imagecodecs = pytest.importorskip("imagecodecs")

Image = npt.NDArray[Any]
NAMES = ("jpeg-q75", "jpegls", "jpegls-near2", "j2k", "j2k-psnr45", "htj2k", "htj2k-step0.02", "jxl", "jxl-d1")


def grey(bits: int = 8, seed: int = 0) -> Image:
    """Clouds with a white and a black field, as machines write text and bars into images."""
    clouds = gaussian_filter(np.random.default_rng(seed).normal(size=(61, 75)), 3)
    levels = (clouds - clouds.min()) / np.ptp(clouds)
    levels[5:25, 5:30], levels[30:40, 40:60] = 1.0, 0.0
    return np.round(levels * ((1 << bits) - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def colour() -> Image:
    return np.stack([grey(seed=seed) for seed in range(3)], axis=-1)


class TestNames:
    @pytest.mark.parametrize("name", NAMES)
    def test_a_name_is_read_and_written_alike(self, name: str) -> None:
        assert codec_of(name).name == name

    @pytest.mark.parametrize(
        "text",
        [
            *("", "none", "jpeg", "jpeg-q0", "jpeg-q101", "jpeg-q75.5", "jpeg-near2", "jpegls-near0", "jpegls-near256"),
            *("j2k-psnr", "j2k-psnr500", "htj2k-step1", "htj2k-stepnan", "jxl-d0", "webp", "jxl-d1 ", 7, None),
        ],
    )
    def test_what_names_no_codec_is_refused(self, text: object) -> None:
        with pytest.raises(ValueError, match=r"expected|name it"):
            codec_of(text)

    def test_transfer_syntaxes_are_those_of_the_standard(self) -> None:
        found = {name: codec_of(name).syntax(8).rpartition(".1.2.4.")[2] for name in NAMES}
        assert found == {
            **{"jpeg-q75": "50", "jpegls": "80", "jpegls-near2": "81", "j2k": "90", "j2k-psnr45": "91"},
            **{"htj2k": "201", "htj2k-step0.02": "203", "jxl": "110", "jxl-d1": "112"},
        }
        assert codec_of("jpeg-q75").syntax(12).endswith(".51"), "JPEG Extended"


class TestRoundTrips:
    @pytest.mark.parametrize(("name", "bits"), itertools.product(NAMES, (8, 12, 16)))
    def test_grey(self, name: str, bits: int) -> None:
        codec, image = codec_of(name), grey(bits)
        if bits == 16 and name in ("jpeg-q75", "htj2k-step0.02"):
            with pytest.raises(CodecError, match="16"):
                checked(codec, image, bits)
            return
        found = checked(codec, image, bits)
        assert found.image.dtype == image.dtype and len(found.data) < image.nbytes
        if codec.near is not None:
            assert found.largest_error <= codec.near
        else:
            assert 0 < found.largest_error < 0.2 * (1 << bits) and found.psnr_db > 30
        assert found.psnr_db == psnr(image, found.image, bits)

    @pytest.mark.parametrize("name", NAMES)
    def test_colour(self, name: str) -> None:
        assert checked(codec_of(name), colour()).image.shape == (61, 75, 3)

    @pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("jxl")])
    def test_a_second_decoder_agrees(self, name: str) -> None:
        for package in ("jpeg_ls", "libjpeg", "openjpeg"):
            pytest.importorskip(package)
        assert checked(codec_of(name), grey()).second

    @pytest.mark.parametrize(
        ("image", "bits", "words"),
        [
            (np.zeros((4, 4), np.float32), 8, "uint8 or uint16"),
            (np.zeros((4, 4, 2), np.uint8), 8, "height, width"),
            (np.zeros((0, 4), np.uint8), 8, "height, width"),
            (np.full((4, 4), 5000, np.uint16), 12, "no image of 12 bits"),
            (np.zeros((4, 4), np.uint8), 12, "no image of 12 bits"),
            (np.zeros((4, 4, 3), np.uint16), 12, "colour have 8 bits"),
        ],
    )
    def test_what_no_codec_holds_is_refused(self, image: Image, bits: int, words: str) -> None:
        with pytest.raises(CodecError, match=words):
            encode(codec_of("j2k"), image, bits)


def hanging(data: bytes) -> bytes:
    """Cut off, with three bytes changed, so that CharLS does not come back."""
    draw = np.random.default_rng(1)
    cut = bytearray(data[: draw.integers(1, len(data) + 1)])
    for place in draw.integers(0, len(cut), 3):
        cut[place] = int(draw.integers(0, 256))
    return bytes(cut)


def as_the_wrapper_does(codec: Codec, data: bytes, shape: tuple[int, ...], bits: int, *, bare: bool) -> Image:
    return np.asarray(imagecodecs.htj2k_decode(data))


class TestTheCheck:
    def test_white_that_becomes_black_is_found_with_its_pixel(self) -> None:
        """imagecodecs 2026.3 does so by itself where OpenJPH's result passes white by a rounding."""
        codec, image = codec_of("htj2k-step0.02"), grey()
        with pytest.raises(CodecError, match=r"white into black.*row \d+, column \d+: 25[0-9] became \d\)"):
            checked(codec, image, bare=True, decoder=as_the_wrapper_does)
        whole = checked(codec, image)
        assert whole.largest_error < 40, "coded in 16 bits, nothing wraps"
        assert checked(codec, image, bare=True).largest_error < 40, "and OpenJPEG cuts what passes white"

    def test_a_lossless_codec_that_changes_a_pixel_is_found(self) -> None:
        def off_by_one(*given: Any, **more: Any) -> Image:
            found = decode(*given, **more).copy()
            found[7, 9] ^= 1
            return found

        with pytest.raises(CodecError, match=r"by 1, at most 0 is sound \(row 7, column 9"):
            checked(codec_of("jpegls"), grey(), decoder=off_by_one)

    def test_near_lossless_promises_a_bound(self) -> None:
        def off_by_three(*given: Any, **more: Any) -> Image:
            found = decode(*given, **more).copy()
            found[50, 9] = grey()[50, 9] - 3
            return found

        with pytest.raises(CodecError, match="by 3, at most 2"):
            checked(codec_of("jpegls-near2"), grey(), decoder=off_by_three)

    def test_a_ruined_image_is_no_quality(self) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)

        def flat(*given: Any, **more: Any) -> Image:
            return np.full_like(noise, 128)

        with pytest.raises(CodecError, match="PSNR"):
            checked(codec_of("jpeg-q50"), noise, decoder=flat)

    def test_a_second_decoder_that_differs_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def other(codec: Codec) -> Any:
            return "another", lambda data: decode(codec, data, grey().shape)[::-1]

        monkeypatch.setattr(coded_check, "_second", other)
        with pytest.raises(CodecError, match="decoded otherwise by another"):
            checked(codec_of("j2k"), grey())


class TestBytesOfStrangers:
    @pytest.mark.parametrize("name", NAMES)
    def test_the_header_says_the_size(self, name: str) -> None:
        assert frame_size(encode(codec_of(name), grey())) == (61, 75)

    @pytest.mark.parametrize("size", [(16, 16), (16, 24), (300, 200), (1, 70000), (64, 36)])
    def test_jpeg_xl_has_short_sizes_and_ratios(self, size: tuple[int, int]) -> None:
        data = encode(codec_of("jxl"), np.zeros(size, np.uint8))
        assert frame_size(data) == size

    @pytest.mark.parametrize("name", NAMES)
    def test_another_size_is_refused_before_anything_is_decoded(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = encode(codec_of(name), grey())
        monkeypatch.setattr(codecs, "_decoder", lambda *given: pytest.fail("it was decoded"))
        with pytest.raises(CodecError, match="say 61 x 75 pixels, and 60 x 75 are expected"):
            decode(codec_of(name), data, (60, 75))

    def test_a_decoder_that_hangs_is_ended(self) -> None:
        """CharLS 2.4.3 hangs on some damaged bytes."""
        codec, data = codec_of("jpegls"), encode(codec_of("jpegls"), grey())
        assert np.array_equal(decode_apart(codec, data, (61, 75)), grey())
        with pytest.raises(CodecError, match=r"ended by|took longer"):
            decode_apart(codec, hanging(data), (61, 75), seconds=1)

    def test_what_is_refused_apart_says_why(self) -> None:
        with pytest.raises(CodecError, match="say no size"):
            decode_apart(codec_of("jxl"), b"no image", (61, 75))

    @pytest.mark.parametrize("name", [name for name in NAMES if "jpegls" not in name])
    def test_damaged_bytes_are_an_error_or_an_image_of_the_size(self, name: str) -> None:
        codec, data = codec_of(name), encode(codec_of(name), grey())
        draw = np.random.default_rng(1)
        refused = 0
        for _ in range(40):
            cut = bytearray(data[: draw.integers(1, len(data) + 1)])
            for place in draw.integers(0, len(cut), 3):
                cut[place] = int(draw.integers(0, 256))
            try:
                assert decode(codec, bytes(cut), (61, 75)).shape == (61, 75)
            except CodecError:
                refused += 1
        # imagecodecs keeps OpenJPH's errors to itself and gives an image all the same
        assert refused or name.startswith("htj2k"), "some of them are no image"

    def test_there_are_limits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(CodecError, match="pixels are more than"):
            decode(codec_of("jxl"), b"", (100_000, 100_000))
        monkeypatch.setattr(codecs, "MOST_BYTES", 10)
        with pytest.raises(CodecError, match="at most 10 are decoded"):
            decode(codec_of("jxl"), bytes(11), (4, 4))

    def test_a_codec_that_is_not_there_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(codecs, "_imagecodecs", lambda codec: SimpleNamespace())
        with pytest.raises(CodecMissing, match="no jpegls"):
            encode(codec_of("jpegls"), grey())


@pytest.mark.parametrize("name", ["htj2k-step0.00001", "htj2k-step0.0005", "jxl-d0.01", "jpeg-q75", "jpegls"])
def test_a_codec_is_written_as_it_is_read(name: str) -> None:
    assert codec_of(name).name == name
