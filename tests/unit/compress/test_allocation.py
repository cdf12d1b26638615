"""One budget of channels over layers that differ in cost and in what the loss says of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from edges_task import Edges, TrainableEdges, loss_of, variant
from levels_task import ARCH, LeveledEdges, Levels, image
from torch import nn

from edgedeploy.compress.allocation import ChannelGroup, LayerCost, Sensitivity, allocate
from edgedeploy.compress.channels import layer_costs
from edgedeploy.compress.kept import save_weights
from edgedeploy.compress.model import derive, restore, train_baseline
from edgedeploy.compress.prune import SPREAD_MULTIPLE, channel_widths, prune
from edgedeploy.compress.sensitivity import gate_gradients
from edgedeploy.compress.shaped import shaped
from edgedeploy.errors import DataError, SpecError, Unsupported
from edgedeploy.records.layer_times import LayerTimes, TimedLayer
from edgedeploy.records.variant import Allocation, Scalar
from edgedeploy.reference.copies import copied

COSTS: tuple[Allocation, ...] = ("compute", "bytes")


@pytest.fixture(scope="module")
def task() -> LeveledEdges:
    return LeveledEdges()


@pytest.fixture(scope="module")
def baseline(task: LeveledEdges) -> nn.Module:
    return train_baseline(task, ARCH)


def cost_of(model: nn.Module, cost: Allocation) -> float:
    return sum(layer.cost for layer in layer_costs(model, image(), cost).values())


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("width", [0.75, 0.5])
def test_the_cost_is_that_of_the_uniform_width(
    task: LeveledEdges, baseline: nn.Module, cost: Allocation, width: float
) -> None:
    uniform = prune(baseline, image(), width)
    model = prune(baseline, image(), width, sensitivity=Sensitivity(cost, gate_gradients(baseline, task, ARCH, 4, 0)))
    assert 0.7 * cost_of(uniform, cost) <= cost_of(model, cost) <= cost_of(uniform, cost)
    widths = channel_widths(model)
    assert widths != channel_widths(uniform)
    assert widths["deep.0"] == widths["deeper"], "what is added loses the same channels"
    assert widths["classes"] == 2
    assert all(count % SPREAD_MULTIPLE == 0 for name, count in widths.items() if name != "classes")
    assert min(count for name, count in widths.items() if name != "classes") >= 8
    assert model(torch.zeros(1, 1, 16, 16)).shape == (1, 2, 16, 16)


def test_a_budget_of_bytes_spares_the_multiplications_and_the_loss(task: LeveledEdges, baseline: nn.Module) -> None:
    gates = gate_gradients(baseline, task, ARCH, 4, 0)
    by_bytes, by_compute = (prune(baseline, image(), 0.5, sensitivity=Sensitivity(cost, gates)) for cost in COSTS[::-1])
    uniform = prune(baseline, image(), 0.5)
    assert cost_of(by_bytes, "compute") > cost_of(uniform, "compute")
    assert cost_of(by_bytes, "bytes") > cost_of(by_compute, "bytes")
    assert loss_of(task, by_bytes) < loss_of(task, uniform)


def timed(model: nn.Module, **slow: float) -> LayerTimes:
    """MADE-UP times: a nanosecond for each multiplication, in a layer of ``slow`` that many of them."""
    layers = {name.replace(".", "_"): name for name in layer_costs(model, image(), "compute")}
    times = {
        name: TimedLayer(slow.get(key, 1.0) * cost.cost, cost.cost)
        for key, name in layers.items()
        for cost in (layer_costs(model, image(), "compute")[name],)
    }
    return LayerTimes(times, (), 0.0, "none", "here", "emulated", "0" * 16, "0" * 64, "2026-01-01T00:00:00+00:00")


def test_a_budget_of_time_narrows_what_is_slow_for_what_it_computes(task: LeveledEdges, baseline: nn.Module) -> None:
    gates = gate_gradients(baseline, task, ARCH, 4, 0)

    def spread(times: LayerTimes) -> nn.Module:
        return prune(baseline, image(), 0.75, sensitivity=Sensitivity("time", gates, times))

    by_compute = channel_widths(prune(baseline, image(), 0.75, sensitivity=Sensitivity("compute", gates)))
    assert channel_widths(spread(timed(baseline))) == by_compute, "where all layers are as fast, that is their compute"
    slow = timed(baseline, join=30.0)
    model = spread(slow)
    widths = channel_widths(model)
    assert widths["join"] < by_compute["join"]
    assert widths["deeper"] > by_compute["deeper"], "what is saved there is spent elsewhere"

    def cost_ns(one: nn.Module) -> float:
        return sum(layer.cost for layer in layer_costs(one, image(), "time", slow).values())

    uniform = prune(baseline, image(), 0.75)
    assert 0.6 * cost_ns(uniform) <= cost_ns(model) <= cost_ns(uniform)


def test_a_layer_without_a_time_counts_by_its_multiplications(baseline: nn.Module) -> None:
    whole = timed(baseline, deeper=30.0)
    known = replace(whole, layers={name: row for name, row in whole.layers.items() if name != "deeper"})
    costs, compute = (layer_costs(baseline, image(), cost, known) for cost in ("time", "compute"))  # type: ignore[arg-type]
    assert costs["deeper"].cost == compute["deeper"].cost, "the other layers' nanosecond for each"
    with pytest.raises(Unsupported, match="no layer times are known"):
        layer_costs(baseline, image(), "time")


def test_gates_tell_what_taking_a_channel_away_costs(task: LeveledEdges, baseline: nn.Module) -> None:
    """The gradient of a gate, summed over the batch, is that of the loss by a factor on the channel."""
    state = torch.get_rng_state()
    gates = gate_gradients(baseline, task, ARCH, 1, seed=4)["classes"]
    assert torch.equal(torch.get_rng_state(), state)
    inputs, target = next(task.batches(4, 8, **ARCH))
    losses = []
    for factor in (1.01, 0.99):
        scaled = copied(baseline)
        with torch.no_grad():
            scaled.classes.weight[:, 5] *= factor
            losses.append(float(task.loss(scaled(inputs), target)))
    assert gates.shape == (8, 16)
    assert float(gates[:, 5].sum()) == pytest.approx((losses[0] - losses[1]) / 0.02, rel=0.02, abs=1e-5)


def test_dead_channels_go_first(task: LeveledEdges, baseline: nn.Module) -> None:
    """Large weights whose answers no later layer uses are of no importance, whatever their magnitude."""
    model = copied(baseline)
    with torch.no_grad():
        model.first[0].weight[:8] *= 100
        model.deep[0].weight[:, :8] = 0
        model.join.weight[:, :8] = 0
    gates = gate_gradients(model, task, ARCH, 2, 0)
    pruned = prune(model, image(), 0.9, sensitivity=Sensitivity("compute", gates))
    assert torch.equal(pruned.first[0].weight, model.first[0].weight[8:])
    by_magnitude = prune(model, image(), 0.9).first[0].weight
    assert torch.equal(by_magnitude[:8], model.first[0].weight[:8])


def test_equal_weights_give_equal_models_and_the_baseline_stays(task: LeveledEdges, baseline: nn.Module) -> None:
    before = {name: value.clone() for name, value in baseline.state_dict().items()}
    asked = replace(variant(width=0.5), allocation="bytes")
    first, second = (shaped(task, asked, baseline, False)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(value, before[name]) for name, value in baseline.state_dict().items())


def test_a_trained_model_comes_back_with_the_widths_of_its_file(
    task: LeveledEdges, baseline: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = replace(variant(width=0.5), allocation="bytes")
    model = derive(task, asked, baseline)
    save_weights(model, tmp_path / "weights.pt")

    def never(*_: Any) -> Any:
        raise AssertionError("weighed again: another machine may come to other widths")

    monkeypatch.setattr("edgedeploy.compress.shaped.gate_gradients", never)
    back = restore(task, asked, baseline, tmp_path / "weights.pt")
    assert channel_widths(back) == channel_widths(model)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in back.state_dict().items())
    (tmp_path / "weights.pt").write_bytes(b"no weights")
    with pytest.raises(DataError, match=r"weights\.pt for Levels"):
        restore(task, asked, baseline, tmp_path / "weights.pt")


def test_a_task_without_a_loss_cannot_weigh(baseline: nn.Module) -> None:
    class Still(Edges):
        def build(self, **arch: Scalar) -> nn.Module:
            return Levels()

    with pytest.raises(SpecError, match="no batches and no loss"):
        derive(Still(), replace(variant(width=0.5), allocation="bytes"), baseline)


class Mobile(nn.Module):
    """A depthwise and a grouped convolution, and a linear layer that reads a flattened image."""

    def __init__(self) -> None:
        super().__init__()
        self.widen, self.depthwise = nn.Conv2d(1, 32, 1), nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.mix, self.grouped = nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 3, padding=1, groups=4)
        self.last, self.score = nn.Conv2d(32, 16, 1), nn.Linear(16 * 16, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        value = torch.relu(self.grouped(torch.relu(self.mix(torch.relu(self.depthwise(self.widen(image)))))))
        out: torch.Tensor = self.score(torch.relu(self.last(value)).flatten(1))
        return out


class Scores(TrainableEdges):
    def batches(self, seed: int, batch_size: int, **arch: Scalar) -> Iterator[tuple[Any, Any]]:
        generator = torch.Generator().manual_seed(seed)
        yield torch.randn(batch_size, 1, 4, 4, generator=generator), torch.arange(batch_size) % 2


@pytest.mark.parametrize("cost", COSTS)
def test_depthwise_and_grouped_layers_are_counted(cost: Allocation) -> None:
    torch.manual_seed(0)
    model, inputs = Mobile().eval(), {"image": torch.zeros(1, 1, 4, 4)}
    gates = gate_gradients(model, Scores(), {"size": 4, "mix": "wide"}, 1, 0)
    pruned = prune(model, inputs, 0.5, sensitivity=Sensitivity(cost, gates))
    limit, found = (
        sum(layer.cost for layer in layer_costs(one, inputs, cost).values())
        for one in (prune(model, inputs, 0.5), pruned)
    )
    assert 0.8 * limit <= found <= limit
    widths = channel_widths(pruned)
    assert widths["widen"] == widths["depthwise"]
    assert pruned.score.in_features == 16 * widths["last"]
    again = prune(model, inputs, 0.5, widths=widths)
    assert {name: value.shape for name, value in again.state_dict().items()} == {
        name: value.shape for name, value in pruned.state_dict().items()
    }


class Joined(nn.Module):
    """A depthwise layer that reads what two layers write: their channels are ranked together."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(1, 32, 3, padding=1)
        self.depthwise, self.mix = nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.Conv2d(64, 32, 1)
        self.score = nn.Conv2d(32, 2, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        value = self.depthwise(torch.cat([self.left(image), self.right(image)], 1))
        out: torch.Tensor = self.score(torch.relu(self.mix(value)))
        return out


def test_widths_tell_how_channels_that_are_ranked_together_were_divided() -> None:
    torch.manual_seed(0)
    model, inputs = Joined().eval(), {"image": torch.zeros(1, 1, 8, 8)}
    left_first = torch.cat([torch.full((4, 32), 3.0), torch.ones(4, 32)], 1)
    gates = {"depthwise": left_first, "mix": left_first, "score": torch.ones(4, 32)}
    pruned = prune(model, inputs, 0.5, sensitivity=Sensitivity("compute", gates))
    widths = channel_widths(pruned)
    assert widths["left"] == 32 > widths["right"], "which magnitudes would not give"
    assert channel_widths(prune(model, inputs, 0.5, widths=widths)) == widths


LAYERS = {"shallow": LayerCost(1, 16, 160.0), "deep": LayerCost(16, 32, 40.0), "head": LayerCost(32, 2, 4.0)}


def groups(**importance: float) -> dict[str, ChannelGroup]:
    return {
        "shallow": ChannelGroup(16, {"deep": 1}, {"shallow": 1}, (importance.get("shallow", 1.0),) * 16, 8),
        "deep": ChannelGroup(32, {"head": 1}, {"deep": 1}, (importance.get("deep", 1.0),) * 32, 4),
    }


def test_what_is_worth_least_for_its_cost_goes_first() -> None:
    assert allocate(groups(), LAYERS, 160.0, 4) == {"shallow": 12, "deep": 32}
    assert allocate(groups(shallow=100.0), LAYERS, 170.0, 4) == {"shallow": 16, "deep": 4}


def test_what_a_step_saves_too_much_is_given_back() -> None:
    assert allocate(groups(deep=0.01), LAYERS, 110.0, 4) == {"shallow": 8, "deep": 32}


def test_no_group_gets_below_its_least() -> None:
    assert allocate(groups(shallow=0.0), LAYERS, 110.0, 4)["shallow"] == 8
    with pytest.raises(Unsupported, match=r"least channels of every layer \(4 or more\) cost 1\.\d\d times"):
        allocate(groups(), LAYERS, 60.0, 4)


def test_a_budget_of_everything_keeps_everything() -> None:
    assert allocate(groups(), LAYERS, 204.0, 4) == {"shallow": 16, "deep": 32}
