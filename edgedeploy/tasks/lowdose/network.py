"""A residual U-Net for denoising: residual blocks, skips by addition, and the input added to what comes out.

The layout is DRUNet's (Zhang et al., Plug-and-Play Image Restoration with Deep Denoiser Prior, 2021), in small: strided
convolutions down, transposed ones up, no batch norm, which blurs what an image's values are.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any


def build_denoiser(*, channels: int, base: int, depth: int, blocks: int, seed: int) -> Any:
    """A ``torch.nn.Module``: (N, channels, H, W) to the same shape; H and W divisible by 2^depth.

    ``base`` channels at full resolution, doubled at each of ``depth`` steps down; ``blocks`` residual blocks at each
    level on the way down and again on the way up. At the start it answers its input.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _denoiser_class()(channels, [base * 2**level for level in range(depth + 1)], blocks)


def _denoiser_class() -> Any:
    """The module class, made on first use: torch is imported when a model is built, not with the package."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.first = nn.Conv2d(width, width, 3, padding=1)
            self.second = nn.Conv2d(width, width, 3, padding=1)

        def forward(self, value: torch.Tensor) -> torch.Tensor:
            return value + self.second(torch.relu(self.first(value)))  # type: ignore[no-any-return]

    class Denoiser(nn.Module):
        def __init__(self, channels: int, widths: list[int], blocks: int) -> None:
            super().__init__()
            steps = list(pairwise(widths))
            self.stem = nn.Conv2d(channels, widths[0], 3, padding=1)
            self.encode = nn.ModuleList([_chain(width, blocks) for width in widths])
            self.down = nn.ModuleList([nn.Conv2d(wide, deep, 2, stride=2) for wide, deep in steps])
            self.up = nn.ModuleList([nn.ConvTranspose2d(deep, wide, 2, stride=2) for wide, deep in steps])
            self.decode = nn.ModuleList([_chain(width, blocks) for width in widths[:-1]])
            self.head = nn.Conv2d(widths[0], channels, 3, padding=1)
            nn.init.zeros_(self.head.weight)
            assert self.head.bias is not None
            nn.init.zeros_(self.head.bias)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            skips: list[torch.Tensor] = []
            value = self.stem(image)
            for level, stage in enumerate(self.encode):
                value = stage(self.down[level - 1](skips[-1]) if level else value)
                skips.append(value)
            for level in reversed(range(len(self.up))):
                value = self.decode[level](self.up[level](value) + skips[level])
            return image + self.head(value)  # type: ignore[no-any-return]

    def _chain(width: int, blocks: int) -> nn.Sequential:
        return nn.Sequential(*(Block(width) for _ in range(blocks)))

    return Denoiser
