"""What a task gives a model: a training batch of inputs, alone or several, with the target of the task's own loss; and the
inputs of one case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgedeploy.errors import DataError, nearest
from edgedeploy.interfaces.task import Array, Task
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.variant import Scalar

_ASKED: Final = "a batch of training"


@dataclass(frozen=True)
class Batch:
    """``inputs`` are tensors by name in the order of the task's ``input_specs``, or a tuple where these are not known;
    images and volumes lie in ``channels_last`` layout. ``target`` is the task's own affair."""

    inputs: Any
    target: Any

    @property
    def shapes(self) -> str:
        if isinstance(self.inputs, Mapping):
            return ", ".join(f"{name} {tuple(value.shape)}" for name, value in self.inputs.items())
        return ", ".join(str(tuple(value.shape)) for value in self.inputs)


def as_batch(found: Any, specs: Sequence[TensorSpec] | None) -> Batch:
    """What ``batches`` yielded. Raises ``DataError`` when it is no pair, holds other things than tensors, or when its
    inputs are not those of ``specs`` (None: not known)."""
    if not isinstance(found, tuple | list) or len(found) != 2:
        what = f"{type(found).__name__} of {len(found)}" if isinstance(found, tuple | list) else type(found).__name__
        raise DataError(_ASKED, f"batches() gave a {what}", "Yield pairs (inputs, target)")
    inputs, target = found
    if isinstance(inputs, Mapping):
        return Batch({name: _tensor(value, f"input {name!r}") for name, value in _in_order(inputs, specs)}, target)
    values = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
    tensors = tuple(_tensor(value, f"input {place}") for place, value in enumerate(values))
    if specs is None:
        return Batch(tensors, target)
    if len(tensors) != len(specs):
        names = ", ".join(spec.name for spec in specs)
        raise DataError(_ASKED, f"batches() gave {len(tensors)} inputs", f"input_specs() has {len(specs)}: {names}")
    return Batch({spec.name: tensor for spec, tensor in zip(specs, tensors, strict=True)}, target)


def first_inputs(task: Task, arch: Mapping[str, Scalar]) -> dict[str, Array] | None:
    """The inputs of the first calibration case by name; None for a task without one."""
    case = next(iter(task.cases("calibration")), None)
    return None if case is None else task.inputs(case, **arch)


def channels_last(tensor: Any) -> Any:
    """4-D and 5-D tensors in ``channels_last`` layout, in which convolutions are at least 1.3 times faster; others
    unchanged."""
    import torch

    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    return tensor.contiguous(memory_format=layouts[tensor.ndim]) if tensor.ndim in layouts else tensor


def _in_order(inputs: Mapping[str, Any], specs: Sequence[TensorSpec] | None) -> Iterable[tuple[str, Any]]:
    if specs is None:
        return inputs.items()
    names = [spec.name for spec in specs]
    for name in inputs:
        if name not in names:
            raise DataError(
                _ASKED, f"batches() gave an input {name!r}", f"input_specs() has none. {nearest(name, names)}"
            )
    missing = [name for name in names if name not in inputs]
    if missing:
        raise DataError(_ASKED, f"batches() gave no input {missing[0]!r}", "Yield every input of input_specs()")
    return [(name, inputs[name]) for name in names]


def _tensor(value: Any, what: str) -> Any:
    import torch

    if not isinstance(value, torch.Tensor):
        remedy = "Yield torch tensors: one, a tuple of them, or a dict by input name"
        raise DataError(_ASKED, f"{what} is of type {type(value).__name__}", remedy)
    return channels_last(value)
