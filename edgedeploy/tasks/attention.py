"""Attention, and the two blocks made of it: of tokens among each other, and both ways between a prompt and an image. Imports
torch, and is imported inside functions."""

from __future__ import annotations

from typing import Final

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

EXPANSION: Final = 4
"""Hidden channels of a block's two linear layers, for one of the token's."""


class Attention(nn.Module):
    """``heads`` divides ``dim``. Tokens are (N, T, dim)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.out = nn.Linear(dim, dim)

    def split(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, T, dim) to (N, heads, T, dim / heads)."""
        return tokens.reshape(*tokens.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """``mask``, where there is one, is added to the products before the softmax."""
        parts = (self.split(self.query(query)), self.split(self.key(key)), self.split(self.value(value)))
        found = F.scaled_dot_product_attention(*parts, attn_mask=mask)
        result: torch.Tensor = self.out(found.transpose(1, 2).flatten(2))
        return result


def mlp(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, EXPANSION * dim), nn.GELU(), nn.Linear(EXPANSION * dim, dim))


class Block(nn.Module):
    """Norms before attention and MLP (Dosovitskiy et al., "An image is worth 16x16 words", 2021)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.mlp = mlp(dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        seen = self.first(tokens)
        tokens = tokens + self.attention(seen, seen, seen)
        result: torch.Tensor = tokens + self.mlp(self.second(tokens))
        return result


class TwoWay(nn.Module):
    """The prompt's tokens attend to themselves, then to the image, and the image to them (SAM's decoder block)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.own, self.to_image, self.to_tokens = (Attention(dim, heads) for _ in range(3))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(4))
        self.mlp = mlp(dim)

    def forward(
        self, tokens: torch.Tensor, image: torch.Tensor, tokens_at: torch.Tensor, image_at: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``tokens_at`` and ``image_at`` say where tokens are; they are added to what is compared, not to what is taken."""
        placed = tokens + tokens_at
        tokens = self.norms[0](tokens + self.own(placed, placed, tokens))
        tokens = self.norms[1](tokens + self.to_image(tokens + tokens_at, image + image_at, image))
        tokens = self.norms[2](tokens + self.mlp(tokens))
        image = self.norms[3](image + self.to_tokens(image + image_at, tokens + tokens_at, tokens))
        return tokens, image
