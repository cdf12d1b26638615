"""A variant's network before any training of its own: built, inherited from the baseline, pruned, made smaller."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from edgedeploy.compress.allocation import Sensitivity
from edgedeploy.compress.batch import first_inputs
from edgedeploy.compress.inherit import InheritReport, inherit
from edgedeploy.compress.kept import read_weights, widths_in
from edgedeploy.compress.prune import channel_widths, prune
from edgedeploy.compress.sensitivity import gate_gradients
from edgedeploy.compress.student import student_of
from edgedeploy.errors import SpecError, Unsupported
from edgedeploy.interfaces.task import Array, Recoverable, Task, baseline_arch
from edgedeploy.interfaces.their_code import their_code
from edgedeploy.records.artifact import TensorSpec, random_feed
from edgedeploy.records.layer_times import LayerTimes
from edgedeploy.records.shrink import Shrink
from edgedeploy.records.variant import Allocation, Scalar, Variant

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


def inherited(
    task: Task, variant: Variant, baseline_model: nn.Module, own_weights: bool
) -> tuple[nn.Module, InheritReport]:
    """The variant's architecture at full width, with the weights that it has before any training of its own."""
    model = built(task, variant.arch_kwargs)
    source = model if own_weights and not is_baselines(task, variant) else baseline_model
    return model, inherit(model, source)


def is_baselines(task: Task, variant: Variant) -> bool:
    return variant.arch_kwargs == baseline_arch(task)


def shaped(
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
        return shrunk(model, variant.shrink, inputs, None, list(read_weights(like, model)))
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
    return channel_widths(shaped(task, variant, baseline_model, own_weights, times=times, gates=gates)[0])


def example_inputs(specs: tuple[TensorSpec, ...], feed: Mapping[str, Array] | None = None) -> dict[str, torch.Tensor]:
    """The model's inputs by name, those of a case of the user's own where there is one: pruning follows the graph, which
    may depend on values (lengths, masks, indices)."""
    import torch

    values = feed or random_feed(specs, 0)
    return {spec.name: torch.from_numpy(np.array(values[spec.name])) for spec in specs}


def one_case(task: Task, arch: Mapping[str, Scalar]) -> dict[str, torch.Tensor]:
    """The inputs of the task's first calibration case by name; random ones where it has none."""
    return example_inputs(task.input_specs(**arch), first_inputs(task, arch))
