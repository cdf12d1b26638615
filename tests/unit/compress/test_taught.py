"""A baseline that a teacher of another architecture teaches: who is trained, in which order, and how it resumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from edges_task import TrainableEdges, loss_of
from torch import nn

from edgedeploy.compress.model import train_baseline
from edgedeploy.compress.oversight import Oversight, TrainProgress
from edgedeploy.errors import OutOfTime
from edgedeploy.interfaces.task import Taught

ARCH = {"size": 16, "mix": "wide"}


class TaughtEdges(TrainableEdges):
    """Its teacher is narrow, which no search of it names. Remembers what is built."""

    teacher_arch: dict[str, Any] = {"size": 16, "mix": "narrow"}  # noqa: RUF012
    teacher_recipe = replace(TrainableEdges.baseline_recipe, epochs=4)
    baseline_recipe = replace(TrainableEdges.baseline_recipe, distill_weight=1.0)

    def __init__(self) -> None:
        self.built: list[object] = []

    def build(self, **arch: Any) -> nn.Module:
        self.built.append(arch["mix"])
        return super().build(**arch)


def test_the_teacher_is_trained_first_and_teaches_all_there_is_to_learn() -> None:
    """With ``distill_weight = 1`` no label reaches the baseline."""
    task, epochs = TaughtEdges(), list[int]()
    assert isinstance(task, Taught)
    notes = list[str]()
    overseen = Oversight("net", progress=lambda state: epochs.append(state.epochs), note=notes.append)
    model = train_baseline(task, ARCH, oversight=overseen)
    assert notes == ["net has a teacher, which is trained first: 4 epochs"]
    assert task.built == ["wide", "narrow"]
    assert epochs == [4] * 4 + [6] * 6
    assert not model.training
    assert loss_of(task, model) < 0.9 * loss_of(task, TrainableEdges().build(**ARCH).eval())


@pytest.mark.parametrize("changes", [{"teacher_arch": {}}, {"baseline_recipe": TrainableEdges.baseline_recipe}])
def test_without_a_teacher_or_a_share_for_it_nobody_else_is_trained(changes: dict[str, Any]) -> None:
    task = TaughtEdges()
    for name, value in changes.items():
        setattr(task, name, value)
    train_baseline(task, ARCH)
    assert task.built == ["wide"]


def test_a_training_that_was_cut_off_keeps_its_teacher(tmp_path: Path) -> None:
    whole = train_baseline(TaughtEdges(), ARCH)
    checkpoint, seen = tmp_path / "baseline.checkpoint", list[TrainProgress]()
    overseen = Oversight(progress=seen.append, checkpoint=checkpoint)
    cut = replace(overseen, out_of_time=lambda: len(seen) >= 6)
    with pytest.raises(OutOfTime):
        train_baseline(TaughtEdges(), ARCH, oversight=cut)
    assert [state.epochs for state in seen] == [4] * 4 + [6] * 2
    seen.clear()
    model = train_baseline(TaughtEdges(), ARCH, oversight=overseen)
    assert [(state.epoch, state.epochs) for state in seen] == [(3, 6), (4, 6), (5, 6), (6, 6)]
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in model.state_dict().items())
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name]
