"""A residual U-Net for denoising: residual blocks, skips by addition, and the input added to what comes out.

The layout is DRUNet's (Zhang et al., Plug-and-Play Image Restoration with Deep Denoiser Prior, 2021), in small: strided
convolutions down, transposed ones up, no batch norm, which blurs what an image's values are.

A folded network works on an image whose squares of 2 x 2 pixels lie behind each other as channels (as FFDNet does, Zhang et
al., FFDNet: Toward a Fast and Flexible Solution for CNN based Image Denoising, 2018): no value is lost, and no layer works
at full resolution, where most of the time goes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any


def build_denoiser(
    *, channels: int, base: int, depth: int, blocks: int, seed: int, fold: int = 1, gain: float = 1.0
) -> Any:
    """A ``torch.nn.Module``: (N, channels, H, W) to the same shape; H and W divisible by fold * 2^depth.

    ``base`` channels at the first level, doubled at each of ``depth`` steps down; ``blocks`` residual blocks at each
    level on the way down and again on the way up. The first level has full resolution, or with ``fold`` so many times fewer
    rows and columns. At the start it answers its input.

    Layers see values ``gain`` times as large as those of the image: noise that is a thousandth of an image's range is
    learned many times faster where it is a hundredth.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _denoiser_class()(channels, [base * 2**level for level in range(depth + 1)], blocks, fold, gain)


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
        def __init__(self, channels: int, widths: list[int], blocks: int, fold: int, gain: float) -> None:
            super().__init__()
            # Kept with the weights, so that those of a network with other units are not taken for its own.
            self.register_buffer("gain", torch.tensor(gain))
            self._gain = gain
            steps = list(pairwise(widths))
            self.fold: nn.Module = nn.PixelUnshuffle(fold) if fold > 1 else nn.Identity()
            self.unfold: nn.Module = nn.PixelShuffle(fold) if fold > 1 else nn.Identity()
            channels *= fold * fold
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
            value = self.stem(self.fold(image * self._gain))
            for level, stage in enumerate(self.encode):
                value = stage(self.down[level - 1](skips[-1]) if level else value)
                skips.append(value)
            for level in reversed(range(len(self.up))):
                value = self.decode[level](self.up[level](value) + skips[level])
            return image + self.unfold(self.head(value)) / self._gain  # type: ignore[no-any-return]

    def _chain(width: int, blocks: int) -> nn.Sequential:
        return nn.Sequential(*(Block(width) for _ in range(blocks)))

    return Denoiser
