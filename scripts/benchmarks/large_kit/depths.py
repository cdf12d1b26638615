"""Depths of a trained transformer: cut out of one elastic network, beside each shrunk from the baseline and trained alone.

The network and its task are those of :mod:`benchmarks.large_kit.shrink`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from benchmarks.large_kit.shrink import DEPTH, trained, variant_of
from benchmarks.shared.rows import Asked, Row

SEEDS: Final = 3
SHARES: Final = (0.25, 0.5, 0.75)
EPOCHS: Final = (4, 12)
HELD_OUT: Final = 2048


def depths_of_one_network(asked: Asked) -> Row:
    """Right answers of each depth untrained, and after the same number of epochs: those of the one network and those of its
    own."""
    seeds = range(asked.seed, asked.seed + SEEDS)
    found = [f"whole: {_listed(_right(trained(seed)[1], seed) for seed in seeds)}"]
    for share in SHARES:
        found.append(f"depth {share:g} untrained: {_listed(_alone(share, seed, 0) for seed in seeds)}")
    for epochs in EPOCHS:
        cut = [_cut(seed, epochs) for seed in seeds]
        for share in SHARES:
            alone = _listed(_alone(share, seed, epochs) for seed in seeds)
            found.append(f"depth {share:g}, {epochs} epochs: {_listed(one[share] for one in cut)}; alone: {alone}")
    return Row(
        f"{DEPTH} blocks: right of {HELD_OUT} images, cut out of one network and alone, by seed", "; ".join(found)
    )


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def _cut(seed: int, epochs: int) -> dict[float, float]:
    """What is right of each depth of the one network."""
    from edgedeploy.compress.family import train_family
    from edgedeploy.records.elastic import Elastic

    task, model = trained(seed)
    variant = replace(variant_of({"depth": SHARES[0]}), elastic=Elastic(epochs, depths=SHARES))
    models = train_family(task, variant, model).models
    return {part.depth: _right(made, seed) for part, made in models.items()}


def _alone(share: float, seed: int, epochs: int) -> float:
    """What is right of a depth that is shrunk from the baseline and trained for so many epochs of its own."""
    from edgedeploy.compress.model import Further, derive

    task, model = trained(seed)
    return _right(derive(task, variant_of({"depth": share}), model, further=Further(epochs)), seed)


def _right(model: Any, seed: int) -> float:
    """Of images that no training or calibration has seen."""
    import torch
    from small_transformers import images

    given, labels = images(HELD_OUT, 10_000_000 + seed)
    with torch.inference_mode():
        return float((model(given).argmax(-1) == labels).float().mean())


ROWS = (depths_of_one_network,)
