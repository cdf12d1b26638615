"""The real data set: it validates as it is, and its splits do not leak."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgedeploy.interfaces.task import SPLITS, Split
from edgedeploy.tasks.segmentation.folder import FolderOptions, SegmentationFolder
from edgedeploy.tasks.segmentation.splits import near_copies, thumbnail

pytestmark = [pytest.mark.shared, pytest.mark.beside]


@pytest.fixture(scope="module")
def task(shared: Path) -> SegmentationFolder:
    root = shared / "data" / "usgra-seg" / "dataset"
    if not root.is_dir():
        pytest.skip(f"no usgra-seg data set at {root}")
    return SegmentationFolder(FolderOptions(root=str(root)), Path())


def names(task: SegmentationFolder, split: Split) -> set[str]:
    return {case.id.rpartition("/")[2] for case in task.cases(split)}


def test_every_file_is_usable_and_has_its_place(task: SegmentationFolder) -> None:
    counts = {split: len(task.cases(split)) for split in SPLITS}
    assert (counts["calibration"], counts["selection"], counts["confirmation"]) == (10, 28, 40)
    # 204 files, one of them a copy, and those too close to a confirmation image
    assert counts["train"] + 10 + 28 + len(task.left_out) == 203


def test_splits_are_disjoint_and_the_copy_is_in_one_of_them(task: SegmentationFolder) -> None:
    everything = [name for split in SPLITS for name in names(task, split)]
    assert len(everything) == len(set(everything))
    assert len({"0043", "0077"} & set(everything)) == 1


@pytest.mark.parametrize("pair", [("0055", "0058"), ("0021", "0104"), ("0003", "0050"), ("0025", "0116")])
def test_frames_of_one_view_stay_together(task: SegmentationFolder, pair: tuple[str, str]) -> None:
    places = {split for split in SPLITS for name in pair if name in names(task, split)}
    assert len(places) == 1


def test_no_picture_of_the_confirmation_split_was_seen_before(task: SegmentationFolder) -> None:
    cases = [case for split in SPLITS for case in task.cases(split)]
    groups = near_copies([thumbnail(task.load(case)[0]) for case in cases], FolderOptions().near_copy_correlation)
    held_out = {group for group, case in zip(groups, cases, strict=True) if case.split == "confirmation"}
    assert not held_out & {group for group, case in zip(groups, cases, strict=True) if case.split != "confirmation"}
    assert {"0034", "0002", "0011", "0112"} <= set(task.left_out)  # next frames of confirmation images


def test_both_structures_are_in_every_split(task: SegmentationFolder) -> None:
    for split in SPLITS:
        held = [set(np.unique(task.load(case)[1]).tolist()) for case in task.cases(split)]
        assert all(labels <= {0, 1, 2} for labels in held)
        assert sum(1 in labels for labels in held) == len(held)
        assert sum(2 in labels for labels in held) > 0.5 * len(held)


def test_a_case_of_every_size_can_be_fed_scored_and_shown(task: SegmentationFolder) -> None:
    by_size = {task.load(case)[1].shape: case for case in task.cases("train")}
    assert set(by_size) == {(512, 534), (512, 512), (632, 761)}
    for size, case in by_size.items():
        assert task.inputs(case, resolution=160)["image"].shape == (1, 1, 160, 160)
        truth = task.load(case)[1]
        logits = np.eye(3, dtype=np.float32)[truth].transpose(2, 0, 1)[None]
        assert task.evaluate({"logits": logits}, case)["dice_mean"] == 1.0
        assert task.picture(case, None).shape == (*size, 3)
