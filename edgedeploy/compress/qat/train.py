"""Quantization-aware training: a float model learns to be int8 within a few epochs, with the float baseline as its teacher.

Batch norms are folded first, with the statistics they have: what is trained is the network that runs. Quantizers first only
watch some training batches, then all of them quantize. See :mod:`edgedeploy.compress.qat.graph` for where they stand and
:mod:`edgedeploy.compress.qat.fakequant` for what they do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from edgedeploy.compress.oversight import ALONE, Oversight
from edgedeploy.compress.training import fit
from edgedeploy.errors import DataError
from edgedeploy.interfaces.task import Trainable, TrainRecipe
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.variant import Scalar
from edgedeploy.reference.weights import Numbers

if TYPE_CHECKING:
    from torch import nn

    from edgedeploy.compress.qat.fakequant import Ranges

SHARE_OF_EPOCHS: Final = 0.5
SHARE_OF_RATE: Final = 0.1
LEAST_DISTILL_WEIGHT: Final = 0.5


@dataclass(frozen=True)
class QatSettings:
    """``ranges``: whether activation ranges are ``learned`` from their observed start or stay ``observed``;
    ``percentile`` and ``momentum`` of observing; ``watched_batches`` before anything is quantized."""

    ranges: Ranges = "learned"
    percentile: float = 100.0
    momentum: float = 0.1
    watched_batches: int = 16


def qat_recipe(recovery: TrainRecipe) -> TrainRecipe:
    """How to train with quantizers, from how the task recovers pruned models: half the epochs at a tenth of the rate,
    following the teacher for at least half of the loss.

    In float32: bfloat16 has the 8 bits that int8 has, and would round what quantizers have just rounded. On the model's
    own inputs from the first epoch: ranges belong to a resolution.
    """
    return replace(
        recovery,
        epochs=max(1, round(recovery.epochs * SHARE_OF_EPOCHS)),
        learning_rate=recovery.learning_rate * SHARE_OF_RATE,
        distill_weight=max(LEAST_DISTILL_WEIGHT, recovery.distill_weight),
        bfloat16=False,
        early_epochs=0,
        early_arch={},
    )


def train_quantized(
    model: nn.Module,
    task: Trainable,
    specs: tuple[TensorSpec, ...],
    *,
    arch: Mapping[str, Scalar],
    teacher: nn.Module,
    recipe: TrainRecipe | None = None,
    settings: QatSettings | None = None,
    kept_float: Mapping[str, Numbers] | None = None,
    weight_bits: int = 8,
    oversight: Oversight = ALONE,
) -> nn.Module:
    """An int8 model of the float ``model``: frozen quantizers, evaluation mode. ``model`` is left as it is.

    ``specs`` are its inputs with batch size 1. The seed of ``recipe`` (:func:`qat_recipe` of the task's recovery when there
    is none) decides the result. Layers with the weights of ``kept_float``, by their names in the float reference, stay
    float. Weights keep to ``weight_bits`` bits: 7 for boards whose int8 sums saturate. Raises ``Unsupported`` for a model
    that cannot be traced, has nothing to quantize or lacks such a layer, ``BuildError`` where training diverges,
    ``DataError`` without training batches.
    """
    import torch

    from edgedeploy.compress.qat import graph as quantgraph

    settings = settings or QatSettings()
    recipe = recipe or qat_recipe(task.recovery_recipe)
    inputs = [torch.zeros((2, *spec.shape[1:]), dtype=getattr(torch, spec.dtype)) for spec in specs]
    graph = quantgraph.fold_batch_norms(quantgraph.trace(model, inputs))
    student = quantgraph.place_quantizers(
        graph,
        settings.ranges,
        percentile=settings.percentile,
        momentum=settings.momentum,
        kept=quantgraph.layers_with(graph, kept_float or {}),
        weight_bits=weight_bits,
    )
    fit(
        student,
        task,
        recipe,
        arch=arch,
        teacher=teacher,
        oversight=oversight,
        prepare=lambda: _watch(student, task, recipe, arch, settings.watched_batches),
        settings={**asdict(settings), "kept_float": sorted(kept_float or {}), "weight_bits": weight_bits},
    )
    return quantgraph.freeze(student)


def _watch(student: nn.Module, task: Trainable, recipe: TrainRecipe, arch: Mapping[str, Scalar], batches: int) -> None:
    """Let every quantizer see ``batches`` training batches, then begin to quantize."""
    import torch

    from edgedeploy.compress.qat import graph as quantgraph

    seen = 0
    with torch.no_grad():
        for images, _ in islice(task.batches(recipe.seed, recipe.batch_size, **arch), batches):
            student(images)
            seen += 1
    if not seen:
        found = f"the train split gave no batch at batch_size {recipe.batch_size}"
        raise DataError("ranges of activations", found, "Bring more cases, or change batch_size")
    for quantizer in quantgraph.quantizers(student):
        quantizer.stop_observing()
