"""Training by the task's own ``fit``, held to what the rest of a study needs of a trained model."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING, NoReturn

from edgedeploy.compress.host import this_host
from edgedeploy.compress.oversight import ALONE, Oversight, TrainProgress, TrainReport, remaining_s
from edgedeploy.errors import BuildError, OutOfTime, SpecError
from edgedeploy.interfaces.task import FitPurpose, Trainer
from edgedeploy.records.variant import Scalar

if TYPE_CHECKING:
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
    """Train ``model`` in place and leave it on the CPU in evaluation mode, its tensors contiguous.

    It cannot resume in mid-training. Raises ``OutOfTime`` when ``oversight.out_of_time`` has told ``fit`` so, ``BuildError``
    when the weights are no longer finite, ``SpecError`` when ``fit`` made another model of it, and whatever ``fit`` raises.
    """
    if oversight.out_of_time():
        _stop(oversight)
    heard = _Heard(oversight)
    before = _shapes(model)
    if teacher is not None:
        teacher.eval()
    cpu_started_s = time.process_time()
    task.fit(model, arch=arch, purpose=purpose, teacher=teacher, out_of_time=heard.out_of_time, progress=heard.progress)
    if heard.cut:
        _stop(oversight)
    model.to("cpu").eval()
    model.zero_grad(set_to_none=True)
    _check(model, before, oversight.what)
    for tensor in chain(model.parameters(), model.buffers()):
        tensor.data = tensor.data.contiguous()
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


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in chain(model.named_parameters(), model.named_buffers())}


def _check(model: nn.Module, before: Mapping[str, tuple[int, ...]], what: str) -> None:
    import torch

    now = _shapes(model)
    if now != before:
        names = sorted(name for name in {**before, **now} if before.get(name) != now.get(name))
        found = f"the model has other tensors than before ({', '.join(names[:3])})"
        raise SpecError(f"fit of {what}", found, "Train the model's weights in place")
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BuildError(f"fit of {what}", f"{name} became NaN or Inf", "Lower the learning rate")


def _stop(oversight: Oversight) -> NoReturn:
    raise OutOfTime(
        f"training of {oversight.what}", "the time was over", "A resumed study starts it from the beginning"
    )
