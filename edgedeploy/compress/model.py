"""From a variant to its float torch model: build, inherit from the baseline, prune, recover.

Weights are kept as torch files. No constructor makes the shapes of a pruned network: to read its weights back, the same
baseline is pruned again first.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from edgedeploy.compress.allocation import Sensitivity
from edgedeploy.compress.batch import first_inputs
from edgedeploy.compress.checkpoint import drop_checkpoint
from edgedeploy.compress.inherit import InheritReport, inherit
from edgedeploy.compress.oversight import ALONE, Oversight
from edgedeploy.compress.own_fit import fit_by_task
from edgedeploy.compress.prune import channel_widths, outputs_of, prune
from edgedeploy.compress.qat.train import train_quantized
from edgedeploy.compress.recalibration import recalibrate
from edgedeploy.compress.sensitivity import gate_gradients
from edgedeploy.compress.student import recipe_of_student, student_of
from edgedeploy.compress.training import fit
from edgedeploy.errors import BuildError, DataError, SpecError, Unsupported
from edgedeploy.files import write_atomic
from edgedeploy.interfaces.task import (
    Array,
    Recoverable,
    Task,
    Taught,
    Trainable,
    Trainer,
    TrainRecipe,
    baseline_arch,
    can_recover,
)
from edgedeploy.interfaces.their_code import their_code
from edgedeploy.records.artifact import TensorSpec, random_feed
from edgedeploy.records.layer_times import LayerTimes
from edgedeploy.records.shrink import Shrink
from edgedeploy.records.variant import Allocation, Scalar, Variant
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
SHRINK_CASES: Final = 64
"""How many calibration cases decide at most which heads, features and blocks a network does without."""
SENSITIVITY_BATCHES: Final = 8
"""How many batches of the train split weigh the layers' channels."""

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgedeploy.compress.shrink.moments import Feeds


def built(task: Task, arch: Mapping[str, Scalar]) -> nn.Module:
    """What the task's ``build`` makes. Raises ``SpecError`` for what its code raises, and for anything but a module of
    float32."""
    import torch

    asked = f"build({', '.join(f'{name}={value!r}' for name, value in arch.items())})"
    with their_code(task, asked):
        model = task.build(**arch)
    if not isinstance(model, torch.nn.Module):
        raise SpecError(asked, f"it returned a {type(model).__name__}", "Return a torch.nn.Module")
    halves = (torch.float16, torch.bfloat16)
    narrow = next((f"{name} is {str(w.dtype)[6:]}" for name, w in model.named_parameters() if w.dtype in halves), None)
    if narrow is not None:
        found = f"{narrow}: half precision has no float baseline to be compared with"
        raise SpecError(asked, found, "Return model.float(); the precision is what the study searches")
    return model


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
    if variant.whole and _is_baselines(task, variant) and not variant.recovered:
        twin: nn.Module = copied(baseline_model)
        return twin.eval()
    like = further.start if further else None  # the rungs of one variant have the same shapes
    model, report = _shaped(task, variant, baseline_model, own_weights, like=like, times=times)
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
    model, _ = _shaped(task, variant, baseline_model, own_weights, like=weights)
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


def _is_baselines(task: Task, variant: Variant) -> bool:
    return variant.arch_kwargs == baseline_arch(task)


def inherited(
    task: Task, variant: Variant, baseline_model: nn.Module, own_weights: bool
) -> tuple[nn.Module, InheritReport]:
    """The variant's architecture at full width, with the weights that it has before any training of its own."""
    model = built(task, variant.arch_kwargs)
    source = model if own_weights and not _is_baselines(task, variant) else baseline_model
    return model, inherit(model, source)


def _shaped(
    task: Task,
    variant: Variant,
    baseline_model: nn.Module,
    own_weights: bool,
    *,
    like: Path | None = None,
    times: LayerTimes | None = None,
    gates: dict[str, torch.Tensor] | None = None,
) -> tuple[nn.Module, InheritReport]:
    """The variant's model before any training of its own: inherited and pruned; by sensitivity, unless the weights in the
    file ``like`` tell the width of every layer."""
    if variant.shrink.student:
        model = student_of(task, variant.shrink.student, variant.arch_kwargs)
        return model.eval(), inherit(model, model)
    model, report = inherited(task, variant, baseline_model, own_weights)
    inputs = one_case(task, variant.arch_kwargs)
    if not variant.allocation:
        kept = like if not variant.shrink else None  # earlier versions rounded a width otherwise
        model = prune(model, inputs, variant.width, widths=None if kept is None else widths_in(kept, model))
        return (_smaller(task, variant, model, inputs, like) if variant.shrink else model), report
    whole, model = model, _smaller(task, variant, model, inputs, like) if variant.shrink else model
    if like is not None:
        return prune(model, inputs, variant.width, widths=widths_in(like, model)), report
    if not isinstance(task, Recoverable):
        found = "the task has no batches and no loss to weigh the layers by"
        raise SpecError(
            f"allocation of {variant.label}", found, "Give it these members, or search the uniform allocation"
        )
    gates = {} if gates is None else gates
    if not gates:
        gates |= gate_gradients(whole, task, variant.arch_kwargs, SENSITIVITY_BATCHES, task.recovery_recipe.seed)
    sensitivity = Sensitivity(cast(Allocation, variant.allocation), gates, times)
    return prune(model, inputs, variant.width, sensitivity=sensitivity), report


def _smaller(task: Task, variant: Variant, model: nn.Module, inputs: Any, like: Path | None) -> nn.Module:
    """``model`` without what the variant leaves out besides channels: by the calibration cases, or as the weights in the
    file ``like`` have it. Raises ``Unsupported`` for a task without calibration cases."""
    from edgedeploy.compress.shrink.apply import shrunk

    if like is not None:
        return shrunk(model, variant.shrink, inputs, None, list(_read_weights(like, model)))
    return shrunk(model, variant.shrink, inputs, calibration_feeds(task, variant.shrink, variant.arch_kwargs))


def calibration_feeds(task: Task, shrink: Shrink, arch: Mapping[str, Scalar]) -> Feeds:
    """The calibration cases by which is chosen what ``shrink`` leaves out. Raises ``Unsupported`` for a task without any."""
    cases, specs = task.cases("calibration")[:SHRINK_CASES], task.input_specs(**arch)
    if not cases:
        found = f"task {task.name!r} has no calibration cases to choose by"
        raise Unsupported(f"a network with {shrink.label}", found, "Give it some")

    def feeds() -> Iterator[dict[str, torch.Tensor]]:
        for case in cases:
            with their_code(task, f"inputs of case {case.id}"):
                feed = task.inputs(case, **arch)
            yield example_inputs(specs, feed)

    return feeds


def widths_in(path: Path, model: nn.Module) -> dict[str, int]:
    """Output channels of each layer of ``model`` in a file of :func:`save_weights`. Raises ``DataError``."""
    weights = _read_weights(path, model)
    found = {}
    for name, full in channel_widths(model).items():
        weight = weights.get(f"{name}.weight")
        found[name] = full if weight is None else outputs_of(model.get_submodule(name), tuple(weight.shape))
    return found


def layer_widths(
    task: Task,
    variant: Variant,
    baseline_model: nn.Module,
    like: Path | None,
    *,
    own_weights: bool = False,
    times: LayerTimes | None = None,
    gates: dict[str, torch.Tensor] | None = None,
) -> dict[str, int]:
    """Output channels of each layer of the variant's model; the weights in the file ``like`` tell them, if there is one.
    ``times``: see :func:`derive`. ``gates`` keeps what the architecture's layers are weighed by, for its other widths: it is
    filled where it is empty."""
    if like is not None:
        return widths_in(like, built(task, variant.arch_kwargs))
    return channel_widths(_shaped(task, variant, baseline_model, own_weights, times=times, gates=gates)[0])


def parameters_in(path: Path, model: nn.Module) -> int:
    """How many parameters of ``model`` a file of :func:`save_weights` has. Raises ``DataError``."""
    weights = _read_weights(path, model)
    return sum(weights[name].numel() for name, _ in model.named_parameters() if name in weights)


def example_inputs(specs: tuple[TensorSpec, ...], feed: Mapping[str, Array] | None = None) -> dict[str, torch.Tensor]:
    """The model's inputs by name, those of a case of the user's own where there is one: pruning follows the graph, which
    may depend on values (lengths, masks, indices)."""
    import torch

    values = feed or random_feed(specs, 0)
    return {spec.name: torch.from_numpy(np.array(values[spec.name])) for spec in specs}


def one_case(task: Task, arch: Mapping[str, Scalar]) -> dict[str, torch.Tensor]:
    """The inputs of the task's first calibration case by name; random ones where it has none."""
    return example_inputs(task.input_specs(**arch), first_inputs(task, arch))


def save_weights(model: nn.Module, path: Path) -> None:
    """The model's ``state_dict``, whole or not at all."""
    import torch

    buffer = io.BytesIO()
    tensors = {
        name: value.contiguous() if hasattr(value, "contiguous") else value
        for name, value in model.state_dict().items()
    }
    torch.save(tensors, buffer)
    write_atomic(path, buffer.getvalue())


def load_weights(model: nn.Module, path: Path) -> nn.Module:
    """Fill ``model`` in place from :func:`save_weights` and return it in eval mode.

    Reads tensors only: a file whose pickle would run code is refused. Raises ``DataError`` for a file that is
    missing, damaged, or of another architecture.
    """
    with _of_model(path, model):
        model.load_state_dict(_read_weights(path, model))
    return model.eval()


def _read_weights(path: Path, model: nn.Module) -> dict[str, Any]:
    import torch

    with _of_model(path, model):
        weights: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


@contextmanager
def _of_model(path: Path, model: nn.Module) -> Iterator[None]:
    import pickle

    remedy = "Delete the file: the next run makes the model again"
    try:
        yield
    except FileNotFoundError as exc:
        raise DataError(f"weights {path}", "there is no such file", "Train the baseline first") from exc
    except (RuntimeError, pickle.UnpicklingError, EOFError, AttributeError, TypeError) as exc:
        found = next(iter(str(exc).splitlines()), type(exc).__name__)
        raise DataError(f"weights {path.name} for {type(model).__name__}", found[:400], remedy) from exc
