"""The network of the checkpoint: ``make_net`` is named in study.toml and called with the number of classes."""

from __future__ import annotations

import torch


def make_net(classes: int, in_channels: int = 1) -> torch.nn.Module:
    return torch.nn.Sequential(
        *(
            torch.nn.Conv2d(in_channels, 16, 3, padding=1),
            torch.nn.BatchNorm2d(16),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
        ),
        *(torch.nn.Conv2d(16, 32, 3, padding=1), torch.nn.BatchNorm2d(32), torch.nn.ReLU(), torch.nn.MaxPool2d(2)),
        *(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, classes)),
    )
