"""What a study may state of a folder of images and masks: groups, strata, a network, colours and intensities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mask_folders import COUNTS, fill, load, logits_of, mask, names, picture, put
from picture_kit import save
from PIL import Image

from edgedeploy.errors import DataError, SpecError
from edgedeploy.interfaces.task import SPLITS
from edgedeploy.tasks.classification import ClassificationOptions
from edgedeploy.tasks.load import load_task
from edgedeploy.tasks.options import read_options
from edgedeploy.tasks.segmentation.folder import FolderOptions


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fill(tmp_path)


# -- groups and strata


def patients(root: Path, table: dict[str, str]) -> None:
    lines = ["image,group", *(f"{name},{group}" for name, group in table.items())]
    (root / "patients.csv").write_text("\n".join(lines) + "\n")


def test_images_of_a_patient_are_on_one_side(root: Path) -> None:
    patients(root, {f"images/{n:04d}.png": f"p{n // 3}" for n in range(24)})
    task = load(root, groups="patients.csv")
    sides = [{task.group_of(case) for case in task.cases(split)} for split in SPLITS[:3]]
    assert [len(task.cases(split)) for split in SPLITS] == [15, 3, 6, 5]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 8
    assert task.group_of(task.cases("confirmation")[0]) == task.cases("confirmation")[0].id


def test_a_patient_of_the_confirmation_split_is_left_out_of_the_search(root: Path) -> None:
    patients(root, {"images/0003.png": "p", "images/0004.png": "p", "test/images/0100.png": "p"})
    assert load(root, groups="patients.csv").left_out == ("0003", "0004")


def test_strata_bring_rare_structures_into_every_split(root: Path) -> None:
    for number in range(24):
        values = mask((48, 60) if number % 3 else (70, 50), vessel=2 if number % 4 == 0 else 0)
        put(root, ".", f"{number:04d}", picture(number, (48, 60) if number % 3 else (70, 50)), values)
    task = load(root, stratified=True)
    shares = {split: [bool((task.load(case)[1] == 2).any()) for case in task.cases(split)] for split in SPLITS[:3]}
    assert {split: len(found) for split, found in shares.items()} == {"train": 14, "calibration": 4, "selection": 6}
    assert {split: sum(found) for split, found in shares.items()} == {"train": 3, "calibration": 1, "selection": 2}


def test_a_network_of_ones_own_takes_the_place_of_the_unet(root: Path) -> None:
    (root / "nets.py").write_text(
        "import torch\ndef make(out_channels): return torch.nn.Conv2d(1, out_channels, 3, padding=1)\n"
    )
    options = {"root": str(root), **COUNTS, "network": "nets.py:make"}
    task = load_task({"kind": "segmentation-folder", "options": options}, root)
    assert task.architecture == {"resolution": (64,)}
    assert task.build(resolution=64).weight.shape == (3, 1, 3, 3)


def test_a_single_logit_is_that_of_the_only_class(root: Path) -> None:
    for path in (*(root / "masks").iterdir(), *(root / "test" / "masks").iterdir()):
        save(path, (np.asarray(Image.open(path)) > 0).astype(np.uint8))
    task = load(root, classes={"nerve": 1})
    case = task.cases("selection")[0]
    truth = task.load(case)[1]
    one = {"y": np.where(truth, 3.0, -3.0).astype(np.float32)[None, None]}
    assert task.evaluate(one, case)["dice_mean"] == 1.0
    target = torch.from_numpy(truth[None]).long()
    logits = torch.from_numpy(one["y"])
    both = torch.cat([torch.zeros_like(logits), logits], dim=1)
    assert task.loss(logits, target).item() == pytest.approx(task.loss(both, target).item())
    with pytest.raises(
        SpecError, match=r"of \(1, 1 or 2, \.\.\.\): its shape is \(1, 3, 48, 60\)|its shape is \(1, 3, 70, 50\)"
    ):
        task.evaluate(logits_of(truth), case)
    with pytest.raises(SpecError, match=r"of \(1, 3, \.\.\.\): its shape is \(1, 1, "):
        load(root).evaluate(one, case)


def test_colour_images_and_the_preprocessing_of_elsewhere(root: Path) -> None:
    rng = np.random.default_rng(0)
    for place in (root, root / "test"):
        for path in (place / "images").iterdir():
            grey = np.asarray(Image.open(path)).astype(np.uint16)
            save(path, np.stack([grey, grey // 2, (grey + rng.integers(0, 9)) % 256], axis=2).astype(np.uint8))
    means, stds = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    task = load(root, colour="rgb", intensity="fixed", mean=means, std=stds)
    case = task.cases("selection")[0]
    image, truth = task.load(case)
    assert image.shape == (*truth.shape, 3)
    assert task.input_specs(resolution=64)[0].shape == (1, 3, 64, 64)
    small = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BOX)).astype(np.float32)
    wanted = ((small / 255 - means) / stds).transpose(2, 0, 1)[None]
    assert task.inputs(case, resolution=64)["image"] == pytest.approx(wanted, abs=1e-5)
    assert task.picture(case, None).shape == image.shape
    images, target = next(task.batches(0, 4, resolution=64))
    assert images.shape == (4, 3, 64, 64)
    model = task.build(resolution=64, upsampling="resize")
    assert bool(task.loss(model(images), target).isfinite())
    each = load(root, colour="rgb").inputs(case, resolution=64)["image"]
    assert each.mean(axis=(2, 3)) == pytest.approx(np.zeros((1, 3)), abs=1e-5)
    assert {s: names(task, s) for s in SPLITS} == {s: names(load(root), s) for s in SPLITS}, "colours decide no split"


def test_counts_that_leave_nothing_to_train_on_are_named(root: Path) -> None:
    with pytest.raises(DataError, match=r"selection_cases \(now 20\) and calibration_cases \(4\)"):
        load(root, selection_cases=20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": [51.0]}, r"mean is of pixels from 0 to 1, but got 51\.0: of pixels to 255 .* 51\.0 / 255 = 0\.2$"),
        ({"std": [58.4]}, r"std is of pixels from 0 to 1, but got 58\.4: .* 58\.4 / 255 = 0\.229$"),
        ({"mean": [-0.5]}, r"mean is of pixels from 0 to 1, but got -0\.5$"),
        ({"std": [0.0]}, r"std must be positive, but got 0\.0"),
        ({"mean": [0.1, 0.2, 0.3]}, "one for each of 1 channels"),
        ({"colour": "gray"}, "colour is grey or rgb"),
    ],
)
@pytest.mark.parametrize("kind", [FolderOptions, ClassificationOptions], ids=lambda kind: kind.__name__)
def test_fixed_intensities_are_of_pixels_from_0_to_1(kind: type, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        read_options(kind, kind(), {"intensity": "fixed", **options}, "task.options")
    own_numbers = {"intensity": "fixed", "value_range": "raw", "mean": [51.0], "std": [20.0]}
    assert read_options(kind, kind(), own_numbers, "task.options").mean == (51.0,)
