"""One elastic network of an architecture, and the models that are cut out of it: one for each allocated width of a study.

This module needs torch: import it inside functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from edgedeploy.compress.allocation import Sensitivity
from edgedeploy.compress.elastic import Cut, cut_of, cut_out, train_elastic
from edgedeploy.compress.model import RECALIBRATION_BATCHES, SENSITIVITY_BATCHES, inherited, one_case
from edgedeploy.compress.oversight import ALONE, Oversight
from edgedeploy.compress.prune import prune
from edgedeploy.compress.sensitivity import gate_gradients
from edgedeploy.errors import SpecError, Unsupported
from edgedeploy.interfaces.task import Recoverable, Task
from edgedeploy.records.variant import Variant
from edgedeploy.reference.calling import plain_model
from edgedeploy.reference.copies import baked, copied

Named = tuple[float, str]
"""A cut by its width and allocation."""


@dataclass(frozen=True)
class Family:
    """``models`` by their cuts, in evaluation mode, and why the other cuts cannot be made."""

    models: Mapping[Named, nn.Module]
    refused: Mapping[Named, Unsupported]


def train_family(
    task: Task,
    variant: Variant,
    baseline_model: nn.Module,
    *,
    own_weights: bool = False,
    oversight: Oversight = ALONE,
) -> Family:
    """Train the elastic network of the variant's architecture by the recipe of recovery, from the weights that a variant
    inherits, and cut every model out of it. ``baseline_model`` is left as it is.

    Each cut has the channels that its width and allocation have without an elastic network. Raises ``SpecError`` for a task
    that cannot train, and what :func:`edgedeploy.compress.training.fit` raises.
    """
    if not isinstance(task, Recoverable):
        found = "the task has no batches, loss and recovery_recipe"
        raise SpecError(f"the elastic network of {variant.label}", found, "Give it these members, or train none")
    arch, recipe, epochs = variant.arch_kwargs, task.recovery_recipe, variant.elastic.epochs
    model, _ = inherited(task, variant, baseline_model, own_weights)
    whole: nn.Module = baked(copied(plain_model(model)))
    inputs = one_case(task, arch)
    gates = gate_gradients(whole, task, arch, SENSITIVITY_BATCHES, recipe.seed)
    cuts: dict[Named, Cut] = {}
    refused: dict[Named, Unsupported] = {}
    for width, allocation in variant.elastic.cuts:
        sensitivity = Sensitivity("compute" if allocation == "compute" else "bytes", gates)
        try:
            cuts[width, allocation] = cut_of(
                whole, partial(prune, example_inputs=inputs, width=width, sensitivity=sensitivity)
            )
        except Unsupported as exc:
            refused[width, allocation] = exc
    if cuts:
        recipe = replace(recipe, epochs=epochs, early_epochs=min(recipe.early_epochs, epochs - 1))
        train_elastic(whole, task, recipe, list(cuts.values()), arch=arch, oversight=oversight)
    models = {name: cut_out(cut, whole, task, arch, RECALIBRATION_BATCHES, recipe.seed) for name, cut in cuts.items()}
    return Family(models, refused)
