"""Training by the task's own ``fit``, held to what the rest of a study needs of a trained model."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, NoReturn

from edgedeploy.compress.checkpoint import digest_of_weights
from edgedeploy.compress.host import this_host
from edgedeploy.compress.oversight import ALONE, Oversight, TrainProgress, TrainReport, remaining_s
from edgedeploy.errors import BuildError, OutOfTime, SpecError
from edgedeploy.interfaces.task import FitPurpose, Trainer
from edgedeploy.interfaces.their_code import their_code
from edgedeploy.records.variant import Scalar

if TYPE_CHECKING:
    import torch
    from torch import nn


def fit_by_task(
    model: nn.Module,
    task: Trainer,
    *,
    arch: Mapping[str, Scalar],
    purpose: FitPurpose,
    teacher: nn.Module | None = None,
    oversight: Oversight = ALONE,
) -> TrainReport:
    """Train ``model`` in place and leave it on the CPU in evaluation mode, its tensors contiguous and of the types
    that they had.

    It cannot resume in mid-training. Raises ``OutOfTime`` when ``oversight.out_of_time`` has told ``fit`` so, ``BuildError``
    when the weights are no longer finite, ``SpecError`` when ``fit`` made another model of it, left a
    baseline untrained, or raised something.
    """
    if oversight.out_of_time():
        _stop(oversight)
    heard = _Heard(oversight)
    before = _Made.of(model)
    weights = digest_of_weights(model) if before.shapes else ""
    if teacher is not None:
        teacher.eval()
    cpu_started_s = time.process_time()
    with their_code(task, f"fit() of {oversight.what}"):
        task.fit(
            model,
            arch=arch,
            purpose=purpose,
            teacher=teacher,
            out_of_time=heard.out_of_time,
            progress=heard.progress,
        )
    if heard.cut:
        _stop(oversight)
    model.to("cpu").eval()
    model.zero_grad(set_to_none=True)
    _check(model, before, oversight.what)
    if purpose == "baseline" and weights and digest_of_weights(model) == weights:
        found = "it left every weight as build() made it"
        remedy = (
            "Train the model that it is given, not a copy; or say trained = True where build() returns trained weights"
        )
        raise SpecError(f"fit of {oversight.what}", found, remedy)
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        tensor.data = tensor.data.to(before.dtypes[name]).contiguous()
    if heard.epoch < heard.epochs or not heard.epochs:
        heard.progress(max(1, heard.epochs), max(1, heard.epochs), heard.loss)
    report = TrainReport(
        epochs=heard.epochs,
        steps=0,
        final_loss=heard.loss if math.isfinite(heard.loss) else None,
        wall_s=heard.spent_s,
        cpu_s=time.process_time() - cpu_started_s,
        precision="float32",
        host=this_host(),
        by="fit",
    )
    oversight.done(report)
    return report


class _Heard:
    """What ``fit`` asked and told."""

    def __init__(self, oversight: Oversight) -> None:
        self._oversight = oversight
        self._started_s = time.monotonic()
        self.cut = False
        self.epoch, self.epochs, self.loss = 0, 0, math.nan

    @property
    def spent_s(self) -> float:
        return time.monotonic() - self._started_s

    def out_of_time(self) -> bool:
        self.cut = self.cut or self._oversight.out_of_time()
        return self.cut

    def progress(self, epoch: int, epochs: int, loss: float = math.nan) -> None:
        self.epoch, self.epochs, self.loss = int(epoch), max(int(epoch), int(epochs)), float(loss)
        left_s = remaining_s([(float(self.epoch), self.spent_s)], float(self.epochs - self.epoch))
        self._oversight.progress(TrainProgress(self.epoch, self.epochs, self.loss, self.spent_s, left_s))


@dataclass(frozen=True)
class _Made:
    """What a model is made of, by name: shapes and types of its tensors, and classes of its modules."""

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, torch.dtype]
    classes: Mapping[str, type]

    @classmethod
    def of(cls, model: nn.Module) -> _Made:
        tensors = dict(chain(model.named_parameters(), model.named_buffers()))
        return cls(
            {name: tuple(tensor.shape) for name, tensor in tensors.items()},
            {name: tensor.dtype for name, tensor in tensors.items()},
            {name: type(module) for name, module in model.named_modules()},
        )


def _check(model: nn.Module, before: _Made, what: str) -> None:
    import torch

    now = _Made.of(model)
    for kind, old, new in (("tensors", before.shapes, now.shapes), ("modules", before.classes, now.classes)):
        if new != old:
            names = sorted(name or "itself" for name in {**old, **new} if old.get(name) != new.get(name))
            found = f"the model has other {kind} than before ({', '.join(names[:3])})"
            raise SpecError(f"fit of {what}", found, "Train the model's weights in place")
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BuildError(f"fit of {what}", f"{name} became NaN or Inf", "Lower the learning rate")


def _stop(oversight: Oversight) -> NoReturn:
    raise OutOfTime(
        f"training of {oversight.what}", "the time was over", "A resumed study starts it from the beginning"
    )
