"""How large an architecture is, without running it."""

from __future__ import annotations

from typing import Any

import torch

from edgedeploy.compress.sizes import size_of
from edgedeploy.records.artifact import TensorSpec


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


def test_a_build_that_fails_has_no_size() -> None:
    assert size_of(Convolutions(), {"canals": 4}) == {}  # type: ignore[arg-type]
