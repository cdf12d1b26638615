"""The float model of a variant, with real training on a task that takes milliseconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from edges_task import Edges, TrainableEdges, loss_of, variant
from levels_task import ARCH, LeveledEdges, image
from torch import nn

from edgedeploy.compress.kept import load_weights, save_weights
from edgedeploy.compress.model import Further, derive, restore, train_baseline
from edgedeploy.compress.oversight import Oversight
from edgedeploy.compress.prune import channel_widths, prune
from edgedeploy.errors import DataError, SpecError, Unsupported
from edgedeploy.interfaces.task import Task, Trainable
from edgedeploy.records.variant import Variant


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


def test_a_task_without_training_and_weights_is_told_the_three_ways(baseline: nn.Module) -> None:
    with pytest.raises(SpecError, match="no training") as caught:
        train_baseline(Edges(), {"size": 16, "mix": "wide"})
    for way in ("checkpoint =", "trained = True", "baseline_recipe", "fit"):
        assert way in caught.value.remedy


def test_a_task_without_training_is_pruned_in_one_shot(task: TrainableEdges, baseline: nn.Module) -> None:
    model = derive(Edges(), variant(width=0.5), baseline)
    assert set(channel_widths(model).values()) == {8, 2}
    kept = model.state_dict()["0.weight"].flatten(1)
    rows = baseline.state_dict()["0.weight"].flatten(1)
    assert all(any(torch.equal(row, other) for other in rows) for row in kept), (
        "weights that are left stay as they were"
    )
    assert loss_of(task, model) < loss_of(task, task.build(size=16, mix="wide").eval())


def test_layers_that_nothing_gives_weights_are_a_failure_of_the_variant(baseline: nn.Module) -> None:
    with pytest.raises(Unsupported, match=r"1 tensors have no weights in the baseline \(3.weight\).*no training"):
        derive(Edges(), variant(mix="narrow"), baseline)


class TrainedEdges(Edges):
    """Each architecture comes with weights of its own."""

    trained = True


def test_trained_models_of_other_architectures_keep_their_own_weights(baseline: nn.Module) -> None:
    task = TrainedEdges()
    built = task.build(size=16, mix="narrow").state_dict()
    model = derive(task, variant(mix="narrow"), baseline, own_weights=True)
    assert all(torch.equal(tensor, built[name]) for name, tensor in model.state_dict().items())
    plain = derive(task, variant(), baseline, own_weights=True)
    assert all(torch.equal(tensor, baseline.state_dict()[name]) for name, tensor in plain.state_dict().items())
    pruned = derive(task, variant(width=0.5, mix="narrow"), baseline, own_weights=True)
    assert set(channel_widths(pruned).values()) == {8, 2}


def test_the_recovered_baseline_is_trained_as_far_as_a_recovered_variant(
    task: TrainableEdges, baseline: nn.Module
) -> None:
    told: list[int] = []
    further = replace(variant(), recovered=True)
    model = derive(task, further, baseline, oversight=Oversight(progress=lambda state: told.append(state.epoch)))
    assert told[-1] == 3
    assert loss_of(task, model) < loss_of(task, baseline)
    assert further.model_digest != variant().model_digest
    assert Variant.from_json(further.as_json()) == further


def test_a_rung_is_trained_from_the_model_of_the_rung_below(
    task: TrainableEdges, baseline: nn.Module, tmp_path: Path
) -> None:
    below = derive(task, variant(width=0.5), baseline, further=Further(1))
    save_weights(below, tmp_path / "rung.pt")
    told: list[int] = []
    model = derive(
        task,
        variant(width=0.5),
        baseline,
        oversight=Oversight(progress=lambda state: told.append(state.epoch)),
        further=Further(2, tmp_path / "rung.pt"),
    )
    assert told == [1, 2]
    assert loss_of(task, model) < loss_of(task, below)
    fresh = derive(task, variant(width=0.5), baseline, further=Further(2))
    first = "0.weight"
    assert not torch.equal(model.state_dict()[first], fresh.state_dict()[first]), "it did not start from the file"


def test_the_lowest_rung_is_not_trained(task: TrainableEdges, baseline: nn.Module) -> None:
    hush = Oversight(progress=lambda state: pytest.fail("it was trained"))
    model = derive(task, variant(width=0.5), baseline, oversight=hush, further=Further(0))
    pruned = derive(Edges(), variant(width=0.5), baseline)
    assert torch.equal(model.state_dict()["0.weight"], pruned.state_dict()["0.weight"])
    assert not model.training


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


def test_a_model_of_an_earlier_version_keeps_the_widths_of_its_file(tmp_path: Path) -> None:
    """Layers that a width left less than four channels of had kept all of them."""
    leveled, asked = LeveledEdges(), replace(variant(width=0.2), arch=tuple(sorted(ARCH.items())))
    whole = leveled.build(**ARCH).eval()
    shallow = {name: 16 for name, channels in channel_widths(whole).items() if channels == 16}
    before = prune(whole, image(), 0.2, widths={**channel_widths(prune(whole, image(), 0.2)), **shallow})
    assert set(channel_widths(before).values()) == {16, 12, 2}
    save_weights(before, tmp_path / "weights.pt")
    again = restore(leveled, asked, whole, tmp_path / "weights.pt")
    assert channel_widths(again) == channel_widths(before)
    assert all(torch.equal(tensor, before.state_dict()[name]) for name, tensor in again.state_dict().items())
