"""The task of ``small_transformers`` by a network of blocks whose channels can be pruned: it gives widths and depths."""

from __future__ import annotations

from typing import Any

import torch
from small_transformers import BlobTask
from torch import nn


class Mixed(nn.Module):
    """A block whose channels torch-pruning can take away."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.first, self.second, self.third = nn.Linear(dim, 64), nn.Linear(64, 64), nn.Linear(64, dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(self.second(torch.relu(self.first(self.norm(tokens)))))
        answer: torch.Tensor = tokens + self.third(inner)
        return answer


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(1, 32, 16, 16), nn.BatchNorm2d(32)
        self.blocks = nn.Sequential(*(Mixed(32) for _ in range(4)))
        self.head = nn.Linear(32, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(self.patches(image)).flatten(2).transpose(1, 2)
        answer: torch.Tensor = self.head(self.blocks(tokens).mean(1))
        return answer


class MixerTask(BlobTask):
    def build(self, **arch: Any) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return Mixer()
