"""A BERT encoder (Devlin et al., 2019) with mean pooling, as sentence embeddings are made by it, and the small image tower
beside it. Imports torch, and is imported inside functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from edgedeploy.tasks.attention import Attention, mlp

HIDDEN: Final = -1e4
"""Added to products with the padding before the softmax: far enough for float16 too."""
NORM_EPS: Final = 1e-12
IMAGE_CHANNELS: Final = (16, 32, 64, 128)


@dataclass(frozen=True)
class TextShape:
    """``words`` of the vocabulary, ``places`` that a text may have, ``dim`` channels of a token, ``blocks`` of ``heads``."""

    words: int
    places: int
    dim: int
    blocks: int
    heads: int


class TextBlock(nn.Module):
    """Norms after attention and MLP."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention, self.mlp = Attention(dim, heads), mlp(dim)
        self.first, self.second = nn.LayerNorm(dim, NORM_EPS), nn.LayerNorm(dim, NORM_EPS)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        tokens = self.first(tokens + self.attention(tokens, tokens, tokens, mask))
        found: torch.Tensor = self.second(tokens + self.mlp(tokens))
        return found


class TextEncoder(nn.Module):
    """ids and mask (N, T) of whole numbers, 1 in the mask at what is no padding, to the mean of the tokens (N, dim)."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(shape.words, shape.dim), nn.Embedding(shape.places, shape.dim)
        self.kind = nn.Parameter(torch.zeros(shape.dim))
        self.norm = nn.LayerNorm(shape.dim, NORM_EPS)
        self.blocks = nn.ModuleList(TextBlock(shape.dim, shape.heads) for _ in range(shape.blocks))

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        there = mask.to(torch.float32)
        tokens = self.norm(self.words(ids) + self.places.weight[: ids.shape[1]] + self.kind)
        hidden = ((1 - there) * HIDDEN)[:, None, None, :]
        for block in self.blocks:
            tokens = block(tokens, hidden)
        found: torch.Tensor = (tokens * there[:, :, None]).sum(dim=1) / there.sum(dim=1, keepdim=True)
        return found


class TwoTowers(nn.Module):
    """Image (N, C, H, W), ids and mask (N, T) to two embeddings (N, dim) of length 1. All products with weights are
    convolutions in the image's tower and matrix products in the text's, so a precision plan names a tower by them."""

    def __init__(self, in_channels: int, text: TextEncoder, text_dim: int, dim: int) -> None:
        super().__init__()
        self.image = nn.Sequential(
            *(_down(*pair) for pair in pairwise((in_channels, *IMAGE_CHANNELS))),
            nn.Conv2d(IMAGE_CHANNELS[-1], dim, 3, padding=1),
        )
        self.text, self.project = text, nn.Linear(text_dim, dim, bias=False)

    def forward(self, image: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = self.image(image).mean(dim=(2, 3))
        return {
            "image_embedding": F.normalize(seen, dim=-1),
            "text_embedding": F.normalize(self.project(self.text(ids, mask)), dim=-1),
        }


def load_bert(weights: Mapping[str, Any], heads: int) -> TextEncoder:
    """The encoder whose tensors have the names that BERT's have in Hugging Face's files. Raises ``KeyError`` and
    ``RuntimeError`` for others."""
    words, places = weights["embeddings.word_embeddings.weight"], weights["embeddings.position_embeddings.weight"]
    blocks = 1 + max(int(found[1]) for name in weights if (found := re.match(r"encoder\.layer\.(\d+)\.", name)))
    encoder = TextEncoder(TextShape(len(words), len(places), words.shape[1], blocks, heads))
    own = {_renamed(name): value for name, value in weights.items() if _renamed(name)}
    encoder.load_state_dict({**own, "kind": weights["embeddings.token_type_embeddings.weight"][0]})
    return encoder.requires_grad_(False)


_NAMES: Final = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.out",
    "attention.output.LayerNorm": "first",
    "intermediate.dense": "mlp.0",
    "output.dense": "mlp.2",
    "output.LayerNorm": "second",
    "embeddings.word_embeddings": "words",
    "embeddings.position_embeddings": "places",
    "embeddings.LayerNorm": "norm",
}


def _renamed(name: str) -> str:
    """Our name of a tensor; empty for one that the encoder has not (the pooler, the kinds of tokens)."""
    stem, _, last = name.rpartition(".")
    layer = re.match(r"encoder\.layer\.(\d+)\.(.+)", stem)
    found = _NAMES.get(layer[2] if layer else stem, "")
    prefix = f"blocks.{layer[1]}." if layer else ""
    return f"{prefix}{found}.{last}" if found else ""


def _down(before: int, after: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())
