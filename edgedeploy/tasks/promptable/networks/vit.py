"""A vision transformer with a light mask decoder, promptable by a box or a point.

After SAM (Kirillov et al., "Segment anything", 2023): the encoder sees the image alone, the decoder lets the tokens of the
prompt and those of the image attend to each other and multiplies the mask's token with the upscaled image. Two changes
make it learn from a few hundred images: patches are made by strided convolutions (Xiao et al., "Early convolutions help
transformers see better", 2021), and the maps of these go into the upscaling (as in Ke et al., "Segment anything in high
quality", 2023).

Positions are Fourier features of coordinates (Tancik et al., 2020), no learned table: the same weights take any resolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch
from torch import nn

from edgedeploy.tasks.attention import Attention, Block, TwoWay

KINDS: Final = 3
"""What a row of a prompt may be; see :mod:`edgedeploy.tasks.promptable.prompts`."""
DECODER_BLOCKS: Final = 2
DECODER_HEADS: Final = 4
LEAST_CHANNELS: Final = 16


@dataclass(frozen=True)
class VitShape:
    """``dim`` channels of a token, ``blocks`` of the encoder with ``heads`` heads; patches of ``patch`` pixels (a power
    of 2, at least 4); ``decoder_dim`` channels of a token in the decoder, a multiple of 8."""

    dim: int
    blocks: int
    heads: int
    patch: int
    decoder_dim: int


class PromptableVit(nn.Module):
    def __init__(self, in_channels: int, shape: VitShape) -> None:
        super().__init__()
        steps = int(math.log2(shape.patch))
        widths = [max(LEAST_CHANNELS, shape.dim // 2 ** (steps - step)) for step in range(1, steps)]
        self.stem = nn.ModuleList(_down(*pair) for pair in pairwise([in_channels, *widths, shape.dim]))
        self.position = Fourier(shape.dim)
        self.blocks = nn.ModuleList(Block(shape.dim, shape.heads) for _ in range(shape.blocks))
        self.norm = nn.LayerNorm(shape.dim)
        self.decoder = MaskDecoder(shape, widths)

    def forward(self, image: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        maps, value = [], image
        for stage in self.stem:
            value = stage(value)
            maps.append(value)
        height, width = value.shape[-2:]
        grid = positions(height, width)
        tokens = value.flatten(2).transpose(1, 2) + self.position(grid)
        for block in self.blocks:
            tokens = block(tokens)
        found: torch.Tensor = self.decoder(self.norm(tokens), grid, (height, width), maps[:-1], prompt)
        return found


class Fourier(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.frequencies: torch.Tensor
        self.register_buffer("frequencies", torch.randn(2, dim // 2) * 2 * math.pi)

    def forward(self, places: torch.Tensor) -> torch.Tensor:
        """(..., 2) in 0 to 1 to (..., dim). By elements: a matrix product would be rounded to bfloat16 in training."""
        x, y = 2 * places[..., :1] - 1, 2 * places[..., 1:] - 1
        angles = x * self.frequencies[0] + y * self.frequencies[1]
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class MaskDecoder(nn.Module):
    """``skips`` are the channels of the stem's maps, the largest map first; the last one is half as fine as the tokens'
    grid is coarse."""

    def __init__(self, shape: VitShape, skips: list[int]) -> None:
        super().__init__()
        dim = shape.decoder_dim
        self.narrow = nn.Linear(shape.dim, dim)
        self.position = Fourier(dim)
        self.kinds = nn.Linear(KINDS, dim)
        self.mask_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.blocks = nn.ModuleList(TwoWay(dim, DECODER_HEADS) for _ in range(DECODER_BLOCKS))
        self.last = Attention(dim, DECODER_HEADS)
        self.norm = nn.LayerNorm(dim)
        widths = [max(LEAST_CHANNELS, dim // 2**step) for step in range(len(skips) + 1)]
        self.up = nn.ModuleList(nn.ConvTranspose2d(*pair, 2, stride=2) for pair in pairwise(widths))
        self.skip = nn.ModuleList(nn.Conv2d(*pair, 1) for pair in zip(reversed(skips), widths[1:], strict=True))
        self.merge = nn.ModuleList(_merge(width) for width in widths[1:])
        self.product = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, widths[-1]))

    def forward(
        self,
        image: torch.Tensor,
        grid: torch.Tensor,
        size: tuple[int, int],
        maps: list[torch.Tensor],
        prompt: torch.Tensor,
    ) -> torch.Tensor:
        """``image`` (N, T, dim) are tokens at the places ``grid`` (1, T, 2) of a grid of ``size``, ``maps`` the stem's."""
        image = self.narrow(image)
        each = prompt.shape[0] // image.shape[0]  # prompts of one image
        if each > 1:
            image, *maps = (values.repeat_interleave(each, dim=0) for values in (image, *maps))
        tokens, image = self._attended(image, self.position(grid), prompt)
        value = image.transpose(1, 2).reshape(prompt.shape[0], -1, *size)
        for up, skip, merge, early in zip(self.up, self.skip, self.merge, reversed(maps), strict=True):
            value = merge(up(value) + skip(early))
        weights = self.product(tokens[:, 0])
        mask = (weights[:, :, None, None] * value).sum(dim=1, keepdim=True)
        return torch.cat([-mask, mask], dim=1) / 2

    def _attended(
        self, image: torch.Tensor, image_at: torch.Tensor, prompt: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        kinds = prompt[..., 2:]
        there = kinds.sum(dim=-1, keepdim=True)  # 0 for a row that is empty
        asked = (self.position(prompt[..., :2]) + self.kinds(kinds)) * there
        mask_token = self.mask_token.expand(prompt.shape[0], -1, -1)
        tokens = tokens_at = torch.cat([mask_token, asked], dim=1)
        for block in self.blocks:
            tokens, image = block(tokens, image, tokens_at, image_at)
        return self.norm(tokens + self.last(tokens + tokens_at, image + image_at, image)), image


def positions(height: int, width: int) -> torch.Tensor:
    """(1, H * W, 2): x and y of the middles of a grid's cells, as shares of its sides."""
    y = (torch.arange(height, dtype=torch.float32) + 0.5) / height
    x = (torch.arange(width, dtype=torch.float32) + 0.5) / width
    return torch.stack([x.repeat(height), y.repeat_interleave(width)], dim=-1)[None]


def _down(before: int, after: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())


def _merge(channels: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())
