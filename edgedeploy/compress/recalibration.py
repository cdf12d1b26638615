"""Batch norms of a model whose weights were changed without training: their statistics are measured again.

A pruned layer answers with other means and variances than those that its batch norm remembers, and the error grows from
layer to layer. A few dozen batches of the train split, forward only, give the statistics of the network as it is now (Li et
al., "EagleEye", 2020), for seconds instead of minutes of training.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgedeploy.compress.batch import Batch, as_batch
from edgedeploy.compress.training import users_line
from edgedeploy.errors import BuildError, DataError
from edgedeploy.interfaces.task import Recoverable, Task
from edgedeploy.interfaces.their_code import their_code
from edgedeploy.records.variant import Scalar
from edgedeploy.reference.calling import call

if TYPE_CHECKING:
    from torch import nn


def recalibrate(model: nn.Module, task: Recoverable, arch: Mapping[str, Scalar], batches: int, seed: int) -> nn.Module:
    """Measure the running statistics of every batch norm of ``model`` anew, in place; returns it in evaluation mode.

    They become the mean over ``batches`` batches of the train split, each batch with the same weight, in float32. All else
    of the model runs as in evaluation mode and keeps its values. ``seed`` decides the batches, and torch's random state is
    left as it was: equal models give equal statistics, up to the order of parallel sums. A model without batch norms,
    or whose batch norms keep no statistics, sees no batch.

    Raises ``DataError`` when there are no training batches, or what comes is no batch; ``BuildError`` when the model's own
    code fails, or a statistic is no longer finite.
    """
    import torch

    model.eval()
    norms = _norms(model)
    if norms and batches > 0:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), _measuring(norms):
            torch.manual_seed(seed)
            for batch in training_batches(task, arch, batches, seed):
                with users_line(
                    f"a forward pass with inputs {batch.shapes}",
                    "batches() and the model's forward have to fit each other",
                ):
                    call(model, batch.inputs)
        _check_finite(norms, batches)
    return model


def training_batches(task: Recoverable, arch: Mapping[str, Scalar], count: int, seed: int) -> Iterator[Batch]:
    """``count`` batches of the train split at the batch size of recovery; as many epochs as that takes.

    Raises ``DataError`` for an epoch without a batch, and what :func:`edgedeploy.compress.batch.as_batch` raises;
    ``SpecError`` for what the task's own code raises.
    """
    specs = task.input_specs(**arch) if isinstance(task, Task) else None
    size = task.recovery_recipe.batch_size
    left = count
    for epoch in itertools.count():
        if not left:
            return
        before = left
        with their_code(task, "batches() of the train split"):
            for pair in itertools.islice(task.batches(seed + epoch, size, **arch), left):
                left -= 1
                yield as_batch(pair, specs)
        if left == before:
            found = f"the train split gave no batch at batch_size {size}"
            raise DataError(f"{count} batches of training", found, "Add training cases, or change batch_size")


def _norms(model: nn.Module) -> dict[str, Any]:
    from torch import nn

    kind = nn.modules.batchnorm._BatchNorm
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, kind) and module.running_mean is not None
    }


@contextmanager
def _measuring(norms: Mapping[str, Any]) -> Iterator[None]:
    """Without a momentum, a batch norm in training mode keeps the mean over all batches since its reset."""
    momenta = {name: module.momentum for name, module in norms.items()}
    for module in norms.values():
        module.reset_running_stats()
        module.momentum = None
        module.train()
    try:
        yield
    finally:
        for name, module in norms.items():
            module.momentum = momenta[name]
            module.eval()


def _check_finite(norms: Mapping[str, Any], batches: int) -> None:
    for name, module in norms.items():
        if not bool(module.running_mean.isfinite().all() and module.running_var.isfinite().all()):
            raise BuildError(
                f"statistics of batch norm {name} over {batches} batches",
                "they are not finite: the network before it answers with infinities or NaN",
                "Prune less, or train the variant",
            )
