"""Several widths trained at once in one network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from edges_task import loss_of
from levels_task import ARCH, LeveledEdges, image
from torch import nn

from edgedeploy.compress.allocation import Sensitivity
from edgedeploy.compress.elastic import Cut, cut_of, cut_out, train_elastic
from edgedeploy.compress.model import train_baseline
from edgedeploy.compress.oversight import Oversight
from edgedeploy.compress.prune import prune
from edgedeploy.compress.recalibration import recalibrate
from edgedeploy.compress.sensitivity import gate_gradients
from edgedeploy.errors import OutOfTime, Unsupported
from edgedeploy.reference.copies import copied

WIDTHS = (0.3, 0.5, 0.75)


@pytest.fixture(scope="module")
def task() -> LeveledEdges:
    return LeveledEdges()


@pytest.fixture(scope="module")
def baseline(task: LeveledEdges) -> nn.Module:
    return train_baseline(task, ARCH)


@pytest.fixture(scope="module")
def prunings(task: LeveledEdges, baseline: nn.Module) -> list[Callable[[nn.Module], nn.Module]]:
    by_bytes = Sensitivity("bytes", gate_gradients(baseline, task, ARCH, 4, 0))

    def at(width: float) -> Callable[[nn.Module], nn.Module]:
        return lambda model: prune(model, image(), width, sensitivity=by_bytes)

    return [at(width) for width in WIDTHS]


def test_every_width_learns_and_is_a_part_of_one_network(
    task: LeveledEdges, baseline: nn.Module, prunings: list[Callable[[nn.Module], nn.Module]]
) -> None:
    whole = copied(baseline)
    cuts = [cut_of(whole, pruning) for pruning in prunings]
    train_elastic(whole, task, replace(task.recovery_recipe, epochs=6), cuts, arch=ARCH)
    assert not whole.training
    losses, before = [], []
    for cut, pruning in zip(cuts, prunings, strict=True):
        model = cut_out(cut, whole, task, ARCH, 8, 0)
        losses.append(loss_of(task, model))
        before.append(loss_of(task, recalibrate(pruning(baseline), task, ARCH, 8, 0)))
        again = pruning(whole)
        assert all(torch.equal(value, again.get_parameter(name)) for name, value in model.named_parameters())
        assert not any(value is whole.get_parameter(name) for name, value in model.named_parameters())
    assert losses[0] < before[0]
    assert sum(losses) < 0.95 * sum(before), (losses, before)


def test_a_training_that_is_cut_off_goes_on_as_an_undisturbed_one(
    task: LeveledEdges, baseline: nn.Module, prunings: list[Callable[[nn.Module], nn.Module]], tmp_path: Path
) -> None:
    def trained(oversight: Oversight) -> dict[str, torch.Tensor]:
        whole = copied(baseline)
        cuts: list[Cut] = [cut_of(whole, pruning) for pruning in prunings]
        recipe = replace(task.recovery_recipe, epochs=2)
        return train_elastic(whole, task, recipe, cuts, arch=ARCH, oversight=oversight).state_dict()

    asked = iter([False] * 5 + [True] * 100)
    checkpoint = tmp_path / "elastic.pt"
    with pytest.raises(OutOfTime):
        trained(Oversight(checkpoint=checkpoint, out_of_time=lambda: next(asked)))
    resumed = trained(Oversight(checkpoint=checkpoint))
    undisturbed = trained(Oversight())
    assert all(torch.equal(value, undisturbed[name]) for name, value in resumed.items() if "running" not in name)


def test_pruning_by_the_weights_themselves_is_refused(baseline: nn.Module) -> None:
    with pytest.raises(Unsupported, match="other channels when the weights change"):
        cut_of(baseline, lambda model: prune(model, image(), 0.5))
