"""Segmentation metrics against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from edgedeploy.tasks.segmentation.metrics import SURFACE_TOLERANCE_PX, metric_table, segmentation_metrics

ONE = {"nerve": 1}
BOTH = {"nerve": 1, "vessel": 2}
Labels = npt.NDArray[np.uint8]


def square(top: int, left: int, side: int = 10, label: int = 1, size: tuple[int, int] = (64, 48)) -> Labels:
    labels = np.zeros(size, np.uint8)
    labels[top : top + side, left : left + side] = label
    return labels


def test_a_perfect_answer() -> None:
    truth = square(5, 5) + square(30, 20, label=2)
    assert segmentation_metrics(truth, truth, BOTH) == {
        "dice_mean": 1.0,
        "dice_nerve": 1.0,
        "dice_vessel": 1.0,
        "nsd_nerve": 1.0,
        "nsd_vessel": 1.0,
        "hd95_nerve_px": 0.0,
        "hd95_vessel_px": 0.0,
    }


def test_a_square_that_is_two_pixels_off() -> None:
    """80 of 100 pixels are shared; the two outer columns are 2 px apart, and that is within the tolerance."""
    found = segmentation_metrics(square(10, 12), square(10, 10), ONE)
    assert found["dice_nerve"] == pytest.approx(2 * 80 / 200)
    assert found["hd95_nerve_px"] == pytest.approx(2.0)
    assert found["nsd_nerve"] == pytest.approx(1.0)


def test_single_pixels_ten_apart() -> None:
    found = segmentation_metrics(square(20, 30, side=1), square(20, 20, side=1), ONE)
    assert found == {"dice_mean": 0.0, "dice_nerve": 0.0, "nsd_nerve": 0.0, "hd95_nerve_px": 10.0}


def test_surface_dice_counts_the_contour_within_the_tolerance() -> None:
    """Two one-pixel rows: 20 px of truth, of which the answer repeats 10; the other 10 leave the tolerance step by step."""
    truth, answer = np.zeros((40, 40), np.uint8), np.zeros((40, 40), np.uint8)
    truth[20, 5:25] = 1
    answer[20, 5:15] = 1
    within = 10 + int(SURFACE_TOLERANCE_PX)
    found = segmentation_metrics(answer, truth, ONE)
    assert found["nsd_nerve"] == pytest.approx((within + 10) / (20 + 10))
    assert found["dice_nerve"] == pytest.approx(2 * 10 / 30)


def test_hd95_forgives_a_stray_pixel_among_many() -> None:
    truth = square(10, 10, side=20)
    answer = truth.copy()
    answer[60, 45] = 1
    found = segmentation_metrics(answer, truth, ONE)
    assert found["hd95_nerve_px"] == pytest.approx(0.0)
    assert found["dice_nerve"] == pytest.approx(2 * 400 / 801)


@pytest.mark.parametrize(
    ("truth", "answer", "dice", "nsd", "hd95"),
    [
        (False, False, None, None, None),
        (False, True, 0.0, 0.0, None),
        (True, False, 0.0, 0.0, math.hypot(64, 48)),
        (True, True, 1.0, 1.0, 0.0),
    ],
)
def test_the_four_rules_of_empty_masks(
    truth: bool, answer: bool, dice: float | None, nsd: float | None, hd95: float | None
) -> None:
    drawn, empty = square(10, 10), np.zeros((64, 48), np.uint8)
    found = segmentation_metrics(drawn if answer else empty, drawn if truth else empty, ONE)
    assert (found["dice_nerve"], found["nsd_nerve"], found["hd95_nerve_px"]) == (dice, nsd, hd95)


def test_the_mean_leaves_out_classes_that_are_not_there() -> None:
    truth = square(10, 10)
    assert segmentation_metrics(square(10, 12), truth, BOTH)["dice_mean"] == pytest.approx(0.8)
    invented = square(10, 10) + square(40, 20, label=2)
    assert segmentation_metrics(invented, truth, BOTH)["dice_mean"] == pytest.approx(0.5)
    nothing = np.zeros_like(truth)
    assert segmentation_metrics(nothing, nothing, BOTH)["dice_mean"] is None


def test_one_class_does_not_count_for_another() -> None:
    found = segmentation_metrics(square(10, 10, label=2), square(10, 10), BOTH)
    assert (found["dice_nerve"], found["dice_vessel"]) == (0.0, 0.0)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # MONAI warns of its own internal calls
@pytest.mark.parametrize("seed", range(4))
def test_cutting_to_the_structures_changes_no_distance(seed: int) -> None:
    """Held against MONAI on whole maps, with structures that touch the picture's edge."""
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    truth, answer = (
        (gaussian_filter(rng.normal(size=(60, 70)), 4) > (0.06 if seed % 2 else 0.0)).astype(np.uint8) for _ in range(2)
    )
    found = segmentation_metrics(answer, truth, ONE)
    whole = [torch.from_numpy(mask)[None, None].float() for mask in (answer, truth)]
    nsd = compute_surface_dice(*whole, [SURFACE_TOLERANCE_PX], include_background=True)
    hd95 = compute_hausdorff_distance(*whole, include_background=True, percentile=95)
    assert found["nsd_nerve"] == pytest.approx(float(nsd))
    assert found["hd95_nerve_px"] == pytest.approx(float(hd95))


def test_no_answer_gives_anything_but_numbers_and_none() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        answer, truth = ((rng.random((2, 9, 7)) < rng.random()) * rng.integers(0, 3, (2, 9, 7))).astype(np.uint8)
        for name, value in segmentation_metrics(answer, truth, BOTH).items():
            assert value is None or math.isfinite(value), name


def test_the_table_names_exactly_what_is_returned() -> None:
    table = metric_table(BOTH)
    assert set(table) == set(segmentation_metrics(square(1, 1), square(1, 1), BOTH))
    assert {name: info.direction for name, info in table.items() if name.startswith("hd95")} == {
        "hd95_nerve_px": "minimize",
        "hd95_vessel_px": "minimize",
    }
    assert f"{SURFACE_TOLERANCE_PX:g} px" in table["nsd_nerve"].text
