"""A user's own task, as small as one can be: say whether the bright square is in the left or the right half.

Named in a study by ``kind = "python"``, ``object = "squares.py:make_task"``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from edgedeploy import Case, MetricInfo, Split, TensorSpec, TrainRecipe

SIDE = 16


class Squares:
    name = "squares"
    architecture: Mapping[str, Sequence[Any]] = {"kernel": (3, 5)}
    metrics: Mapping[str, MetricInfo] = {
        "correct": MetricInfo("maximize", "1", "share of right answers", yes_or_no=True)
    }
    baseline_recipe = TrainRecipe(epochs=3, batch_size=8, learning_rate=1e-2, warmup_epochs=0.2)
    recovery_recipe = TrainRecipe(epochs=1, batch_size=8, learning_rate=5e-3, warmup_epochs=0.2, distill_weight=0.5)

    def __init__(self, count: int) -> None:
        self._count = count

    def build(self, **arch: Any) -> nn.Module:
        kernel = int(arch["kernel"])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return nn.Sequential(
                *(nn.Conv2d(1, 8, kernel, padding=kernel // 2), nn.ReLU(), nn.MaxPool2d(2)),
                *(nn.Conv2d(8, 16, kernel, padding=kernel // 2), nn.ReLU(), nn.AdaptiveAvgPool2d((1, 2))),
                *(nn.Flatten(), nn.Linear(32, 2)),
            )

    def input_specs(self, **arch: Any) -> tuple[TensorSpec, ...]:
        return (TensorSpec("image", "float32", (1, 1, SIDE, SIDE)),)

    def cases(self, split: Split) -> Sequence[Case]:
        return tuple(Case(f"{split}-{number}", split) for number in range(self._count))

    def inputs(self, case: Case, **arch: Any) -> dict[str, Any]:
        return {"image": self._draw(case)[0][None, None]}

    def evaluate(self, outputs: Mapping[str, Any], case: Case) -> dict[str, float | None]:
        (scores,) = outputs.values()
        return {"correct": float(int(np.argmax(scores)) == self._draw(case)[1])}

    def batches(self, seed: int, batch_size: int, **arch: Any) -> Iterator[tuple[Any, Any]]:
        drawn = [self._draw(case) for case in self.cases("train")]
        for start in range(0, len(drawn) - batch_size + 1, batch_size):
            images, labels = zip(*drawn[start : start + batch_size], strict=True)
            yield torch.from_numpy(np.stack(images))[:, None], torch.tensor(labels)

    def loss(self, outputs: Any, target: Any) -> Any:
        return nn.functional.cross_entropy(outputs, target)

    def _draw(self, case: Case) -> tuple[Any, int]:
        split, _, number = case.id.partition("-")
        rng = np.random.default_rng([len(split), int(number)])
        image = rng.normal(0, 0.5, (SIDE, SIDE)).astype(np.float32)
        right = int(rng.integers(2))
        top, left = int(rng.integers(12)), int(rng.integers(5)) + 8 * right
        image[top : top + 4, left : left + 4] += 2
        return image, right


def make_task(count: int = 32) -> Squares:
    return Squares(count)
