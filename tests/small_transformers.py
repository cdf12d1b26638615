"""Small vision transformers for tests, in the ways in which people write them, and a task that one of them learns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from edgedeploy.interfaces.task import Array, Case, Split, TrainRecipe
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Scalar

SIZE, PATCH = 64, 16


class Joint(nn.Module):
    """Attention with one layer for queries, keys and values, as in timm."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cases, count, dim = x.shape
        q, k, v = self.qkv(x).reshape(cases, count, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(cases, count, dim))


class Apart(nn.Module):
    """Attention with three layers, whose answer is a tuple, as in transformers."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.n_heads = heads
        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        def split(values: torch.Tensor) -> torch.Tensor:
            return values.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(split(self.query(x)), split(self.key(x)), split(self.value(x)))
        return self.out(mixed.transpose(1, 2).flatten(2)), None


class Mixed(nn.Module):
    """Queries, keys and values alone: the last layer is elsewhere, as in BERT."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.num_attention_heads = heads
        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (one(x).unflatten(-1, (self.num_attention_heads, -1)).transpose(1, 2) for one in self.children())
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Elsewhere(nn.Module):
    """Attention whose last layer is in another module than the heads."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.mixed = Mixed(dim, heads)
        self.dense, self.norm = nn.Linear(dim, dim), nn.LayerNorm(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.norm(self.dense(self.mixed(x)))
        return answer


class Several(nn.Module):
    """torch's own attention layer."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(dim, heads, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.layer(x, x, x)[0]
        return answer


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, kind: type[nn.Module]) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = kind(dim, heads)
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = self.attn(self.norm1(x))
        x = x + (mixed[0] if isinstance(mixed, tuple) else mixed)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class SmallViT(nn.Module):
    """Gray images (cases, 1, 64, 64) to four logits; ``kind`` is its attention, or "torch" for ``nn.TransformerEncoder``."""

    def __init__(
        self, kind: type[nn.Module] | str = Joint, dim: int = 64, depth: int = 4, heads: int = 4, patch: int = PATCH
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, dim, patch, patch)
        self.first = nn.Parameter(torch.zeros(1, 1, dim))
        self.places = nn.Parameter(0.3 * torch.randn(1, (SIZE // patch) ** 2 + 1, dim))
        if isinstance(kind, str):
            layer = nn.TransformerEncoderLayer(dim, heads, 4 * dim, 0.0, "gelu", batch_first=True, norm_first=True)
            self.blocks: nn.Module = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        else:
            self.blocks = nn.Sequential(*(Block(dim, heads, kind) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(tokens.shape[0], -1, -1), tokens], 1) + self.places
        answer: torch.Tensor = self.head(self.norm(self.blocks(tokens))[:, 0])
        return answer


KINDS: Mapping[str, type[nn.Module] | str] = {
    **{"joint": Joint, "apart": Apart, "elsewhere": Elsewhere, "several": Several, "torch": "torch"}
}


def vit(kind: str = "joint", seed: int = 0, **sizes: int) -> nn.Module:
    torch.manual_seed(seed)
    return SmallViT(KINDS[kind], **sizes).eval()


def images(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A bright and a dim blob on noise, (cases, 1, 64, 64); the label is the quadrant, 0 to 3, of the bright one."""
    drawn = torch.Generator().manual_seed(seed)
    place = torch.rand(count, 2, 2, generator=drawn) * (SIZE - 12) + 6
    at = torch.arange(SIZE)
    found = 0.1 * torch.randn(count, 1, SIZE, SIZE, generator=drawn)
    for blob, bright in enumerate((2.0, 0.5)):
        y, x = at[None, :, None] - place[:, blob, 0, None, None], at[None, None, :] - place[:, blob, 1, None, None]
        found[:, 0] += bright * torch.exp(-(x**2 + y**2) / 18.0)
    halves = (place[:, 0] > SIZE / 2).long()
    return found, 2 * halves[:, 0] + halves[:, 1]


class BlobTask:
    """In which quadrant the brighter of two blobs is, by a :class:`SmallViT`. Its students are a narrower one and a CNN."""

    name = "blobs"
    architecture: Mapping[str, Sequence[Scalar]] = {"kind": ("joint", "torch")}
    metrics: Mapping[str, MetricInfo] = {"right": MetricInfo("maximize", "1", "share of right answers", 1.0)}
    recovery_recipe = TrainRecipe(4, 16, 2e-3, distill_weight=0.5)
    baseline_recipe = TrainRecipe(16, 16, 2e-3)
    students: Mapping[str, Callable[..., Any] | Mapping[str, Scalar]]

    def __init__(self, depth: int = 4, cases: int = 512, seed: int = 0) -> None:
        self._depth = depth
        self.drawn = {
            split: images(count, 10 * seed + place)
            for place, (split, count) in enumerate(
                {"train": cases, "calibration": 32, "selection": 96, "confirmation": 8}.items()
            )
        }
        self.students = {"narrow": {"dim": 32, "heads": 2}, "cnn": small_cnn}

    def build(self, **arch: Any) -> nn.Module:
        sizes = {"dim": 64, "heads": 4, "depth": self._depth, **arch}
        with torch.random.fork_rng(devices=[]):
            return vit(str(sizes.pop("kind")), **sizes)

    def input_specs(self, **arch: Scalar) -> tuple[TensorSpec, ...]:
        return (TensorSpec("image", "float32", (1, 1, SIZE, SIZE)),)

    def cases(self, split: Split) -> Sequence[Case]:
        return tuple(Case(f"{split}-{number}", split) for number in range(len(self.drawn[split][1])))

    def inputs(self, case: Case, **arch: Scalar) -> dict[str, Array]:
        return {"image": self.drawn[case.split][0][int(case.id.partition("-")[2])][None].numpy()}

    def evaluate(self, outputs: Mapping[str, Array], case: Case) -> dict[str, float | None]:
        (scores,) = outputs.values()
        return {
            "right": float(int(np.argmax(scores)) == int(self.drawn[case.split][1][int(case.id.partition("-")[2])]))
        }

    def batches(self, seed: int, batch_size: int, **arch: Scalar) -> Iterator[tuple[Any, Any]]:
        given, labels = images(len(self.drawn["train"][1]), 1000 + seed)  # others in each epoch
        yield from zip(given.split(batch_size), labels.split(batch_size), strict=True)

    def loss(self, outputs: Any, target: Any) -> Any:
        return F.cross_entropy(outputs, target)


def small_cnn(**arch: Scalar) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(
            *(nn.Conv2d(1, 16, 5, 4, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2)),
            *(nn.Flatten(), nn.Linear(128, 4)),
        )


def make_task(depth: int = 4, cases: int = 512) -> BlobTask:
    return BlobTask(depth, cases)
