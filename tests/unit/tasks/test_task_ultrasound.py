"""The embedded task: made-up ultrasound that is decided by its seed and can be learnt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgedeploy.compress.training import fit
from edgedeploy.interfaces.task import SPLITS, Pictured, Task, Trainable, TrainRecipe
from edgedeploy.tasks.options import read_options
from edgedeploy.tasks.segmentation.base import CONTOUR_COLOURS
from edgedeploy.tasks.segmentation.ultrasound import SyntheticUltrasound, UltrasoundOptions

SMALL = UltrasoundOptions(
    image_size=64,
    resolutions=(64, 32),
    depth=3,
    base_channels=8,
    train_cases=32,
    calibration_cases=4,
    selection_cases=12,
    confirmation_cases=4,
)
BASELINE = {"resolution": 64, "upsampling": "transposed"}


@pytest.fixture(scope="module")
def task() -> SyntheticUltrasound:
    return SyntheticUltrasound(SMALL)


def perfect(task: SyntheticUltrasound, case: Any, resolution: int | None = None) -> dict[str, np.ndarray]:
    """Logits that say the truth, at the size of the case or sampled at ``resolution``."""
    _, truth = task.load(case)
    if resolution is not None:
        step = len(truth) // resolution
        truth = truth[step // 2 :: step, step // 2 :: step]
    return {"logits": (10.0 * np.eye(3)[truth].transpose(2, 0, 1)[None]).astype(np.float32)}


def test_it_is_a_task_that_trains_and_shows_pictures(task: SyntheticUltrasound) -> None:
    assert isinstance(task, Task)
    assert isinstance(task, Trainable)
    assert isinstance(task, Pictured)


def test_splits_hold_what_the_options_say_and_share_no_picture(task: SyntheticUltrasound) -> None:
    assert [len(task.cases(split)) for split in SPLITS] == [32, 4, 12, 4]
    pictures = {task.load(case)[0].tobytes() for split in SPLITS for case in task.cases(split)}
    assert len(pictures) == 52


def test_the_seed_decides_every_case(task: SyntheticUltrasound) -> None:
    again, other = SyntheticUltrasound(SMALL), SyntheticUltrasound(read_options(type(SMALL), SMALL, {"seed": 1}, "o"))
    for split in SPLITS:
        last = task.cases(split)[-1]
        for mine, its in zip(task.load(last), again.load(last), strict=True):
            assert np.array_equal(mine, its)
        assert not np.array_equal(task.load(last)[0], other.load(last)[0])


def test_images_look_like_ultrasound(task: SyntheticUltrasound) -> None:
    """Speckle from pixel to pixel, vessels darker than what is around them, both structures in nearly every case."""
    seen = {1: 0, 2: 0}
    darker = []
    cases = task.cases("train")
    for case in cases:
        image, truth = task.load(case)
        assert image.dtype == truth.dtype == np.uint8
        assert image.shape == truth.shape == (64, 64)
        assert set(np.unique(truth)) <= {0, 1, 2}
        assert 0.002 < (truth > 0).mean() < 0.4
        assert (image == 255).mean() < 0.1
        assert np.abs(np.diff(image.astype(int), axis=1)).mean() > 3
        for label in seen:
            seen[label] += bool((truth == label).any())
        if (truth == 2).any():
            darker.append(image[truth == 2].mean() < image[truth == 0].mean())
    assert min(seen.values()) > 0.9 * len(cases)
    assert np.mean(darker) > 0.8


@pytest.mark.parametrize("resolution", [64, 32])
def test_inputs_are_what_the_specs_say(task: SyntheticUltrasound, resolution: int) -> None:
    arch = {"resolution": resolution, "upsampling": "resize"}
    (spec,) = task.input_specs(**arch)
    array = task.inputs(task.cases("selection")[0], **arch)[spec.name]
    assert (str(array.dtype), array.shape) == (spec.dtype, spec.shape)
    assert array.mean() == pytest.approx(0.0, abs=1e-4)
    assert array.std() == pytest.approx(1.0, abs=0.05)


def test_training_sees_inputs_scaled_as_at_inference(task: SyntheticUltrasound) -> None:
    images, _ = next(task.batches(0, 8, **BASELINE))
    assert float(images.mean(dim=(1, 2, 3)).abs().max()) < 1e-4
    assert float((images.std(dim=(1, 2, 3)) - 1).abs().max()) < 0.05


def test_batches_cover_the_split_once_and_are_decided_by_the_seed(task: SyntheticUltrasound) -> None:
    first, again, other = (list(task.batches(seed, 12, **BASELINE)) for seed in (1, 1, 2))
    assert [tuple(images.shape) for images, _ in first] == [(12, 1, 64, 64), (12, 1, 64, 64), (8, 1, 64, 64)]
    assert [tuple(labels.shape) for _, labels in first] == [(12, 64, 64), (12, 64, 64), (8, 64, 64)]
    for mine, its in zip(first, again, strict=True):
        assert all(bool((x == y).all()) for x, y in zip(mine, its, strict=True))
    assert not bool((first[0][0] == other[0][0]).all())


def test_labels_move_with_the_image_under_augmentation() -> None:
    """A bright square that is its own label: after any geometry, what is bright is still what is labelled."""
    import torch

    from edgedeploy.tasks.segmentation.augment import Augmentation, augment

    labels = torch.zeros(16, 64, 64, dtype=torch.long)
    labels[:, 20:40, 12:44] = 1
    strength = Augmentation(log_gamma=0.0, depth_gain=0.0, speckle=0.0)
    images, moved = augment(labels[:, None].float(), labels, strength, seed=0)
    assert bool((moved != labels).any(dim=2).any(dim=1).all())
    agree = ((images[:, 0] > 0.5) == (moved == 1)).float().mean(dim=(1, 2))
    assert float(agree.min()) > 0.98


def test_a_perfect_answer_scores_one_and_an_empty_one_zero(task: SyntheticUltrasound) -> None:
    case = next(c for c in task.cases("selection") if set(np.unique(task.load(c)[1])) == {0, 1, 2})
    best = task.evaluate(perfect(task, case), case)
    assert set(best) == set(task.metrics)
    assert (best["dice_mean"], best["nsd_nerve"], best["hd95_vessel_px"]) == (1.0, 1.0, 0.0)
    nothing = np.zeros((1, 3, 64, 64), np.float32)
    nothing[:, 0] = 1
    assert task.evaluate({"logits": nothing}, case)["dice_mean"] == 0.0


def test_a_coarser_answer_is_scored_at_the_size_of_the_mask(task: SyntheticUltrasound) -> None:
    case = next(c for c in task.cases("selection") if (task.load(c)[1] == 2).sum() > 80)
    coarse = task.evaluate(perfect(task, case, resolution=32), case)
    assert coarse["dice_vessel"] is not None
    assert 0.75 < coarse["dice_vessel"] < 1.0


def test_pictures_show_the_truth_or_the_answer(task: SyntheticUltrasound) -> None:
    case = next(c for c in task.cases("selection") if set(np.unique(task.load(c)[1])) == {0, 1, 2})
    truth = task.picture(case, None)
    assert (truth.shape, truth.dtype) == ((64, 64, 3), np.uint8)
    for colour, label in zip(CONTOUR_COLOURS, (1, 2), strict=False):
        drawn = (truth == colour).all(axis=2)
        assert drawn.any()
        assert (task.load(case)[1][drawn] == label).all()
    assert np.array_equal(task.picture(case, perfect(task, case)), truth)
    background = np.zeros((1, 3, 64, 64), np.float32)
    background[:, 0] = 1
    plain = task.picture(case, {"logits": background})
    assert np.array_equal(plain, np.repeat(task.load(case)[0][..., None], 3, axis=2))


def test_the_loss_prefers_the_truth(task: SyntheticUltrasound) -> None:
    import torch

    case = task.cases("selection")[0]
    right = torch.from_numpy(perfect(task, case)["logits"])
    target = torch.from_numpy(task.load(case)[1].astype(np.int64))[None]
    losses = [float(task.loss(logits, target)) for logits in (right, torch.zeros_like(right), -right)]
    assert losses == sorted(losses)
    assert losses[0] < 0.1


def test_a_short_training_beats_none(task: SyntheticUltrasound) -> None:
    import torch

    def dice(model: Any) -> float:
        scores = []
        for case in task.cases("selection"):
            with torch.no_grad():
                logits = model(torch.from_numpy(task.inputs(case, **BASELINE)["image"])).numpy()
            scores.append(task.evaluate({"logits": logits}, case)["dice_nerve"])
        return float(np.mean([score for score in scores if score is not None]))

    model = task.build(**BASELINE).eval()
    before = dice(model)
    fit(model, task, TrainRecipe(epochs=16, batch_size=4, learning_rate=5e-3), arch=BASELINE)
    assert dice(model) > before + 0.15


def test_the_two_recipes_differ_in_what_they_are_for() -> None:
    task = SyntheticUltrasound()
    assert task.recovery_recipe.distill_weight > 0 == task.baseline_recipe.distill_weight
    assert task.recovery_recipe.epochs < task.baseline_recipe.epochs
