"""The task of ``edges_task`` by a network whose multiplications and weights sit in different levels."""

from __future__ import annotations

import torch
from edges_task import TrainableEdges
from torch import nn

from edgedeploy.records.variant import Scalar

ARCH: dict[str, Scalar] = {"size": 16, "mix": "wide"}


def image() -> dict[str, torch.Tensor]:
    return {"image": torch.zeros(1, 1, 16, 16)}


class Levels(nn.Module):
    """Two levels with a skip by concatenation, a sum and a transposed convolution: multiplications sit in the first one,
    weights in the second."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(16, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU())
        self.deeper = nn.Conv2d(64, 64, 3, padding=1)
        self.up = nn.ConvTranspose2d(64, 16, 2, stride=2)
        self.join = nn.Conv2d(32, 16, 3, padding=1)
        self.classes = nn.Conv2d(16, 2, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        skip = self.first(image)
        deep = self.deep(nn.functional.max_pool2d(skip, 2))
        deep = torch.relu(deep + self.deeper(deep))
        out: torch.Tensor = self.classes(torch.relu(self.join(torch.cat([skip, self.up(deep)], 1))))
        return out


class LeveledEdges(TrainableEdges):
    def build(self, **arch: Scalar) -> nn.Module:
        torch.manual_seed(3)
        return Levels()
