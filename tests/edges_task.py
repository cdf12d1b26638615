"""A task whose network trains in milliseconds, with training and without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from edgedeploy.interfaces.task import Array, Case, Split, TrainRecipe
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Scalar, Variant


class Edges:
    """Find where a noisy image brightens. Cannot train: no batches, no loss."""

    name = "edges"
    architecture: Mapping[str, Sequence[Scalar]] = {"size": (16, 8), "mix": ("wide", "narrow")}
    metrics: Mapping[str, MetricInfo] = {}

    def build(self, **arch: Scalar) -> nn.Module:
        torch.manual_seed(3)
        kernel = 5 if arch["mix"] == "wide" else 3
        mix = nn.Conv2d(16, 16, kernel, padding=kernel // 2)
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), mix, nn.ReLU(), nn.Conv2d(16, 2, 1)
        )

    def input_specs(self, **arch: Scalar) -> tuple[TensorSpec, ...]:
        return (TensorSpec("image", "float32", (1, 1, int(arch["size"]), int(arch["size"]))),)

    def cases(self, split: Split) -> Sequence[Case]:
        return [Case(f"{split}-{index}", split) for index in range(32)]

    def inputs(self, case: Case, **arch: Scalar) -> dict[str, Array]:
        spec = self.input_specs(**arch)[0]
        return {"image": np.zeros(spec.shape, np.float32)}

    def evaluate(self, outputs: Mapping[str, Array], case: Case) -> dict[str, float | None]:
        return {}


class TrainableEdges(Edges):
    baseline_recipe = TrainRecipe(epochs=6, batch_size=8, learning_rate=1e-2, warmup_epochs=0)
    recovery_recipe = TrainRecipe(epochs=3, batch_size=8, learning_rate=5e-3, warmup_epochs=0, distill_weight=0.5)

    def batches(self, seed: int, batch_size: int, **arch: Scalar) -> Iterator[tuple[Any, Any]]:
        generator = torch.Generator().manual_seed(seed)
        size = int(arch["size"])
        for _ in range(len(self.cases("train")) // batch_size):
            image = torch.randn(batch_size, 1, size, size, generator=generator)
            yield image, (nn.functional.avg_pool2d(image, 3, 1, 1)[:, 0] > 0).long()

    def loss(self, outputs: Any, target: Any) -> Any:
        return nn.functional.cross_entropy(outputs, target)


def variant(width: float = 1.0, size: int = 16, mix: str = "wide") -> Variant:
    return Variant("onnxruntime", "float32", width, (("mix", mix), ("size", size)), 1)


def loss_of(task: TrainableEdges, model: nn.Module, size: int = 16) -> float:
    with torch.inference_mode():
        return float(np.mean([task.loss(model(x), y) for x, y in task.batches(99, 8, size=size)]))
