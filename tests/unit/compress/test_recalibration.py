"""Batch norms that are measured again, on the task that trains in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from edges_task import Edges, TrainableEdges, loss_of, variant
from torch import nn

from edgedeploy.compress.model import derive, train_baseline
from edgedeploy.compress.recalibration import recalibrate
from edgedeploy.errors import BuildError, DataError
from edgedeploy.records.variant import Scalar
from edgedeploy.reference.copies import copied

ARCH: dict[str, Scalar] = {"size": 16, "mix": "wide"}


class NormedEdges(TrainableEdges):
    """With a batch norm behind the layer that pruning narrows the inputs of."""

    def build(self, **arch: Scalar) -> nn.Module:
        layers = list(super().build(**arch))
        return nn.Sequential(*layers[:4], nn.BatchNorm2d(16), nn.Dropout(0.5), *layers[4:])


@pytest.fixture(scope="module")
def task() -> NormedEdges:
    return NormedEdges()


@pytest.fixture(scope="module")
def baseline(task: NormedEdges) -> nn.Module:
    return train_baseline(task, ARCH)


@pytest.fixture(scope="module")
def pruned(baseline: nn.Module) -> nn.Module:
    """In one shot, which a task without training is given."""

    class Still(Edges):
        def build(self, **arch: Scalar) -> nn.Module:
            return NormedEdges().build(**arch)

    return derive(Still(), variant(width=0.5), baseline)


def norms_of(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def test_statistics_are_the_mean_over_the_batches(task: NormedEdges, baseline: nn.Module) -> None:
    model = recalibrate(copied(baseline), task, ARCH, 6, seed=5)
    batches = [x for epoch in (5, 6) for x, _ in task.batches(epoch, 8, **ARCH)][:6]  # an epoch has four
    first, _ = norms_of(model)
    with torch.inference_mode():
        seen = [model[0](x) for x in batches]
    assert torch.allclose(first.running_mean, torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0), atol=1e-6)
    assert torch.allclose(first.running_var, torch.stack([x.var((0, 2, 3)) for x in seen]).mean(0), rtol=1e-4)


def test_a_pruned_model_loses_less(task: NormedEdges, pruned: nn.Module) -> None:
    before = loss_of(task, pruned)
    assert loss_of(task, recalibrate(copied(pruned), task, ARCH, 16, seed=0)) < before


def test_weights_modes_and_momenta_stay(task: NormedEdges, pruned: nn.Module) -> None:
    model = recalibrate(copied(pruned).train(), task, ARCH, 4, seed=0)
    old, new = dict(pruned.named_parameters()), dict(model.named_parameters())
    assert all(torch.equal(old[name], new[name]) for name in old)
    assert not any(module.training for module in model.modules())
    assert [norm.momentum for norm in norms_of(model)] == [0.1, 0.1]
    loss = task.loss(model(torch.randn(2, 1, 16, 16)), torch.zeros(2, 16, 16, dtype=torch.long))
    loss.backward()  # what is measured can be trained


def test_nothing_is_random_and_the_random_state_stays(task: NormedEdges, pruned: nn.Module) -> None:
    class Noisy(NormedEdges):
        """Draws from torch's own random state."""

        def batches(self, seed: int, batch_size: int, **arch: Scalar) -> Iterator[tuple[Any, Any]]:
            for image, target in super().batches(seed, batch_size, **arch):
                yield image + 0.1 * torch.randn_like(image), target

    state = torch.get_rng_state()
    first = recalibrate(copied(pruned), Noisy(), ARCH, 4, seed=0).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1234)
    second = recalibrate(copied(pruned), Noisy(), ARCH, 4, seed=0).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = recalibrate(copied(pruned), Noisy(), ARCH, 4, seed=1).state_dict()
    assert not torch.equal(first["1.running_mean"], other["1.running_mean"])


def test_a_model_without_batch_norms_sees_no_batch(task: NormedEdges) -> None:
    class Silent(NormedEdges):
        def batches(self, seed: int, batch_size: int, **arch: Scalar) -> Iterator[tuple[Any, Any]]:
            raise AssertionError("a batch was asked for")

    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    recalibrate(model, Silent(), ARCH, 4, seed=0)
    with pytest.raises(Exception, match="a batch was asked for"):
        recalibrate(task.build(**ARCH), Silent(), ARCH, 4, seed=0)


def test_no_training_cases_are_told(task: NormedEdges, pruned: nn.Module) -> None:
    class Empty(NormedEdges):
        def batches(self, seed: int, batch_size: int, **arch: Scalar) -> Iterator[tuple[Any, Any]]:
            return iter(())

    with pytest.raises(DataError, match="no batch at batch_size 8"):
        recalibrate(copied(pruned), Empty(), ARCH, 4, seed=0)


def test_statistics_that_are_not_finite_are_a_failed_build(task: NormedEdges, pruned: nn.Module) -> None:
    broken = copied(pruned)
    with torch.no_grad():
        broken[0].weight[0] = float("inf")
    with pytest.raises(BuildError, match=r"batch norm 1 over 4 batches.*not finite"):
        recalibrate(broken, task, ARCH, 4, seed=0)
