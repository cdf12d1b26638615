"""Image to image without code: folders of pairs, splits, training, and metrics at the target's own size."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import picture_kit
import pytest
import torch

from edgedeploy import Grouped, Pictured, Task, Trainable, TrainRecipe
from edgedeploy.compress.training import fit
from edgedeploy.errors import DataError, SpecError
from edgedeploy.interfaces.task import SPLITS
from edgedeploy.tasks.image_to_image import ImageToImage, image_metrics
from edgedeploy.tasks.load import load_task

SMALL = {"resolutions": [16], "base_channels": 4, "depth": 2}
ARCH = {"resolution": 16, "upsampling": "transposed"}


def load(root: Path, **options: Any) -> ImageToImage:
    task = load_task({"kind": "image-to-image", "options": {"root": str(root), **SMALL, **options}}, root.parent)
    assert isinstance(task, ImageToImage)
    return task


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_kit.noisy_pairs(tmp_path_factory.mktemp("pairs"))


def test_pairs_train_score_and_show(pairs: Path) -> None:
    task = load(pairs)
    for protocol in (Task, Trainable, Grouped, Pictured):
        assert isinstance(task, protocol)
    assert [len(task.cases(split)) for split in SPLITS] == [15, 3, 6, 6]
    model = task.build(**ARCH)
    fit(model, task, TrainRecipe(epochs=1, batch_size=8, learning_rate=1e-3), arch=ARCH)
    case = task.cases("selection")[0]
    with torch.no_grad():
        answer = {"y": model(torch.from_numpy(task.inputs(case, **ARCH)["image"])).numpy()}
    found = task.evaluate(answer, case)
    assert set(found) == set(task.metrics)
    assert found["psnr_db"] is not None and 5 < found["psnr_db"] < 40
    truth = task.truth(case)
    assert task.picture(case, None).shape == (truth.shape[1], 2 * truth.shape[2], 3)
    assert (task.picture(case, answer) != task.picture(case, None)).any()


def test_a_model_starts_from_its_input(pairs: Path) -> None:
    """With ``residual`` the answer is the input plus what is learned: a network of zeros answers the input."""
    task = load(pairs)
    model = task.build(**ARCH).eval()
    torch.nn.init.zeros_(model.network.head.weight)
    torch.nn.init.zeros_(model.network.head.bias)
    image = torch.from_numpy(task.inputs(task.cases("selection")[0], **ARCH)["image"])
    assert torch.equal(model(image), image)


def test_truth_turns_with_the_image(pairs: Path) -> None:
    """Input and target of equal files stay equal under augmentation."""
    root = pairs.parent / "equal"
    for number in range(12):
        for side in ("input", "target"):
            picture_kit.save(root / side / f"{number}.png", picture_kit.striped(500 + number, True))
    task = load(root, rotation_deg=20.0)
    images, targets = next(task.batches(3, 4, **ARCH))
    assert torch.allclose(images, targets, atol=1e-5)
    assert images.shape == targets.shape == (4, 1, 16, 16)


def test_metrics_by_hand() -> None:
    truth = np.full((1, 16, 16), 0.5, np.float32)
    found = image_metrics(truth + np.float32(0.1), truth)
    assert found["mae"] == pytest.approx(0.1, rel=1e-5)
    assert found["psnr_db"] == pytest.approx(-20 * math.log10(0.1), rel=1e-4)
    equal = image_metrics(truth, truth)
    assert (equal["psnr_db"], equal["mae"], equal["rmse"]) == (100.0, 0.0, 0.0)
    uneven = image_metrics(truth + np.float32(0.1) * np.eye(16, dtype=np.float32), truth)
    assert uneven["rmse"] == pytest.approx(0.1 / 4, rel=1e-5)
    assert uneven["mae"] == pytest.approx(0.1 / 16, rel=1e-5)
    assert equal["ssim"] == pytest.approx(1.0)
    assert image_metrics(truth[:, :8], truth[:, :8])["ssim"] is None


def test_groups_and_named_splits(tmp_path: Path) -> None:
    picture_kit.noisy_pairs(tmp_path / "train", 20)
    picture_kit.noisy_pairs(tmp_path / "test", 4, first=100)
    rows = [f"train/input/{n:03d}.png,p{n // 4}" for n in range(20)] + [
        f"test/input/{n}.png,q" for n in range(100, 104)
    ]
    (tmp_path / "groups.csv").write_text("\n".join(["image,group", *rows]))
    task = load(tmp_path, groups="groups.csv")
    assert len(task.cases("confirmation")) == 4
    sides = [{task.group_of(case) for case in task.cases(split)} for split in SPLITS]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 6


def test_half_a_pair_is_named(tmp_path: Path) -> None:
    picture_kit.noisy_pairs(tmp_path, 4)
    (tmp_path / "target" / "002.png").unlink()
    with pytest.raises(DataError, match="002 is in input alone"):
        load(tmp_path)


def test_a_folder_without_pairs_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder at .*input"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolutions": [18]}, "multiples of 4"),
        ({"intensity": "image"}, 'intensity is "fixed"'),
        ({"value_range": "raw"}, "black 0 to white 1"),
    ],
)
def test_options_that_are_wrong(pairs: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load(pairs, **options)
