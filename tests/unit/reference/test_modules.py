"""Whose weights a node of the reference has."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from edgedeploy.records.artifact import TensorSpec
from edgedeploy.reference.export import export_reference
from edgedeploy.reference.modules import modules_of
from edgedeploy.reference.weights import Numbers, numbers


class Mixed(nn.Module):
    """Folded batch norms, a transposed convolution, a layer that runs twice, and one whose weights are transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.twice = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.mix, self.last = nn.Linear(4, 6), nn.Linear(6, 2)
        for norm in (self.stem[1], self.norm):
            norm.running_mean.uniform_()
            norm.running_var.uniform_(0.5, 2.0)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        value = self.norm(self.up(self.twice(self.twice(self.stem(image)))))
        tokens = torch.relu(self.mix(value.flatten(2).transpose(1, 2)))
        out: torch.Tensor = self.last(tokens.mean(1))
        return out


def test_every_layer_is_found_under_the_name_of_its_module(tmp_path: Path) -> None:
    import onnx

    torch.manual_seed(0)
    model, path = Mixed().eval(), tmp_path / "reference.onnx"
    export_reference(model, (TensorSpec("image", "float32", (1, 1, 8, 8)),), path)
    asked: list[str] = []

    def of(name: str) -> Numbers:
        asked.append(name)
        return numbers(model.get_submodule(name).weight.detach().numpy())

    names = ("stem.0", "twice", "up", "mix", "last", "gone")
    found = modules_of(path, names[:-1], of)
    kinds = {node.name: node.op_type for node in onnx.load(str(path)).graph.node}
    assert sorted(found.values()) == sorted([*names[:-1], "twice"])
    assert {kinds[node] for node in found} <= {"Conv", "ConvTranspose", "Gemm", "MatMul"}
    assert asked == ["mix"], "a weight that has its name needs no comparison"
