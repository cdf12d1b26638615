"""Students in the place of a task's network, and what recovery gives back to a transformer that lost something."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from small_transformers import BlobTask
from torch import nn

from edgedeploy.compress.kept import save_weights
from edgedeploy.compress.model import Further, derive, restore, train_baseline
from edgedeploy.compress.student import recipe_of_student, student_of
from edgedeploy.errors import SpecError
from edgedeploy.interfaces.task import Teaching
from edgedeploy.records.canonical import canonical
from edgedeploy.records.variant import Variant

ARCH = {"kind": "joint"}


def variant(**params: Any) -> Variant:
    return canonical(
        {"target": "onnxruntime", **params},
        arch_defaults=ARCH,
        target_precisions={"onnxruntime": ("float32",)},
        default_threads=1,
    )


@pytest.fixture(scope="module")
def trained() -> tuple[BlobTask, nn.Module]:
    task = BlobTask(depth=2, cases=256)
    return task, train_baseline(task, ARCH)


def right(task: BlobTask, model: nn.Module) -> float:
    """Share of right answers on cases that nothing was trained or chosen on."""
    given, labels = task.drawn["selection"]
    with torch.no_grad():
        return float((model(given).argmax(1) == labels).float().mean())


def loss(task: BlobTask, model: nn.Module) -> float:
    given, labels = task.drawn["selection"]
    with torch.no_grad():
        return float(task.loss(model(given), labels))


def test_recovery_raises_what_a_smaller_transformer_gets_right(trained: tuple[BlobTask, nn.Module]) -> None:
    task, model = trained
    assert right(task, model) > 0.7, "the baseline has learned"
    smaller = variant(heads=0.5, mlp=0.25, depth=0.5, tokens=0.6)
    before, after = derive(task, smaller, model, further=Further(0)), derive(task, smaller, model)
    assert loss(task, after) < loss(task, before)
    assert right(task, after) > right(task, before)


def test_a_student_is_trained_from_its_own_first_weights_and_read_back(
    trained: tuple[BlobTask, nn.Module], tmp_path: Path
) -> None:
    task, model = trained
    for name, kind in (("cnn", nn.Sequential), ("narrow", type(model))):
        student = variant(student=name)
        first, after = derive(task, student, model, further=Further(0)), derive(task, student, model)
        assert type(after) is kind
        assert loss(task, after) < loss(task, first)
        save_weights(after, tmp_path / f"{name}.pt")
        again = restore(task, student, model, tmp_path / f"{name}.pt")
        torch.testing.assert_close(again(task.drawn["selection"][0]), after(task.drawn["selection"][0]))


def test_a_narrower_network_comes_of_the_same_constructor() -> None:
    task = BlobTask(depth=2, cases=8)
    assert isinstance(task, Teaching)
    student = student_of(task, "narrow", ARCH)
    whole = task.build(**ARCH)
    assert type(student) is type(whole)
    assert sum(p.numel() for p in student.parameters()) < 0.3 * sum(p.numel() for p in whole.parameters())


def test_a_student_is_trained_as_long_as_the_baseline_and_follows_as_in_recovery() -> None:
    recipe = recipe_of_student(BlobTask(cases=8))
    assert (recipe.epochs, recipe.distill_weight) == (BlobTask.baseline_recipe.epochs, 0.5)


class Without(BlobTask):
    def __init__(self, students: Mapping[str, Any]) -> None:
        super().__init__(cases=8)
        self.students = students


@pytest.mark.parametrize(
    ("students", "found"),
    [
        ({}, "has no such student"),
        ({"s": lambda **arch: "a word"}, "it is a str"),
        ({"s": {"width": 3}}, "unexpected keyword"),
    ],
)
def test_a_student_that_is_none_is_told(students: Mapping[str, Any], found: str) -> None:
    with pytest.raises(SpecError, match=found):
        student_of(Without(students), "s", ARCH)
