"""A U-Net that is promptable by a box or a point: teacher of the transformer when wide, and its small student.

The prompt becomes two maps beside the image at half its resolution, computed inside of the network: the inside of the
box, and a Gaussian around the point.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import nn

from edgedeploy.tasks.segmentation.unet import unet_of

STEPS_DOWN: Final = 3
"""Of the U-Net behind the first strided convolution."""
POINT_SIGMA: Final = 0.05
"""Of the Gaussian around a point, as a share of the image's side."""


class PromptableCnn(nn.Module):
    """``base`` channels at half resolution, doubled at each of three steps down; sides are multiples of 16 pixels."""

    def __init__(self, in_channels: int, base: int, seed: int) -> None:
        super().__init__()
        convolution = nn.Conv2d(in_channels, base, 3, stride=2, padding=1, bias=False)
        self.first = nn.Sequential(convolution, nn.BatchNorm2d(base), nn.ReLU())
        channels = [base * 2**step for step in range(STEPS_DOWN + 1)]
        self.unet = unet_of(in_channels=base + 2, classes=2, channels=channels, upsampling="resize", seed=seed)

    def forward(self, image: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        value = self.first(image)
        each = prompt.shape[0] // image.shape[0]  # prompts of one image
        if each > 1:
            value = value.repeat_interleave(each, dim=0)
        found: torch.Tensor = self.unet(torch.cat([value, maps(prompt, *value.shape[-2:])], dim=1))
        return found


def maps(prompt: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(N, 2, H, W) of prompts (N, 2, 5): 1 inside the box and 0 outside, its edge one position wide; 1 at the point and less
    around it. Zeros where there is no such row."""
    y = ((torch.arange(height, dtype=torch.float32) + 0.5) / height)[None, :, None]
    x = ((torch.arange(width, dtype=torch.float32) + 0.5) / width)[None, None, :]
    (point_x, point_y, is_point), (low_x, low_y, _), (high_x, high_y, is_box) = (
        _row(prompt, kind) for kind in range(3)
    )
    box = _between(x, low_x, high_x, width) * _between(y, low_y, high_y, height) * is_box
    distance = (x - point_x) ** 2 + (y - point_y) ** 2
    return torch.stack([box, torch.exp(-distance / (2 * POINT_SIGMA**2)) * is_point], dim=1)


def _row(prompt: torch.Tensor, kind: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x, y and presence, each (N, 1, 1), of the row of a kind."""
    there = prompt[:, :, 2 + kind]
    x, y, presence = (
        value.sum(dim=1)[:, None, None] for value in (prompt[:, :, 0] * there, prompt[:, :, 1] * there, there)
    )
    return x, y, presence


def _between(places: torch.Tensor, low: torch.Tensor, high: torch.Tensor, count: int) -> torch.Tensor:
    return ((places - low) * count + 0.5).clamp(0, 1) * ((high - places) * count + 0.5).clamp(0, 1)
