"""Promptable segmentation: structures and the prompts that ask for them, the networks, the task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from promptable_kit import SMALL

from edgedeploy.errors import SpecError
from edgedeploy.interfaces.scores import Grouped
from edgedeploy.interfaces.task import Pictured, Task, Taught, baseline_arch
from edgedeploy.tasks.load import load_task
from edgedeploy.tasks.promptable.networks.cnn import maps
from edgedeploy.tasks.promptable.options import PromptableOptions
from edgedeploy.tasks.promptable.prompts import box_prompt, corners, point_prompt, structures
from edgedeploy.tasks.promptable.task import Promptable, build_network


@pytest.fixture(scope="module")
def task() -> Promptable:
    return Promptable(SMALL)


def disc(side: int, x: float, y: float, radius: float) -> Any:
    rows, columns = np.mgrid[0:side, 0:side]
    return np.hypot(columns - x, rows - y) < radius


# -- structures and prompts


def test_a_structure_is_a_connected_part_of_one_class() -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[disc(40, 8, 8, 5)] = 1
    labels[disc(40, 30, 8, 5)] = 1
    labels[disc(40, 12, 8, 3)] = 2
    labels[39, 39] = 2
    found = structures(labels, 0.005)
    assert [int(np.count_nonzero(mask)) for mask in found[1:]] == [
        np.count_nonzero(disc(40, 30, 8, 5)),
        np.count_nonzero(disc(40, 12, 8, 3)),
    ]
    assert len(structures(labels, 0.0)) == 4
    assert structures(np.zeros((8, 8), np.uint8), 0.1) == []


def test_a_box_lies_around_its_structure_as_exactly_as_people_draw() -> None:
    mask = np.zeros((100, 200), bool)
    mask[20:60, 50:90] = True
    rng = np.random.default_rng(0)
    boxes = np.array([box_prompt(mask, rng) for _ in range(200)])
    assert np.array_equal(boxes[0, :, 2:], [[0, 1, 0], [0, 0, 1]])
    sides = np.concatenate([boxes[:, 0, :2], boxes[:, 1, :2]], axis=1) * [200, 100, 200, 100]
    assert np.abs(sides - [50, 20, 90, 60]).max() <= 4.0
    assert np.abs(sides.mean(axis=0) - [50, 20, 90, 60]).max() < 0.5
    assert np.abs(sides - [50, 20, 90, 60]).max() > 3.0


def test_a_point_is_in_its_structure_even_where_its_middle_is_not() -> None:
    ring = disc(64, 32, 32, 28) & ~disc(64, 32, 32, 18)
    rng = np.random.default_rng(0)
    for prompt in (point_prompt(ring), *(point_prompt(ring, rng) for _ in range(50))):
        column, row = (prompt[0, :2] * 64).astype(int)
        assert ring[row, column]
        assert prompt[:, 2:].tolist() == [[1, 0, 0], [0, 0, 0]]
    square = np.zeros((21, 21), bool)
    square[5:16, 3:14] = True
    assert (point_prompt(square)[0, :2] * 21).tolist() == pytest.approx([8.5, 10.5])


def test_corners_are_in_the_image() -> None:
    point = np.array([[1.0, 0.0, 1, 0, 0], [0] * 5], np.float32)
    assert corners(point, (10, 20)) == (19, 0, 19, 1)
    box = np.array([[0.1, 0.2, 0, 1, 0], [1.0, 0.95, 0, 0, 1]], np.float32)
    assert corners(box, (10, 20)) == (2, 2, 19, 9)


# -- networks


@pytest.mark.parametrize("name", SMALL.networks)
def test_several_prompts_of_an_image_are_answered_as_each_alone(name: str) -> None:
    network = build_network(name, 1, SMALL).eval()
    images, prompts = torch.randn(2, 1, 32, 32), torch.rand(6, 2, 5)
    with torch.inference_mode():
        together = network(images, prompts)
        alone = torch.cat([network(images[i // 3 : i // 3 + 1], prompts[i : i + 1]) for i in range(6)])
    assert together.shape == (6, 2, 16, 16)
    assert torch.allclose(together, alone, atol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-4)


def test_the_empty_row_of_a_point_says_nothing_to_the_transformer() -> None:
    network = build_network("vit-1", 1, SMALL).eval()
    image = torch.randn(1, 1, 32, 32)
    point = torch.tensor([[[0.5, 0.5, 1, 0, 0], [0, 0, 0, 0, 0]]])
    other = torch.tensor([[[0.5, 0.5, 1, 0, 0], [0.9, 0.1, 0, 0, 0]]])
    with torch.inference_mode():
        assert torch.equal(network(image, point), network(image, other))


def test_the_same_weights_take_other_resolutions() -> None:
    network = build_network("vit-1", 1, SMALL).eval()
    with torch.inference_mode():
        assert network(torch.randn(1, 1, 64, 48), torch.rand(1, 2, 5)).shape == (1, 2, 32, 24)


def test_a_prompt_is_drawn_where_it_is() -> None:
    box = torch.tensor([[[0.25, 0.5, 0, 1, 0], [0.75, 1.0, 0, 0, 1]]])
    inside, nothing = maps(box, 8, 16)[0]
    wanted = torch.zeros(8, 16)
    wanted[4:, 4:12] = 1
    assert torch.equal(inside, wanted)
    assert nothing.abs().sum() == 0
    no_box, around = maps(torch.tensor([[[0.625, 0.25, 1, 0, 0], [0.0] * 5]]), 8, 16)[0]
    assert no_box.abs().sum() == 0
    assert divmod(int(around.argmax()), 16)[0] in (1, 2)
    assert divmod(int(around.argmax()), 16)[1] in (9, 10)


def test_the_transformer_as_shipped_has_10_to_30_million_parameters() -> None:
    with torch.device("meta"):
        sizes = [
            sum(p.numel() for p in build_network(f"vit-{n}", 1, PromptableOptions()).parameters()) for n in (6, 12)
        ]
    assert 10e6 < sizes[0] < sizes[1] < 30e6


def test_a_network_of_another_name_is_told() -> None:
    with pytest.raises(SpecError, match="vit-0"):
        build_network("vit-0", 1, SMALL)


# -- the task


def test_it_keeps_the_protocols(task: Promptable) -> None:
    assert all(isinstance(task, protocol) for protocol in (Task, Taught, Grouped, Pictured))
    assert baseline_arch(task) == {"resolution": 32, "network": "vit-1"}


def test_each_structure_is_a_case_for_each_kind_of_prompt(task: Promptable) -> None:
    cases = task.cases("selection")
    assert cases == task.cases("selection")
    boxes = [case for case in cases if case.id.endswith("-box")]
    assert 2 * len(boxes) == len(cases)
    assert len({task.group_of(case) for case in cases}) == 2
    arch = baseline_arch(task)
    for case in cases:
        inputs = task.inputs(case, **arch)
        assert {name: value.shape for name, value in inputs.items()} == {
            spec.name: spec.shape for spec in task.input_specs(**arch)
        }
        assert np.array_equal(inputs["prompt"], task.inputs(case, **arch)["prompt"])


def test_the_truth_scores_1_and_another_structure_little(task: Promptable) -> None:
    case = task.cases("selection")[0]
    truth = task.truth(case)
    right = np.where(truth, 5.0, -5.0).astype(np.float32)
    found = task.evaluate({"out": np.stack([-right, right])[None]}, case)
    assert (found["dice"], found["nsd"], found["hd95_px"], found["dice_box"], found["dice_point"]) == (1, 1, 0, 1, None)
    assert set(found) == set(task.metrics)
    assert task.evaluate({"out": np.stack([right, -right])[None]}, case)["dice"] == 0


def test_a_picture_shows_structure_and_prompt(task: Promptable) -> None:
    for case in task.cases("selection")[:2]:
        picture = task.picture(case, None)
        assert picture.shape == (*task.truth(case).shape, 3)
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3
        nothing = {"out": np.stack([np.ones((16, 16)), -np.ones((16, 16))])[None].astype(np.float32)}
        assert not np.array_equal(picture, task.picture(case, nothing))


def test_a_batch_asks_for_what_its_target_covers(task: Promptable) -> None:
    (images, prompts), target = next(iter(task.batches(0, 4, **baseline_arch(task))))
    again = next(iter(task.batches(0, 4, **baseline_arch(task))))
    assert torch.equal(prompts, again[0][1])
    assert len(prompts) == len(target) == SMALL.prompts_per_image * len(images)
    assert target.shape[1:] == (16, 16)
    for prompt, mask in zip(prompts.numpy(), target.numpy(), strict=True):
        left, top, right, bottom = corners(prompt, mask.shape)
        assert mask[top : bottom + 1, left : right + 1].max() == 1 or mask.max() < 1
    perfect = torch.stack([10 * (1 - 2 * target), 10 * (2 * target - 1)], dim=1)
    assert task.loss(perfect, target) < 0.5 < task.loss(-perfect, target)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"networks": ("vit",)}, "vit-N"),
        ({"teacher": "unet"}, "cnn-N"),
        ({"resolutions": (40,)}, "multiples of 16"),
        ({"patch": 7}, "4, 8, 16"),
        ({"heads": 3}, "multiple of 4"),
        ({"prompts": ("box", "text")}, "box, point"),
        ({"least_share": 0.0}, "share"),
        ({"network": "net.py:make"}, "networks"),
    ],
)
def test_options_that_fit_no_network_are_told(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(SMALL, **changes)


def test_structures_that_are_all_too_small_are_told(tmp_path: Path) -> None:
    options = {"image_size": 48, "least_share": 0.9, "selection_cases": 1}
    found = load_task({"kind": "promptable", "options": options}, tmp_path)
    with pytest.raises(Exception, match="Lower least_share"):
        found.cases("selection")
