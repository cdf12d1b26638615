"""From a variant to its float torch model: build, inherit from the baseline, prune, recover.

Weights are kept as torch files. No constructor makes the shapes of a pruned network: to read its weights back, the same
baseline is pruned again first.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.compress.inherit import InheritReport, inherit
from edgedeploy.compress.oversight import ALONE, Oversight
from edgedeploy.compress.prune import prune
from edgedeploy.compress.qat.train import train_quantized
from edgedeploy.compress.training import fit
from edgedeploy.errors import DataError, SpecError
from edgedeploy.files import write_atomic
from edgedeploy.interfaces.task import Task, Trainable
from edgedeploy.records.artifact import random_feed
from edgedeploy.records.variant import Scalar, Variant
from edgedeploy.reference.weights import Numbers

if TYPE_CHECKING:
    import torch
    from torch import nn


def train_baseline(task: Task, arch: Mapping[str, Scalar], *, oversight: Oversight = ALONE) -> nn.Module:
    """The task's model at ``arch``, trained by its baseline recipe, in eval mode.

    Raises ``SpecError`` for a task that cannot train, and what :func:`edgedeploy.compress.training.fit` raises.
    """
    trainable = _trainable(task, "training the baseline")
    model: nn.Module = task.build(**arch)
    fit(model, trainable, trainable.baseline_recipe, arch=arch, oversight=oversight)
    return model.eval()


def derive(task: Task, variant: Variant, baseline_model: nn.Module, *, oversight: Oversight = ALONE) -> nn.Module:
    """The float model of ``variant``, in eval mode; ``baseline_model`` is left as it is.

    1. Every tensor whose name and shape match is inherited from the baseline.
    2. The least important channels are pruned.
    3. The model is trained with the baseline as its teacher (recovery).

    The baseline's own architecture at full width is the baseline, without any training. Where an option changes only
    the inputs (a resolution), every weight is inherited and the model is still recovered, because batch statistics and
    the size of objects differ; a task that cannot train keeps the inherited weights as they are.

    Raises ``SpecError`` when recovery is needed and the task cannot train, ``Unsupported`` when torch-pruning cannot
    trace the model, ``BuildError`` when recovery diverges.
    """
    arch = variant.arch_kwargs
    original = {name: values[0] for name, values in task.architecture.items()}
    if variant.width == 1.0 and arch == original:
        return copy.deepcopy(baseline_model).eval()
    model, report = _shaped(task, variant, baseline_model)
    if report.complete and variant.width == 1.0 and not isinstance(task, Trainable):
        return model
    trainable = _trainable(task, f"recovery of {variant.label}")
    fit(model, trainable, trainable.recovery_recipe, arch=arch, teacher=baseline_model, oversight=oversight)
    return model.eval()


def restore(task: Task, variant: Variant, baseline_model: nn.Module, weights: Path) -> nn.Module:
    """The float model that :func:`derive` made of ``variant``, read from its saved weights without training.

    The baseline's weights decide the pruning, so the shapes are the same. Raises what :func:`load_weights` raises.
    """
    model, _ = _shaped(task, variant, baseline_model)
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
    trainable = _trainable(task, f"quantization-aware training of {variant.label}")
    arch = variant.arch_kwargs
    specs = task.input_specs(**arch)
    return train_quantized(
        float_model,
        trainable,
        specs,
        arch=arch,
        teacher=baseline_model,
        kept_float=kept_float,
        weight_bits=weight_bits,
        oversight=oversight,
    )


def _shaped(task: Task, variant: Variant, baseline_model: nn.Module) -> tuple[nn.Module, InheritReport]:
    """The variant's model before any training of its own: inherited and pruned."""
    model: nn.Module = task.build(**variant.arch_kwargs)
    report = inherit(model, baseline_model)
    return prune(model, example_inputs(task, variant.arch_kwargs), variant.width), report


def example_inputs(task: Task, arch: Mapping[str, Scalar]) -> tuple[torch.Tensor, ...]:
    """The model's inputs for the first calibration case, in order: pruning follows the graph, which may depend on values
    (lengths, masks, indices)."""
    import torch

    specs = task.input_specs(**arch)
    case = next(iter(task.cases("calibration")), None)
    feed = random_feed(specs, 0) if case is None else task.inputs(case, **arch)
    return tuple(torch.from_numpy(np.array(feed[spec.name])) for spec in specs)


def save_weights(model: nn.Module, path: Path) -> None:
    """The model's ``state_dict``, whole or not at all."""
    import torch

    buffer = io.BytesIO()
    torch.save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, buffer)
    write_atomic(path, buffer.getvalue())


def load_weights(model: nn.Module, path: Path) -> nn.Module:
    """Fill ``model`` in place from :func:`save_weights` and return it in eval mode.

    Reads tensors only: a file whose pickle would run code is refused. Raises ``DataError`` for a file that is
    missing, damaged, or of another architecture.
    """
    import pickle

    import torch

    remedy = "Delete the file: the next run trains the model again"
    try:
        weights: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(weights)
    except FileNotFoundError as exc:
        raise DataError(f"weights {path}", "there is no such file", "Train the baseline first") from exc
    except (RuntimeError, pickle.UnpicklingError, EOFError, AttributeError, TypeError) as exc:
        found = next(iter(str(exc).splitlines()), type(exc).__name__)
        raise DataError(f"weights {path.name} for {type(model).__name__}", found[:400], remedy) from exc
    return model.eval()


def _trainable(task: Task, asked: str) -> Trainable:
    if isinstance(task, Trainable):
        return task
    raise SpecError(
        f"{asked} of task {task.name!r}",
        "the task has no training (batches, loss, recipes)",
        "Give it these members, or search deployment settings only",
    )
