"""The training loop, on a task small enough to train within a second."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from edgedeploy.compress.distillation import distillation_loss
from edgedeploy.compress.oversight import Oversight, TrainProgress
from edgedeploy.compress.training import fit
from edgedeploy.errors import BuildError, DataError
from edgedeploy.interfaces.task import TrainRecipe

RECIPE = TrainRecipe(epochs=6, batch_size=8, learning_rate=0.02)


class Threshold:
    """Two classes of pixels: brighter than 0 or not. ``flip`` swaps what the labels say."""

    baseline_recipe = recovery_recipe = RECIPE

    def __init__(self, *, count: int = 48, flip: bool = False, scale: float = 1.0) -> None:
        self.count, self.flip, self.scale = count, flip, scale

    def batches(self, seed: int, batch_size: int, **arch: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(self.count // batch_size):
            images = torch.randn(batch_size, 1, 8, 8, generator=generator)
            labels = (images[:, 0] > 0).long()
            yield images, 1 - labels if self.flip else labels

    def loss(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.scale * nn.functional.cross_entropy(outputs, target)


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1)
        )


def accuracy(model: nn.Module) -> float:
    images, labels = next(Threshold().batches(seed=999, batch_size=32))
    with torch.no_grad():
        return float((model.eval()(images).argmax(1) == labels).float().mean())


def weights_differ(a: nn.Module, b: nn.Module) -> bool:
    return any(not torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("bfloat16", [False, True])
def test_training_learns_the_task_and_reports_what_it_did(bfloat16: bool) -> None:
    model, states = network(), list[TrainProgress]()
    before = accuracy(model)
    report = fit(
        model, Threshold(), replace(RECIPE, bfloat16=bfloat16), arch={}, oversight=Oversight(progress=states.append)
    )

    assert accuracy(model) > max(0.9, before)
    assert not model.training
    assert [(state.epoch, state.epochs) for state in states] == [(epoch, 6) for epoch in range(1, 7)]
    assert states[-1].loss < states[0].loss
    assert (report.epochs, report.steps, report.final_loss) == (6, 36, states[-1].loss)
    assert report.wall_s > 0


def test_weights_stay_float32_after_training_in_bfloat16() -> None:
    model = network()
    fit(model, Threshold(), replace(RECIPE, bfloat16=True, epochs=1), arch={})
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_seed_decides_the_result() -> None:
    first, again, other = network(), network(), network()
    fit(first, Threshold(), replace(RECIPE, seed=5), arch={})
    fit(again, Threshold(), replace(RECIPE, seed=5), arch={})
    fit(other, Threshold(), replace(RECIPE, seed=6), arch={})
    assert not weights_differ(first, again)
    assert weights_differ(first, other)


def test_every_epoch_sees_other_batches() -> None:
    seeds: list[int] = []

    class Listening(Threshold):
        def batches(self, seed: int, batch_size: int, **arch: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            seeds.append(seed)
            assert (batch_size, arch) == (8, {"resolution": 8})
            return super().batches(seed, batch_size)

    for recipe_seed in (0, 1):
        fit(network(), Listening(), replace(RECIPE, seed=recipe_seed), arch={"resolution": 8})
    assert len(set(seeds)) == 2 * RECIPE.epochs


def test_the_first_epochs_may_see_another_architecture() -> None:
    seen = []

    class Listening(Threshold):
        def batches(self, seed: int, batch_size: int, **arch: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            seen.append(arch)
            return super().batches(seed, batch_size, **arch)

    early = replace(RECIPE, epochs=3, early_epochs=2, early_arch={"resolution": 4})
    fit(network(), Listening(), early, arch={"resolution": 8, "kind": "a"})
    assert seen == [{"resolution": 4, "kind": "a"}] * 2 + [{"resolution": 8, "kind": "a"}]


def test_the_learning_rate_warms_up_and_ends_near_zero() -> None:
    """Plain gradient steps cannot be seen through AdamW, so the optimiser's own rate is read at each step."""
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def listening(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", listening)
        fit(network(), Threshold(), replace(RECIPE, epochs=10, warmup_epochs=2.0), arch={})
    peak = rates.index(max(rates))
    assert rates[0] < 0.1 * RECIPE.learning_rate
    assert peak == 12  # 2 epochs of 6 steps
    assert max(rates) == pytest.approx(RECIPE.learning_rate)
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 0.02 * RECIPE.learning_rate


@pytest.mark.parametrize("scale", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_a_build_error_that_says_when(scale: float) -> None:
    with pytest.raises(BuildError, match=r"epoch 1.*Lower learning_rate"):
        fit(network(), Threshold(scale=scale), RECIPE, arch={})


def test_a_train_split_without_a_batch_is_a_data_error() -> None:
    with pytest.raises(DataError, match="no batch at batch_size 8"):
        fit(network(), Threshold(count=4), RECIPE, arch={})


def test_a_student_follows_its_teacher_rather_than_the_labels() -> None:
    teacher = network(seed=1)
    fit(teacher, Threshold(), RECIPE, arch={})
    misled, taught = network(seed=2), network(seed=2)
    fit(misled, Threshold(flip=True), RECIPE, arch={})
    fit(taught, Threshold(flip=True), replace(RECIPE, distill_weight=1.0), arch={}, teacher=teacher)
    assert accuracy(misled) < 0.2
    assert accuracy(taught) > 0.8


def test_the_teacher_is_not_changed_even_when_it_comes_in_training_mode() -> None:
    teacher = network(seed=1).train()
    before = copy.deepcopy(teacher)
    fit(network(), Threshold(), replace(RECIPE, distill_weight=0.5), arch={}, teacher=teacher)
    assert not weights_differ(teacher, before)
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_without_distill_weight_the_teacher_has_no_say() -> None:
    alone, beside = network(), network()
    fit(alone, Threshold(), RECIPE, arch={})
    fit(beside, Threshold(), RECIPE, arch={}, teacher=network(seed=9))
    assert not weights_differ(alone, beside)


def test_models_of_vectors_train_too() -> None:
    class Sign(Threshold):
        def batches(self, seed: int, batch_size: int, **arch: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            for images, labels in super().batches(seed, batch_size):
                yield images[:, 0, 0], labels[:, 0, 0]

    torch.manual_seed(0)  # whatever ran before
    report = fit(nn.Linear(8, 2), Sign(), replace(RECIPE, epochs=40), arch={})
    assert report.final_loss < 0.3  # it is near .21; after 20 epochs some first weights were at .2999


def test_distillation_of_two_classes_by_hand() -> None:
    """At T = 2 the teacher says 3/4 : 1/4 and the student 1/2 : 1/2; KL = 3/4 ln(3/2) + 1/4 ln(1/2), times T^2."""
    student = torch.zeros(1, 2, 3, 3)
    teacher = torch.zeros(1, 2, 3, 3)
    teacher[:, 0] = 2 * math.log(3)
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert float(distillation_loss(student, teacher)) == pytest.approx(expected, rel=1e-5)
    assert float(distillation_loss(teacher, teacher)) == pytest.approx(0.0, abs=1e-6)


def test_distillation_of_one_channel_compares_the_values() -> None:
    assert float(distillation_loss(torch.zeros(2, 1, 4, 4), torch.full((2, 1, 4, 4), 3.0))) == pytest.approx(9.0)
