"""From a variant to its float torch model: what :mod:`edgedeploy.compress.shaped` makes of the baseline is recovered.

Weights are kept as torch files (:mod:`edgedeploy.compress.kept`). No constructor makes the shapes of a pruned network: to
read its weights back, the same baseline is pruned again first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgedeploy.compress.checkpoint import drop_checkpoint
from edgedeploy.compress.kept import load_weights
from edgedeploy.compress.oversight import ALONE, Oversight
from edgedeploy.compress.own_fit import fit_by_task
from edgedeploy.compress.prune import channel_widths, prune
from edgedeploy.compress.qat.train import train_quantized
from edgedeploy.compress.recalibration import recalibrate
from edgedeploy.compress.shaped import built, is_baselines, one_case, shaped
from edgedeploy.compress.student import recipe_of_student
from edgedeploy.compress.training import fit
from edgedeploy.errors import BuildError, SpecError, Unsupported
from edgedeploy.interfaces.task import (
    Recoverable,
    Task,
    Taught,
    Trainable,
    Trainer,
    TrainRecipe,
    can_recover,
)
from edgedeploy.records.layer_times import LayerTimes
from edgedeploy.records.variant import Scalar, Variant
from edgedeploy.reference.copies import copied
from edgedeploy.reference.weights import Numbers

NO_WEIGHTS: Final = "nothing gives them: there is no checkpoint, no `trained = True` and no training"
WAYS_TO_WEIGHTS: Final = (
    'Name your trained weights in the study file ([task] checkpoint = "model.pt"); or let build() return trained weights '
    "and give the task `trained = True`; or give it training: batches, loss, baseline_recipe and recovery_recipe, or fit"
)
"""The remedy for a task whose baseline has no weights."""

RECALIBRATION_BATCHES: Final = 16
"""How many batches of the train split give a model without training the statistics of its batch norms."""

if TYPE_CHECKING:
    from torch import nn


def train_baseline(task: Task, arch: Mapping[str, Scalar], *, oversight: Oversight = ALONE) -> nn.Module:
    """The task's model at ``arch``, trained by its baseline recipe or its own ``fit``, in eval mode.

    Raises ``SpecError`` for a task that cannot train, and what :func:`edgedeploy.compress.training.fit` raises.
    """
    model = built(task, arch)
    if isinstance(task, Trainer):
        fit_by_task(model, task, arch=arch, purpose="baseline", oversight=oversight)
        return model
    if not isinstance(task, Trainable):
        raise SpecError(f"the baseline's weights of task {task.name!r}", NO_WEIGHTS, WAYS_TO_WEIGHTS)
    if isinstance(task, Taught) and task.teacher_arch and task.baseline_recipe.distill_weight:
        return _taught(task, model, built(task, task.teacher_arch), arch, oversight)
    fit(model, task, task.baseline_recipe, arch=arch, oversight=oversight)
    return model.eval()


def _taught(
    task: Taught, model: nn.Module, teacher: nn.Module, arch: Mapping[str, Scalar], oversight: Oversight
) -> nn.Module:
    """Train ``teacher``, then ``model`` with it. The teacher's last checkpoint stays until ``model`` is trained, so that a
    resumed training has its teacher."""
    kept = oversight.checkpoint and oversight.checkpoint.with_name(f"teacher-{oversight.checkpoint.name}")
    alone = replace(oversight, what=f"the teacher of {oversight.what}", checkpoint=kept, done=ALONE.done)
    oversight.note(f"{oversight.what} has a teacher, which is trained first: {task.teacher_recipe.epochs} epochs")
    fit(teacher, task, task.teacher_recipe, arch=task.teacher_arch, oversight=alone)
    fit(model, task, task.baseline_recipe, arch=arch, teacher=teacher.eval(), oversight=oversight)
    if kept is not None:
        drop_checkpoint(kept)
    return model.eval()


def derive(
    task: Task,
    variant: Variant,
    baseline_model: nn.Module,
    *,
    own_weights: bool = False,
    oversight: Oversight = ALONE,
    further: Further | None = None,
    times: LayerTimes | None = None,
) -> nn.Module:
    """The float model of ``variant``, in eval mode; ``baseline_model`` is left as it is. ``times`` are those that an
    allocation by time spends.

    1. Every tensor whose name and shape match is inherited from the baseline. With ``own_weights``, models of another
       architecture keep the trained weights that ``build`` gave them.
    2. The least important channels are pruned: the same share in every layer, or by the layers' sensitivity. What the
       variant leaves out besides goes next (:mod:`edgedeploy.compress.shrink`), and before a width that is spread by
       sensitivity. A student is neither inherited nor pruned.
    3. Where the task can train, the model is trained with the baseline as its teacher (recovery): by the task's recipe, or
       as ``further`` says. Without any epoch of training, the statistics of its batch norms are taken anew.

    The baseline's own architecture at full width is the baseline, without any training, unless the variant is
    ``recovered``. Where an option changes only the inputs (a resolution), every weight is inherited and the model is still
    recovered, because batch statistics and the size of objects differ. A task that cannot train keeps the weights as they
    are after step 2.

    Raises ``Unsupported`` when torch-pruning cannot trace the model, or layers have no weights and the task cannot train;
    ``BuildError`` when recovery diverges.
    """
    if variant.whole and is_baselines(task, variant) and not variant.recovered:
        twin: nn.Module = copied(baseline_model)
        return twin.eval()
    like = further.start if further else None  # the rungs of one variant have the same shapes
    model, report = shaped(task, variant, baseline_model, own_weights, like=like, times=times)
    if further and further.wider is not None:
        model, further = _narrowed(task, model, variant, baseline_model, own_weights, further)
    if not can_recover(task):
        untrained = [name for name, _ in model.named_parameters() if name in report.fresh]
        if untrained and not own_weights:
            found = f"{len(untrained)} tensors have no weights in the baseline ({', '.join(untrained[:3])})"
            remedy = "Search other values, or give the task training that learns them"
            raise Unsupported(f"weights of {variant.label}", f"{found}, and the task has no training", remedy)
        return model
    arch = variant.arch_kwargs
    if further is not None:
        assert isinstance(task, Recoverable)
        return _trained_further(model, task, variant, baseline_model, further, oversight)
    if isinstance(task, Trainer):
        fit_by_task(model, task, arch=arch, purpose="recovery", teacher=baseline_model, oversight=oversight)
    elif isinstance(task, Recoverable):
        fit(model, task, _recipe(task, variant), arch=arch, teacher=baseline_model, oversight=oversight)
    return model.eval()


def _recipe(task: Recoverable, variant: Variant) -> TrainRecipe:
    return recipe_of_student(task) if variant.shrink.student else task.recovery_recipe


@dataclass(frozen=True)
class Further:
    """``epochs`` of recovery, from the weights in the file ``start`` where there is one: those of the same architecture
    after fewer epochs, or cut out of its elastic network. With a ``wider`` trained model, a variant and the file of its
    weights, from what pruning leaves of that one; ``start`` then says how wide each layer is."""

    epochs: int
    start: Path | None = None
    wider: tuple[Variant, Path] | None = None


def _narrowed(
    task: Task, model: nn.Module, variant: Variant, baseline_model: nn.Module, own_weights: bool, further: Further
) -> tuple[nn.Module, Further]:
    """What pruning leaves of the wider model, with the widths of ``model``, and how it is trained. Where pruning cannot give
    these widths, ``model`` itself is, as without a wider one."""
    assert further.wider is not None
    wider = restore(task, further.wider[0], baseline_model, further.wider[1], own_weights=own_weights)
    arch = variant.arch_kwargs
    inputs = one_case(task, arch)
    widths = channel_widths(model)
    try:
        cut = prune(wider, inputs, variant.width, widths=widths)
    except (Unsupported, BuildError):
        return model, replace(further, wider=None)
    if channel_widths(cut) != widths:
        return model, replace(further, wider=None)
    return cut, Further(further.epochs)


def _trained_further(
    model: nn.Module,
    task: Recoverable,
    variant: Variant,
    teacher: nn.Module,
    further: Further,
    oversight: Oversight,
) -> nn.Module:
    arch, recipe = variant.arch_kwargs, _recipe(task, variant)
    if further.start is not None:
        model = load_weights(model, further.start)
    if not further.epochs:
        return recalibrate(model, task, arch, RECALIBRATION_BATCHES, task.recovery_recipe.seed)
    recipe = replace(recipe, epochs=further.epochs, early_epochs=min(recipe.early_epochs, further.epochs - 1))
    fit(model, task, recipe, arch=arch, teacher=teacher, oversight=oversight)
    return model.eval()


def restore(
    task: Task, variant: Variant, baseline_model: nn.Module, weights: Path, *, own_weights: bool = False
) -> nn.Module:
    """The float model that :func:`derive` made of ``variant``, read from its saved weights without training.

    The baseline's weights decide the pruning, so the shapes are the same. Raises what :func:`load_weights` raises.
    """
    model, _ = shaped(task, variant, baseline_model, own_weights, like=weights)
    return load_weights(model, weights)


def derive_quantized(
    task: Task,
    variant: Variant,
    float_model: nn.Module,
    baseline_model: nn.Module,
    *,
    kept_float: Mapping[str, Numbers] | None = None,
    weight_bits: int = 8,
    oversight: Oversight = ALONE,
) -> nn.Module:
    """The int8 model of ``variant``, trained from its ``float_model`` with the baseline as teacher: see
    :func:`edgedeploy.compress.qat.train.train_quantized`. Raises ``SpecError`` for a task that cannot train."""
    if not isinstance(task, Recoverable):
        found = "the task has no batches, loss and recovery_recipe"
        remedy = "Give it these members, or leave training out of the space"
        raise SpecError(f"quantization-aware training of {variant.label}", found, remedy)
    arch = variant.arch_kwargs
    specs = task.input_specs(**arch)
    return train_quantized(
        float_model,
        task,
        specs,
        arch=arch,
        teacher=baseline_model,
        kept_float=kept_float,
        weight_bits=weight_bits,
        oversight=oversight,
    )
