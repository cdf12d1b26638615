"""How large an architecture is, without running it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from small_transformers import BlobTask

from edgedeploy.compress.shaped import calibration_feeds, one_case
from edgedeploy.compress.shrink.apply import shrunk
from edgedeploy.compress.sizes import shapes_of, size_of, widths_of
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.shrink import Shrink


class Convolutions:
    """A task in as much as its size is asked."""

    looks_at_values = False

    def build(self, **arch: Any) -> torch.nn.Module:
        channels = int(arch["channels"])
        model = torch.nn.Sequential(
            torch.nn.Conv2d(1, channels, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(channels, 2, 1)
        )
        looks = self.looks_at_values

        class Looking(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = model

            def forward(self, x: torch.Tensor) -> Any:
                return self.inner(x) if not looks or bool(x.sum() > 0) else x

        return Looking()

    def input_specs(self, **arch: Any) -> tuple[TensorSpec, ...]:
        return (TensorSpec("x", "float32", (1, 1, 8, 10)),)

    def cases(self, split: str, **arch: Any) -> tuple[()]:
        return ()


def test_parameters_and_multiply_accumulates_are_counted_without_moving_the_random_state() -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    found = size_of(Convolutions(), {"channels": 4})  # type: ignore[arg-type]
    assert found == {"parameters": 4 * 9 + 4 + 2 * 4 + 2, "macs": 80 * (4 * 9 + 2 * 4), "depth": 2}
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_forward_that_looks_at_values_has_parameters_alone() -> None:
    task = Convolutions()
    task.looks_at_values = True
    assert set(size_of(task, {"channels": 4})) == {"parameters"}  # type: ignore[arg-type]


def test_widths_are_those_of_the_pruned_network() -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    task = Convolutions()
    assert widths_of(task, {"channels": 16}, 0.5) == (8, 2)  # type: ignore[arg-type]
    assert widths_of(task, {"channels": 16}, 0.6) == (8, 2)  # type: ignore[arg-type]
    assert widths_of(task, {"channels": 16}, 0.3) == (4, 2)  # type: ignore[arg-type]
    assert widths_of(task, {"channels": 4}, 0.5) == (), "nothing can be taken from it"  # type: ignore[arg-type]
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        (Shrink(depth=0.5), Shrink(depth=0.6), Shrink(depth=0.75)),
        (Shrink(heads=0.5), Shrink(heads=0.7), Shrink(heads=0.75)),
        (Shrink(mlp=0.5), Shrink(mlp=0.51), Shrink(mlp=0.75)),
    ],
)
def test_equal_shapes_are_one_network_whatever_the_share(one: Shrink, same: Shrink, other: Shrink) -> None:
    task, arch = BlobTask(cases=8), {"kind": "joint"}
    before = torch.random.get_rng_state()
    found = [shapes_of(task, arch, shrink) for shrink in (one, same, other)]
    assert found[0] == found[1] != found[2] and all(found)
    assert torch.equal(before, torch.random.get_rng_state())
    first, second = (
        shrunk(task.build(**arch), shrink, one_case(task, arch), calibration_feeds(task, shrink, arch)).state_dict()
        for shrink in (one, same)
    )
    assert list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


def test_a_network_that_loses_nothing_so_has_no_shapes() -> None:
    assert shapes_of(Convolutions(), {"channels": 16}, Shrink(depth=0.5)) == ()  # type: ignore[arg-type]


@dataclass
class Answer:
    masks: torch.Tensor


class TwoInputs(torch.nn.Module):
    """Answers in a class of its own, and names its inputs in another order than the task."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(8, 8), torch.nn.Linear(8, 4)

    def forward(self, scale: torch.Tensor, x: torch.Tensor) -> Answer:
        return Answer(self.second(self.first(x)) * scale)


class Of:
    """A task of that module."""

    def __init__(self, make: Callable[[], torch.nn.Module]) -> None:
        self.make = make

    def build(self, **arch: Any) -> torch.nn.Module:
        return self.make()

    def input_specs(self, **arch: Any) -> tuple[TensorSpec, ...]:
        return (TensorSpec("x", "float32", (1, 8)), TensorSpec("scale", "float32", (1, 1)))


def test_a_model_is_called_and_answers_as_where_it_is_exported() -> None:
    found = size_of(Of(TwoInputs), {})  # type: ignore[arg-type]
    assert found == {"parameters": 72 + 36, "macs": 64 + 32, "depth": 2}


def test_a_model_whose_weights_have_no_shape_yet_has_no_size() -> None:
    assert size_of(Of(lambda: torch.nn.LazyLinear(8)), {}) == {}  # type: ignore[arg-type]


class OneInput(Of):
    def input_specs(self, **arch: Any) -> tuple[TensorSpec, ...]:
        return (TensorSpec("x", "float32", (1, 8)),)


def tied() -> torch.nn.Module:
    linear = torch.nn.Linear(8, 8)
    return torch.nn.Sequential(linear, torch.nn.BatchNorm1d(8), linear)


def test_a_module_that_the_task_holds_on_to_stays_as_it_is() -> None:
    kept = tied()
    before = {name: value.clone() for name, value in kept.state_dict().items()}
    assert size_of(OneInput(lambda: kept), {}) == {"parameters": 72 + 16, "macs": 128, "depth": 2}  # type: ignore[arg-type]
    assert all(torch.equal(value, before[name]) for name, value in kept.state_dict().items())


def test_a_scripted_module_has_a_size() -> None:
    found = size_of(OneInput(lambda: torch.jit.script(tied())), {})  # type: ignore[arg-type]
    assert found == {"parameters": 72 + 16, "macs": 128, "depth": 2}


def test_a_build_that_fails_has_no_size() -> None:
    assert size_of(Convolutions(), {"canals": 4}) == {}  # type: ignore[arg-type]
