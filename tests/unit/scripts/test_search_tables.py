"""What the tables say of a network is what the network itself is and does."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from benchmarks.shared.search_tables import CELLS, EDGES, OPERATIONS, STAGES, computed, static_figures
from torch import Tensor, nn

from edgedeploy.compress.sizes import size_of
from edgedeploy.records.artifact import TensorSpec


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul(0.0)


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
    weights = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(nn.ReLU(), weights, nn.BatchNorm2d(outputs))


def edge(operation: str, channels: int) -> nn.Module:
    kernel = int(operation[-1])
    if operation == "avg_pool_3x3":
        return nn.AvgPool2d(kernel, 1, 1, count_include_pad=False)
    return convolution(channels, channels, kernel)


class Cell(nn.Module):
    def __init__(self, operations: tuple[str, ...], channels: int) -> None:
        super().__init__()
        made = {"none": Nothing, "skip_connect": nn.Identity}
        self.edges = nn.ModuleList(made[name]() if name in made else edge(name, channels) for name in operations)

    def forward(self, x: Tensor) -> Tensor:
        nodes: list[Any] = [x, 0, 0, 0]
        for name, operation in zip(EDGES, self.edges, strict=True):
            source, node = map(int, name[-2:])
            nodes[node] = nodes[node] + operation(nodes[source])
        found: Tensor = nodes[3]
        return found


class Reduction(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.way = nn.Sequential(convolution(inputs, outputs, 3, 2), convolution(outputs, outputs, 3))
        self.short = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.way(x) + self.short(x)  # type: ignore[no-any-return]


class NasBench201:
    """A task in as much as its size is asked: the network of Dong and Yang (2020), section 2, for 100 classes."""

    def build(self, **arch: Any) -> nn.Module:
        operations = tuple(arch[name] for name in EDGES)
        widths = [channels for channels, _ in STAGES]
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0])]
        for before, channels in zip([0, *widths], widths, strict=False):
            layers += [Reduction(before, channels)] if before else []
            layers += [Cell(operations, channels) for _ in range(CELLS)]
        head = (nn.BatchNorm2d(widths[-1]), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return nn.Sequential(*layers, *head, nn.Linear(widths[-1], 100))

    def input_specs(self, **arch: Any) -> tuple[TensorSpec, ...]:
        return (TensorSpec("x", "float32", (1, 3, 32, 32)),)


@pytest.mark.parametrize(
    ("operations", "depth"),
    [
        ("none skip_connect avg_pool_3x3 none none none", 1),
        ("nor_conv_3x3 none none skip_connect none none", 6),  # a layer that leads nowhere
        ("nor_conv_1x1 avg_pool_3x3 nor_conv_3x3 skip_connect nor_conv_3x3 nor_conv_1x1", 6 + 15 * 3),
    ],
)
def test_a_table_tells_of_a_network_what_a_study_finds_of_it(operations: str, depth: int) -> None:
    names = operations.split()
    found = static_figures(names)
    assert found["depth"] == depth
    assert size_of(NasBench201(), dict(zip(EDGES, names, strict=True))) == found  # type: ignore[arg-type]


def test_cells_with_one_text_compute_the_same() -> None:
    x = torch.rand(1, 2, 4, 4)
    cells = list(
        itertools.product(OPERATIONS[:3], repeat=len(EDGES))
    )  # without weights, so that answers can be compared
    answers = [Cell(names, 2)(x) for names in cells]
    by_text: dict[str, list[Tensor]] = {}
    for names, answer in zip(cells, answers, strict=True):
        by_text.setdefault(computed(names), []).append(answer)
    for text, alike in by_text.items():
        assert all(torch.allclose(answer, alike[0], atol=1e-5) for answer in alike), text
    assert all(torch.equal(answer, x) for answer in by_text["x"])
    assert computed(("skip_connect", "none", "skip_connect", "none", "none", "skip_connect")) == "x"
    assert 1 < len(by_text) < len(cells)


@pytest.mark.parametrize(
    ("operations", "text"),
    [
        ("nor_conv_3x3 none none skip_connect none none", "x"),  # the layer leads nowhere
        ("none none none skip_connect nor_conv_3x3 none", "nor_conv_3x3()+x"),  # it has no input and takes its time
        ("nor_conv_3x3 none none skip_connect skip_connect none", "nor_conv_3x3(x)+x"),
        ("skip_connect none none none nor_conv_3x3 none", "nor_conv_3x3(x)"),
    ],
)
def test_what_a_cell_computes_has_what_takes_time(operations: str, text: str) -> None:
    assert computed(operations.split()) == text
