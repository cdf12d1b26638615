"""Pre- and post-processing as data: the same numbers as the libraries whose conventions it writes down."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image

from edgedeploy.runtime.faults import BundleError
from edgedeploy.runtime.pipeline.resize import resized
from edgedeploy.runtime.pipeline.run import FrameError, finish, prepare
from edgedeploy.runtime.pipeline.steps import (
    AgainstZero,
    ArgMax,
    Clip,
    Crop,
    Grey,
    Normalise,
    Place,
    Resize,
    Restore,
    Rgb,
    Sigmoid,
    Softmax,
    Standardise,
    Steps,
    SwapRedBlue,
    Take,
    Threshold,
    ToTensor,
    check_steps,
    read_steps,
)

SIZES = [((37, 53), (16, 16)), ((37, 53), (64, 80)), ((100, 31), (33, 47)), ((1, 7), (5, 3)), ((300, 400), (96, 96))]
ROWS_FIRST = (100, 31)
"""To (33, 47): Pillow from 12 on does rows first where that is far less work, which rounds otherwise."""

PILLOW = {"box": Image.Resampling.BOX, "bilinear-antialias": Image.Resampling.BILINEAR}
TENSOR = ToTensor("image", "NCHW", "float32")
RNG = np.random.default_rng(0)


def grey(size: tuple[int, ...]) -> Any:
    return RNG.integers(0, 256, size, dtype=np.uint8)


@pytest.mark.parametrize("method", PILLOW)
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_antialiased_sizes_are_pillows_to_the_bit(method: str, old: tuple[int, int], new: tuple[int, int]) -> None:
    def pillow(values: Any) -> Any:
        return np.asarray(Image.fromarray(values).resize(new[::-1], PILLOW[method]))

    for values in (grey(old), grey((*old, 3)), (RNG.random(old) * 255).astype(np.float32)):
        found = resized(values, *new, method)
        assert found.dtype == values.dtype
        if old == ROWS_FIRST:
            assert np.allclose(found, pillow(values), rtol=0, atol=1 if values.dtype == np.uint8 else 1e-4)
        else:
            assert np.array_equal(found, pillow(values))


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_other_sizes_are_torchs(old: tuple[int, int], new: tuple[int, int]) -> None:
    values = RNG.standard_normal((3, *old)).astype(np.float32)
    batch = torch.from_numpy(values)[None]
    wanted = {
        "bilinear": F.interpolate(batch, size=new, mode="bilinear", align_corners=False),
        "area": F.interpolate(batch, size=new, mode="area"),
        "nearest": F.interpolate(batch, size=new, mode="nearest-exact"),
    }
    for method, tensor in wanted.items():
        atol = 5e-4 if method == "bilinear" else 1e-6  # torch computes its places in float32
        assert np.allclose(resized(values, *new, method, axes=(-2, -1)), tensor[0].numpy(), rtol=0, atol=atol), method


@pytest.mark.parametrize("method", ["bilinear", "box", "bilinear-antialias", "area"])
def test_a_row_of_a_million_pixels_becomes_a_few_and_a_few_become_a_million(method: str) -> None:
    long = (np.random.default_rng(1).random((1, 1 << 20)) * 255).astype(np.float32)
    for values in (long, long.astype(np.uint8)):
        found = resized(values, 1, 16, method)
        if method in PILLOW:
            assert np.array_equal(found, np.asarray(Image.fromarray(values).resize((16, 1), PILLOW[method])))
        elif method == "area":
            assert np.abs(found - values.reshape(16, -1).mean(axis=1)).max() < 1e-2
    grown = resized(long[:, :64], 1, 1 << 20, method)
    assert grown.shape == (1, 1 << 20)
    torchs = F.interpolate(torch.from_numpy(long[:, :64])[None], size=1 << 20, mode="linear")[0].numpy()
    nearest = np.repeat(long[:, :64], 1 << 14, axis=1)
    assert np.abs(grown - (torchs if method.startswith("bilinear") else nearest)).max() < 1e-3


def test_grey_is_pillows_to_the_bit() -> None:
    frame = grey((40, 50, 3))
    found, _ = prepare(Steps((Grey(), ToTensor("image", "NHWC", "uint8"))), frame)
    assert np.array_equal(found["image"][0, ..., 0], np.asarray(Image.fromarray(frame).convert("L")))


def test_a_frame_becomes_the_input_step_by_step() -> None:
    frame = grey((30, 20))
    before = frame.copy()
    steps = Steps(
        (
            Crop(2, 3, 16, 8),
            Rgb(),
            SwapRedBlue(),
            Resize(8, 8, "nearest"),
            Normalise(255, (0.5,), (0.1, 0.2, 0.3)),
            TENSOR,
        )
    )
    found, placement = prepare(steps, frame)
    assert found["image"].shape == (1, 3, 8, 8) and found["image"].dtype == np.float32
    # Rows of 16 become 8: the new value covers two old ones and takes the second, whose extent holds its centre.
    wanted = (frame[3:19:2, 3:11][None].repeat(3, 0) / 255 - 0.5) / np.array([0.1, 0.2, 0.3])[:, None, None]
    assert np.allclose(found["image"][0], wanted, atol=1e-5)
    assert (placement.top, placement.left, placement.height, placement.width) == (2, 3, 16, 8)
    assert np.array_equal(frame, before)


def test_each_frame_is_brought_to_unit_variance_channel_by_channel() -> None:
    found, _ = prepare(Steps((Standardise(255, 1e-9, 1), TENSOR)), grey((30, 20, 3)))
    assert np.allclose(found["image"].mean(axis=(2, 3)), 0, atol=1e-5)
    assert np.allclose(found["image"].std(axis=(2, 3), ddof=1), 1, atol=1e-4)


def test_a_whole_number_input_is_rounded_and_cut() -> None:
    frame = np.array([[0.5, 1.5, -3.0, 300.0]], np.float32)
    found, _ = prepare(Steps((ToTensor("x", "NCHW", "uint8"),)), frame)
    assert found["x"].ravel().tolist() == [0, 2, 0, 255]


def test_an_answer_is_brought_back_to_where_the_frame_was_cropped() -> None:
    steps = Steps(
        (Crop(10, 4, 20, 40), Resize(10, 10, "box"), TENSOR),
        (Take("logits"), Restore("bilinear"), ArgMax(), Place(7.0)),
    )
    logits = np.zeros((1, 3, 10, 10), np.float32)
    logits[0, 0] = 0.5
    logits[0, 2, :, 5:] = 1
    _, placement = prepare(steps, grey((64, 48)))
    result = finish(steps, {"logits": logits, "other": logits}, placement)
    assert result.shape == (64, 48) and result.dtype == np.uint8
    assert (result[10:30, 24:44] == 2).all() and (result[10:30, 4:24] == 0).all()
    result[10:30, 4:44] = 7
    assert (result == 7).all()


def test_chances_and_thresholds() -> None:
    logits = np.array([[800.0, -800.0, 0.0]], np.float32)
    chances = finish(Steps((), (Take("y"), Softmax())), {"y": logits}, None)
    assert np.allclose(chances, [1, 0, 0]) and np.isclose(chances.sum(), 1)
    assert finish(Steps((), (Take("y"), Sigmoid())), {"y": logits}, None).tolist() == [1, 0, 0.5]
    assert finish(Steps((), (Take("y"), Sigmoid(), Threshold(0.4))), {"y": logits}, None).tolist() == [1, 0, 1]
    assert finish(Steps((), (Take("y"), Clip(-1, 1))), {"y": logits}, None).tolist() == [1, -1, 0]
    one = {"y": np.array([[2.0]], np.float32)}
    assert finish(Steps((), (Take("y"), AgainstZero("after"))), one, None).tolist() == [2, 0]
    assert finish(Steps((), (Take("y"), AgainstZero("before"), ArgMax())), one, None) == 1


WHOLE = Steps(
    (Crop(0, 0, 8, 8), Grey(), Resize(4, 4, "area"), Normalise(255, (0.5,), (0.5,)), TENSOR),
    (Take("y"), Restore("nearest"), AgainstZero("before"), Softmax(), ArgMax(), Place(0)),
)


def test_steps_are_written_and_read_again() -> None:
    data = WHOLE.as_json()
    assert read_steps(data["input"], data["output"]) == WHOLE
    assert data["input"][0] == {"step": "crop", "top": 0, "left": 0, "height": 8, "width": 8}


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"step": "blur"}, "'blur' is none of crop"),
        ({"step": ["grey"]}, "is none of"),
        ({"step": "grey", "more": 1}, "'more' is unknown"),
        ({"step": "resize", "height": 4, "width": 4}, "'method' is missing"),
        ({"step": "resize", "height": 4, "width": 4, "method": "cubic"}, "method is one of nearest"),
        ({"step": "resize", "height": 0, "width": 4, "method": "box"}, "sides are 1 to"),
        ({"step": "resize", "height": 10**9, "width": 4, "method": "box"}, "sides are 1 to"),
        ({"step": "normalise", "divide": 255, "mean": [0.5], "std": [0.0]}, "std is above 0"),
        ({"step": "normalise", "divide": 255, "mean": [], "std": []}, "mean and std"),
        ({"step": "normalise", "divide": "255", "mean": [1], "std": [1]}, "expected a finite float"),
        ({"step": "standardise", "divide": 0, "epsilon": 1e-3, "ddof": 1}, "divide is above 0"),
        ({"step": "tensor", "input": "x", "layout": "NCHW", "dtype": "float32"}, "the only 'tensor'"),
    ],
)
def test_steps_that_cannot_be_run_are_refused(step: dict[str, Any], said: str) -> None:
    with pytest.raises(BundleError) as caught:
        read_steps([step, {"step": "tensor", "input": "x", "layout": "NCHW", "dtype": "float32"}], [])
    assert caught.value.reason == "malformed" and said in caught.value.message


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (Steps((Grey(),)), "end with the only 'tensor'"),
        (Steps((TENSOR,), (ArgMax(), Take("y"))), "begin with the only 'take'"),
        (Steps((), (Take("y"), Restore("nearest"))), "need steps for the input"),
        (Steps((Resize(4, 4, "box"), Crop(0, 0, 2, 2), TENSOR)), "before any 'resize'"),
        (Steps((Grey(),) * 40 + (TENSOR,)), "more than 32"),
    ],
)
def test_steps_in_an_order_that_gives_nothing_are_refused(steps: Steps, said: str) -> None:
    with pytest.raises(BundleError, match=said):
        check_steps(steps)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        ([[1]], "got list"),
        (np.zeros((8, 8)), "array of float64"),
        (np.zeros((8, 8, 4), np.uint8), r"got \(8, 8, 4\)"),
        (np.zeros((0, 8), np.uint8), "1 to 64000000 pixels"),
        (np.full((8, 8), np.nan, np.float32), "NaN"),
        (np.zeros((8, 7), np.uint8), "at least 8 x 8 pixels"),
    ],
)
def test_a_frame_that_is_none_is_refused(frame: Any, said: str) -> None:
    with pytest.raises(FrameError, match=said):
        prepare(WHOLE, frame)


def test_outputs_of_another_network_are_refused() -> None:
    _, placement = prepare(WHOLE, grey((8, 8)))
    for outputs, said in (
        ({"z": np.zeros((1, 1, 4, 4), np.float32)}, "expected an output 'y', but got z"),
        ({"y": np.zeros((2, 1, 4, 4), np.float32)}, "of batch 1"),
        ({"y": np.zeros((1, 3, 4, 4), np.float32)}, "one channel here"),
        ({"y": np.full((1, 1, 4, 4), np.inf, np.float32)}, "finite"),
    ):
        with pytest.raises(FrameError, match=said):
            finish(WHOLE, outputs, placement)
