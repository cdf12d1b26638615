"""Quantization-aware training: it mends what calibration loses, follows its teacher, and is decided by its seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgedeploy.compress.qat import graph
from edgedeploy.compress.qat.train import QatSettings, qat_recipe, train_quantized
from edgedeploy.compress.training import fit
from edgedeploy.errors import DataError
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.interfaces.task import TrainRecipe
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.reference.export import Reference, export_reference
from edgedeploy.reference.quantized import export_quantized
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget

SPECS = (TensorSpec("image", "float32", (1, 1, 8, 8)),)
RECIPE = TrainRecipe(epochs=8, batch_size=8, learning_rate=0.05)


class Glints:
    """Is a pixel brighter than 0? A few are many times brighter or darker than the rest, and calibration by minimum and
    maximum spends its 256 steps on them."""

    baseline_recipe = recovery_recipe = RECIPE

    def __init__(self, count: int = 128) -> None:
        self.count = count

    def batches(self, seed: int, batch_size: int, **arch: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(self.count // batch_size):
            images = torch.randn(batch_size, 1, 8, 8, generator=generator)
            glint = torch.rand(images.shape, generator=generator) < 0.01
            images = torch.where(glint, 30 * images, images)
            yield images, (images[:, 0] > 0).long()

    def loss(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, target)


def network(seed: int = 0) -> nn.Module:
    """Narrow: two channels carry everything."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2), nn.Hardtanh(-1, 1), nn.Conv2d(2, 2, 1))


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    model = network()
    fit(model, Glints(512), dataclasses.replace(RECIPE, epochs=20), arch={})
    model.zero_grad(set_to_none=True)
    return model


def train(teacher: nn.Module, **changes: Any) -> nn.Module:
    settings = QatSettings(**{key: changes.pop(key) for key in ("ranges",) if key in changes})
    recipe = dataclasses.replace(RECIPE, distill_weight=0.5, **changes)
    return train_quantized(teacher, Glints(), SPECS, arch={}, teacher=teacher, recipe=recipe, settings=settings)


def held_out() -> tuple[torch.Tensor, torch.Tensor]:
    return next(Glints(256).batches(seed=999, batch_size=256))


def accuracy(model: nn.Module) -> float:
    images, labels = held_out()
    with torch.no_grad():
        return float((model.eval()(images).argmax(1) == labels).float().mean())


def accuracy_of_artifact(reference: Reference, folder: Path) -> float:
    """Of the int8 artifact that ONNX Runtime runs, built as a study builds it."""
    cases = [images.numpy() for images, _ in Glints(32).batches(seed=7, batch_size=1)]
    wanted = BuildRequest(
        *(reference.path, reference.inputs, reference.outputs, "int8", lambda: ({"image": case} for case in cases)),
        quantized=reference.quantized,
    )
    artifact = OnnxRuntimeTarget().build(wanted, folder)
    session = open_session(artifact.target, folder, artifact.entry, dict(artifact.settings), 1)
    images, labels = held_out()
    found = np.concatenate([session.run({"image": row[None]})["out0"] for row in images.numpy()])
    return float((found.argmax(1) == labels.numpy()).mean())


@pytest.mark.parametrize("seed", [0, 1])
def test_training_keeps_what_calibration_loses(seed: int, teacher: nn.Module, tmp_path: Path) -> None:
    plain = export_reference(teacher, SPECS, tmp_path / "float.onnx")
    calibrated = accuracy_of_artifact(plain, tmp_path / "ptq")
    trained = export_quantized(train(teacher, seed=seed), SPECS, tmp_path / "qat.onnx")
    learned = accuracy_of_artifact(trained, tmp_path / "qat")
    assert accuracy(teacher) > 0.96
    assert calibrated < 0.95, "the case is not hard"
    assert learned > calibrated + 0.02


def test_the_seed_decides_the_result(teacher: nn.Module) -> None:
    first, again, other = (train(teacher, seed=seed, epochs=2).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_float_model_and_its_teacher_stay_as_they_are(teacher: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    train(teacher, epochs=1)
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_both_ways_to_choose_ranges_end_with_fixed_scales(teacher: nn.Module) -> None:
    learned, observed = (graph.scales(train(teacher, epochs=2, ranges=ranges)) for ranges in ("learned", "observed"))
    assert learned.keys() == observed.keys()
    assert any(not torch.equal(learned[name], observed[name]) for name in learned)


def test_the_recipe_is_a_short_and_careful_recovery() -> None:
    recovery = TrainRecipe(
        8, 4, 1e-2, bfloat16=True, distill_weight=0.3, early_epochs=4, early_arch={"side": 8}, seed=3
    )
    recipe = qat_recipe(recovery)
    assert (recipe.epochs, recipe.batch_size, recipe.seed) == (4, 4, 3)
    assert recipe.learning_rate == pytest.approx(1e-3)
    assert recipe.distill_weight == 0.5
    assert not recipe.bfloat16
    assert (recipe.early_epochs, dict(recipe.early_arch)) == (0, {})
    assert qat_recipe(dataclasses.replace(recovery, epochs=1, distill_weight=0.9)).epochs == 1
    assert qat_recipe(dataclasses.replace(recovery, distill_weight=0.9)).distill_weight == 0.9


def test_without_a_batch_there_are_no_ranges() -> None:
    with pytest.raises(DataError, match="no batch at batch_size 8"):
        train_quantized(network().eval(), Glints(4), SPECS, arch={}, teacher=network(), recipe=RECIPE)
