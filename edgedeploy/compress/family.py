"""One elastic network of an architecture, and the models that are cut out of it: a study's allocated widths, its depths, and
each pair of both.

This module needs torch: import it inside functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

from torch import nn

from edgedeploy.compress.allocation import Sensitivity
from edgedeploy.compress.elastic import Cut, cut_of, cut_out, shallower, train_elastic
from edgedeploy.compress.model import RECALIBRATION_BATCHES
from edgedeploy.compress.oversight import ALONE, Oversight
from edgedeploy.compress.prune import prune
from edgedeploy.compress.sensitivity import gate_gradients
from edgedeploy.compress.shaped import SENSITIVITY_BATCHES, calibration_feeds, inherited, one_case
from edgedeploy.compress.shrink.apply import shrunk
from edgedeploy.compress.shrink.depth import Skip, skipped, without
from edgedeploy.errors import SpecError, Unsupported
from edgedeploy.interfaces.task import Recoverable, Task
from edgedeploy.records.elastic import Elastic, Part
from edgedeploy.records.shrink import Shrink
from edgedeploy.records.variant import Scalar, Variant
from edgedeploy.reference.calling import plain_model
from edgedeploy.reference.copies import baked, copied


@dataclass(frozen=True)
class Family:
    """``models`` by their cuts, in evaluation mode, and why the other cuts cannot be made."""

    models: Mapping[Part, nn.Module]
    refused: Mapping[Part, Unsupported]


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

    Each cut has the channels and the blocks that its width, allocation and depth have without an elastic network: they are
    chosen by the weights before the training. A cut of both loses its blocks first, and its width is spread over the
    others. Raises ``SpecError`` for a task that cannot train, and what :func:`edgedeploy.compress.training.fit` raises.
    """
    if not isinstance(task, Recoverable):
        found = "the task has no batches, loss and recovery_recipe"
        raise SpecError(f"the elastic network of {variant.label}", found, "Give it these members, or train none")
    arch, recipe, epochs = variant.arch_kwargs, task.recovery_recipe, variant.elastic.epochs
    model, _ = inherited(task, variant, baseline_model, own_weights)
    whole: nn.Module = baked(copied(plain_model(model)))
    cuts, refused = _cuts(whole, task, arch, variant.elastic)
    if cuts:
        recipe = replace(recipe, epochs=epochs, early_epochs=min(recipe.early_epochs, epochs - 1))
        train_elastic(whole, task, recipe, list(cuts.values()), arch=arch, oversight=oversight)
    models = {part: cut_out(cut, whole, task, arch, RECALIBRATION_BATCHES, recipe.seed) for part, cut in cuts.items()}
    return Family(models, refused)


def _cuts(
    whole: nn.Module, task: Any, arch: Mapping[str, Scalar], elastic: Elastic
) -> tuple[dict[Part, Cut], dict[Part, Unsupported]]:
    """The cuts of the elastic network in their order, and why the others cannot be made."""
    inputs = one_case(task, arch)
    seed = task.recovery_recipe.seed
    gates = gate_gradients(whole, task, arch, SENSITIVITY_BATCHES, seed) if elastic.allocations else {}

    @cache
    def gone(depth: float) -> Mapping[str, Skip]:
        shrink = Shrink(depth=depth)
        return skipped(shrunk(whole, shrink, inputs, calibration_feeds(task, shrink, arch))) if shrink else {}

    def cut(part: Part) -> Cut:
        blocks = gone(part.depth)
        if not part.allocation:
            return shallower(whole, blocks)
        sensitivity = Sensitivity("compute" if part.allocation == "compute" else "bytes", gates)
        pruned = partial(prune, example_inputs=inputs, width=part.width, sensitivity=sensitivity)
        return cut_of(whole, lambda model: pruned(without(model, blocks)))

    cuts: dict[Part, Cut] = {}
    refused: dict[Part, Unsupported] = {}
    for part in elastic.cuts:
        try:
            cuts[part] = cut(part)
        except Unsupported as exc:
            refused[part] = exc
    return cuts, refused
