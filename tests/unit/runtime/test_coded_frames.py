"""Coded images on a board: what the stages of a frame do with them, and a board whose decoder answers otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.pipeline import codecs
from edgedeploy.runtime.pipeline.codecs import CodecError, CodecMissing, codec_of, encode
from edgedeploy.runtime.pipeline.steps import Normalise, Resize, Steps, ToTensor
from edgedeploy.runtime.scenarios.frames import MOST_FRAMES, CodedFrames, stored, write_frames
from edgedeploy.runtime.scenarios.schedule import MonotonicClock
from edgedeploy.runtime.scenarios.stages import Pipeline

pytest.importorskip("imagecodecs")

STEPS = Steps((Resize(8, 8, "box"), Normalise(255.0, (0.0,), (1.0,)), ToTensor("image", "NCHW", "float32")))


def frames(count: int = 3) -> list[np.ndarray]:
    return [np.random.default_rng(seed).integers(0, 256, (24, 32)).astype(np.uint8) for seed in range(count)]


def written(folder: Path, name: str = "jpegls", images: list[np.ndarray] | None = None) -> Path:
    path, codec = folder / "frames", codec_of(name) if name else None
    rows = []
    for frame in images or frames():
        image, form = stored(frame)
        rows.append((encode(codec, image) if codec else image.tobytes(), form, image))
    write_frames(path, codec, STEPS, rows)
    return path


class Mean:
    """A session that answers with the mean of its input."""

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        return {"y": feeds["image"].mean(keepdims=True)}


@pytest.mark.parametrize("name", ["", "jpegls"])
def test_a_frame_is_decoded_and_prepared_as_in_a_product(name: str, tmp_path: Path) -> None:
    coded = CodedFrames(written(tmp_path, name))
    pipeline = Pipeline(Mean(), [{}], ["decode", "resize"], (1, 1), MonotonicClock(), coded)  # type: ignore[arg-type]
    for number in (0, 1, 2, 3):
        pipeline.process(number)
        wanted = frames()[number % 3].reshape(8, 3, 8, 4).mean() / 255
        assert float(pipeline.shown["y"].ravel()[0]) == pytest.approx(wanted, abs=0.5 / 255), (
            "of levels that are rounded"
        )
    assert [len(times) for times in pipeline.times_ns.values()] == [4, 4, 4]
    told = coded.told()
    assert (told["codec"], told["frames"], told["largest_difference"]) == (name, 3, 0)
    assert all(size == 24 * 32 for size in told["bytes"]) == (not name)


def test_a_board_that_decodes_otherwise_is_told_before_anything_is_timed(tmp_path: Path) -> None:
    image, form = stored(frames()[0])
    other = image.copy()
    other[3, 4] ^= 128
    write_frames(tmp_path / "frames", codec_of("jpegls"), STEPS, [(encode(codec_of("jpegls"), image), form, other)])
    with pytest.raises(RuntimeFault, match="another pixel by 128 of 255") as caught:
        CodedFrames(tmp_path / "frames")
    assert caught.value.cause == "codec_differs"


def test_a_board_without_the_codec_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(codec: Any) -> Any:
        raise CodecMissing("imagecodecs is not installed here")

    path = written(tmp_path)
    monkeypatch.setattr(codecs, "_imagecodecs", missing)
    with pytest.raises(RuntimeFault, match="not installed") as caught:
        CodedFrames(path)
    assert caught.value.cause == "codec_missing"


def test_a_file_that_is_none_is_a_bad_job(tmp_path: Path) -> None:
    path = written(tmp_path)
    for data in (b"", path.read_bytes()[:200], b"\x80\x04."):
        path.write_bytes(data)
        with pytest.raises(RuntimeFault) as caught:
            CodedFrames(path)
        assert caught.value.cause == "bad_job"


def test_images_need_their_stages(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFault, match="decode and resize"):
        Pipeline(Mean(), [{}], ["resize"], (1, 1), MonotonicClock(), CodedFrames(written(tmp_path)))  # type: ignore[arg-type]


def test_frames_of_more_than_eight_bits_keep_their_levels() -> None:
    for bits in (8, 12, 16):
        levels = np.random.default_rng(0).integers(0, 1 << bits, (9, 9))
        shades = (levels * (255.0 / ((1 << bits) - 1))).astype(np.float32)
        image, form = stored(shades)
        assert np.array_equal(image, levels)
        assert np.allclose(form.frame(image), shades, atol=1e-4) and form.frame(image).dtype == np.float32
    with pytest.raises(CodecError, match="no image"):
        stored(np.random.default_rng(0).random((9, 9)).astype(np.float32))
    with pytest.raises(ValueError, match="frames"):
        write_frames(Path("nowhere"), None, STEPS, [(b"", form, image)] * (MOST_FRAMES + 1))
