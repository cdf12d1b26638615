"""Segmentation of synthetic ultrasound, a dark vessel in speckle, as a user's own task: network, cases, metric, training.

Put your own images into ``_draw`` and your own network into ``build``; the rest stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet

from edgedeploy import Case, MetricInfo, Split, TensorSpec, TrainRecipe


class Vessels:
    name = "vessels"
    architecture: Mapping[str, Sequence[Any]] = {"resolution": (64, 48)}  # the baseline's value first
    metrics: Mapping[str, MetricInfo] = {
        "dice_mean": MetricInfo("maximize", "1", "Dice of the vessel", bound=1.0, yes_or_no=False)
    }
    baseline_recipe = TrainRecipe(epochs=2, batch_size=8, learning_rate=5e-3, warmup_epochs=0.2)
    recovery_recipe = TrainRecipe(epochs=1, batch_size=8, learning_rate=2e-3, warmup_epochs=0.2, distill_weight=0.5)

    def __init__(self, count: int) -> None:
        self._count = count
        self._loss = DiceCELoss(to_onehot_y=True, softmax=True)

    def build(self, **arch: Any) -> torch.nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return BasicUNet(spatial_dims=2, in_channels=1, out_channels=2, features=(8, 8, 16, 16, 16, 8))

    def input_specs(self, **arch: Any) -> tuple[TensorSpec, ...]:
        return (TensorSpec("image", "float32", (1, 1, arch["resolution"], arch["resolution"])),)

    def cases(self, split: Split) -> Sequence[Case]:
        return tuple(Case(f"{split}-{number}", split) for number in range(self._count))

    def inputs(self, case: Case, **arch: Any) -> dict[str, Any]:
        return {"image": self._draw(case, arch["resolution"])[0][None, None]}

    def evaluate(self, outputs: Mapping[str, Any], case: Case) -> dict[str, float | None]:
        (scores,) = outputs.values()
        found = scores[0].argmax(axis=0) == 1
        vessel = self._draw(case, found.shape[0])[1] == 1
        return {"dice_mean": float(2 * (found & vessel).sum() / (found.sum() + vessel.sum()))}

    def batches(self, seed: int, batch_size: int, **arch: Any) -> Iterator[tuple[Any, Any]]:
        drawn = [self._draw(case, arch["resolution"]) for case in self.cases("train")]
        order = np.random.default_rng(seed).permutation(len(drawn))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            images, labels = zip(*(drawn[index] for index in order[start : start + batch_size]), strict=True)
            yield torch.from_numpy(np.stack(images))[:, None], torch.from_numpy(np.stack(labels))[:, None]

    def loss(self, outputs: Any, target: Any) -> Any:
        return self._loss(outputs, target)

    def _draw(self, case: Case, size: int) -> tuple[Any, Any]:
        """An image (float32, size x size) and its labels (int64: 1 is the vessel)."""
        split, _, number = case.id.partition("-")
        rng = np.random.default_rng([sum(split.encode()), int(number)])
        middle, radius = rng.uniform(0.3, 0.7, 2), rng.uniform(0.12, 0.22)
        rows, columns = np.mgrid[0:size, 0:size] / size
        vessel = (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < radius**2
        speckle = rng.rayleigh(0.5, (size, size))
        return (speckle * np.where(vessel, 0.25, 1.0)).astype(np.float32), vessel.astype(np.int64)


def make_task(count: int = 48) -> Vessels:
    return Vessels(count)
