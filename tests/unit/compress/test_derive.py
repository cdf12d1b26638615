"""The float model of a variant, with real training on a task that takes milliseconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgedeploy.compress.model import derive, load_weights, save_weights, train_baseline
from edgedeploy.compress.oversight import Oversight
from edgedeploy.compress.prune import channel_widths
from edgedeploy.errors import DataError, SpecError
from edgedeploy.interfaces.task import Array, Case, Split, Task, Trainable, TrainRecipe
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Scalar, Variant


class Edges:
    """Find where a noisy image brightens. Cannot train: no batches, no loss."""

    name = "edges"
    architecture: Mapping[str, Sequence[Scalar]] = {"size": (16, 8), "mix": ("wide", "narrow")}
    metrics: Mapping[str, MetricInfo] = {}

    def build(self, **arch: Scalar) -> nn.Module:
        torch.manual_seed(3)
        kernel = 5 if arch["mix"] == "wide" else 3
        mix = nn.Conv2d(16, 16, kernel, padding=kernel // 2)
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), mix, nn.ReLU(), nn.Conv2d(16, 2, 1)
        )

    def input_specs(self, **arch: Scalar) -> tuple[TensorSpec, ...]:
        return (TensorSpec("image", "float32", (1, 1, int(arch["size"]), int(arch["size"]))),)

    def cases(self, split: Split) -> Sequence[Case]:
        return [Case(f"{split}-{index}", split) for index in range(32)]

    def inputs(self, case: Case, **arch: Scalar) -> dict[str, Array]:
        spec = self.input_specs(**arch)[0]
        return {"image": np.zeros(spec.shape, np.float32)}

    def evaluate(self, outputs: Mapping[str, Array], case: Case) -> dict[str, float | None]:
        return {}


class TrainableEdges(Edges):
    baseline_recipe = TrainRecipe(epochs=6, batch_size=8, learning_rate=1e-2, warmup_epochs=0)
    recovery_recipe = TrainRecipe(epochs=3, batch_size=8, learning_rate=5e-3, warmup_epochs=0, distill_weight=0.5)

    def batches(self, seed: int, batch_size: int, **arch: Scalar) -> Iterator[tuple[Any, Any]]:
        generator = torch.Generator().manual_seed(seed)
        size = int(arch["size"])
        for _ in range(len(self.cases("train")) // batch_size):
            image = torch.randn(batch_size, 1, size, size, generator=generator)
            yield image, (nn.functional.avg_pool2d(image, 3, 1, 1)[:, 0] > 0).long()

    def loss(self, outputs: Any, target: Any) -> Any:
        return nn.functional.cross_entropy(outputs, target)


def variant(width: float = 1.0, size: int = 16, mix: str = "wide") -> Variant:
    return Variant("onnxruntime", "float32", width, (("mix", mix), ("size", size)), 1)


def loss_of(task: TrainableEdges, model: nn.Module, size: int = 16) -> float:
    with torch.inference_mode():
        return float(np.mean([task.loss(model(x), y) for x, y in task.batches(99, 8, size=size)]))


@pytest.fixture(scope="module")
def task() -> TrainableEdges:
    return TrainableEdges()


@pytest.fixture(scope="module")
def baseline(task: TrainableEdges) -> nn.Module:
    return train_baseline(task, {"size": 16, "mix": "wide"})


def test_tasks_keep_the_protocols(task: TrainableEdges) -> None:
    assert isinstance(task, Task)
    assert isinstance(task, Trainable)
    assert not isinstance(Edges(), Trainable)


def test_the_baseline_learns(task: TrainableEdges, baseline: nn.Module) -> None:
    assert loss_of(task, baseline) < 0.8 * loss_of(task, task.build(size=16, mix="wide").eval())
    assert not baseline.training


def test_the_baselines_own_variant_is_the_baseline(task: TrainableEdges, baseline: nn.Module) -> None:
    model = derive(task, variant(), baseline, oversight=Oversight(progress=lambda state: pytest.fail("it was trained")))
    assert model is not baseline
    assert all(torch.equal(tensor, baseline.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_a_narrow_variant_recovers(task: TrainableEdges, baseline: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in baseline.state_dict().items()}
    told: list[int] = []
    model = derive(
        task, variant(width=0.5), baseline, oversight=Oversight(progress=lambda state: told.append(state.epoch))
    )
    assert set(channel_widths(model).values()) == {8, 2}
    assert told == [1, 2, 3]
    assert loss_of(task, model) < loss_of(task, task.build(size=16, mix="wide").eval())
    assert all(torch.equal(tensor, before[name]) for name, tensor in baseline.state_dict().items())


@pytest.mark.parametrize("changed", [{"size": 8}, {"mix": "narrow"}], ids=["inputs only", "layers"])
def test_other_architectures_start_from_the_baseline_and_recover(
    task: TrainableEdges, baseline: nn.Module, changed: dict[str, Any]
) -> None:
    told: list[int] = []
    model = derive(
        task, variant(**changed), baseline, oversight=Oversight(progress=lambda state: told.append(state.epoch))
    )
    assert told
    assert not model.training
    size = int(changed.get("size", 16))
    fresh = task.build(size=size, mix=changed.get("mix", "wide")).eval()
    assert loss_of(task, model, size) < loss_of(task, fresh, size)


def test_equal_variants_give_equal_models(task: TrainableEdges, baseline: nn.Module) -> None:
    first, second = (derive(task, variant(width=0.5), baseline).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_task_without_training_says_what_it_lacks(baseline: nn.Module) -> None:
    with pytest.raises(SpecError, match="no training"):
        derive(Edges(), variant(width=0.5), baseline)
    with pytest.raises(SpecError, match="no training"):
        train_baseline(Edges(), {"size": 16, "mix": "wide"})


def test_a_task_without_training_may_change_its_inputs(baseline: nn.Module) -> None:
    model = derive(Edges(), variant(size=8), baseline)
    assert all(torch.equal(tensor, baseline.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_weights_come_back(task: TrainableEdges, baseline: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "baseline.pt"
    save_weights(baseline, path)
    model = load_weights(task.build(size=16, mix="wide"), path)
    assert not model.training
    assert all(torch.equal(tensor, baseline.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert [entry.name for entry in tmp_path.iterdir()] == ["baseline.pt"]


class Payload:
    """What a hostile weights file would carry."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (Path("touched-by-a-weights-file"),)  # type: ignore[return-value]


@pytest.mark.fault(32)
def test_files_that_are_no_weights_are_refused(task: TrainableEdges, baseline: nn.Module, tmp_path: Path) -> None:
    model = task.build(size=16, mix="wide")
    good, bad = tmp_path / "good.pt", tmp_path / "bad.pt"
    save_weights(baseline, good)
    bad.write_bytes(good.read_bytes()[:900])
    with pytest.raises(DataError, match=r"bad\.pt"):
        load_weights(model, bad)
    bad.write_bytes(b"")
    with pytest.raises(DataError, match=r"bad\.pt"):
        load_weights(model, bad)
    torch.save({"0.weight": Payload()}, bad)
    with pytest.raises(DataError, match=r"bad\.pt"):
        load_weights(model, bad)
    assert not Path("touched-by-a-weights-file").exists()
    with pytest.raises(DataError, match="no such file"):
        load_weights(model, tmp_path / "gone.pt")
    with pytest.raises(DataError, match="Conv2d"):
        load_weights(nn.Conv2d(1, 1, 1), good)
