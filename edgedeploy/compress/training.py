"""One training loop for two uses: the baseline learns from labels, a compressed student from labels and its teacher.

AdamW, linear warm-up then a cosine to zero, gradients clipped to norm 5. With a teacher the loss is ``(1 - w) * task.loss
+ w * distillation``, ``w`` being the recipe's ``distill_weight``; :mod:`edgedeploy.compress.distillation` has the rest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, NoReturn

from edgedeploy.compress.batch import Batch, as_batch, first_inputs
from edgedeploy.compress.checkpoint import TrainState, identity_of, read_checkpoint, write_checkpoint
from edgedeploy.compress.distillation import distillation
from edgedeploy.compress.host import TrainingPrecision, this_host
from edgedeploy.compress.layout import contiguous, laid_out
from edgedeploy.compress.oversight import ALONE, Oversight, TrainProgress, TrainReport, remaining_s
from edgedeploy.compress.teacher import answers_of
from edgedeploy.errors import BuildError, DataError, EdgeDeployError, OutOfTime, StorageError
from edgedeploy.interfaces.task import Recoverable, Task, TrainRecipe
from edgedeploy.interfaces.their_code import their_code
from edgedeploy.records.variant import Scalar
from edgedeploy.reference.calling import call, map_tensors
from edgedeploy.reference.export import check_answers
from edgedeploy.reference.translate import first_line, users_code

CLIP_NORM: Final = 5.0
TELL_EVERY_S: Final = 5.0
"""How often progress is reported within a long epoch."""


def fit(
    model: Any,
    task: Recoverable,
    recipe: TrainRecipe,
    *,
    arch: Mapping[str, Scalar],
    teacher: Any | None = None,
    oversight: Oversight = ALONE,
    prepare: Callable[[], None] = lambda: None,
    settings: Mapping[str, object] | None = None,
) -> TrainReport:
    """Train ``model`` in place and leave it in evaluation mode, its weights contiguous.

    ``teacher`` runs on the student's own batches, so it has to accept their resolution; it is put into evaluation mode
    and not changed otherwise. ``recipe.seed`` decides the result up to the order of parallel sums, also when the
    training resumes from a checkpoint. ``prepare`` runs first, unless a checkpoint is resumed. ``settings`` is
    everything besides the recipe that decides the result.

    Raises ``BuildError`` when the loss is no longer finite, the model's own code fails, or its answers could not be exported
    after the training; ``DataError`` when there are no training batches, or what comes is no batch; ``OutOfTime`` when
    ``oversight.out_of_time`` says so; the training is then saved first.
    """
    import torch

    host = this_host()
    precision = host.precision(recipe)
    identity = identity_of(model, recipe, precision, arch, teacher, settings or {})
    kept = read_checkpoint(oversight.checkpoint, identity, oversight.note) if oversight.checkpoint else None
    if kept is None and teacher is None and isinstance(task, Task):
        check_answers(model, task.input_specs(**arch), first_inputs(task, arch))
    if kept is None:
        prepare()
    torch.manual_seed(recipe.seed)
    if teacher is not None:
        teacher.eval()
    with laid_out(model):
        run = _Run(model, task, recipe, arch, teacher, precision, oversight, identity)
        if kept is not None:
            run.go_on_with(kept)
        model.train()
        for epoch in range(run.epoch, recipe.epochs):
            run.train_epoch(epoch)
    model.eval()
    run.optimiser.zero_grad(set_to_none=True)
    contiguous(model)
    report = TrainReport(recipe.epochs, run.steps, run.mean, run.wall_s, run.cpu_s, precision, host)
    oversight.done(report)
    return report


class _Run:
    """The state of one training; see :class:`TrainState`."""

    def __init__(
        self,
        model: Any,
        task: Recoverable,
        recipe: TrainRecipe,
        arch: Mapping[str, Scalar],
        teacher: Any | None,
        precision: TrainingPrecision,
        oversight: Oversight,
        identity: str,
    ) -> None:
        import torch

        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not parameters:
            found = "it has no parameters" if not any(True for _ in model.parameters()) else "every parameter is frozen"
            raise BuildError(
                f"train {type(model).__name__}", found, "Train a model with weights, or search no training"
            )
        self._model = model
        self._task = task
        self._recipe = recipe
        self._arch = arch
        self._teacher = teacher
        self._precision = precision
        self._oversight = oversight
        self._identity = identity
        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.epoch, self.steps, self.mean = 0, 0, math.nan
        self._step, self._losses = 0, list[float]()
        self._rng: Any = None
        self._epoch_rng: Any = None
        self._before_s = self._cpu_before_s = 0.0
        self._started_s, self._cpu_started_s = time.monotonic(), time.process_time()
        self._told_s = self._epoch_started_s = self._started_s
        self._measured: list[tuple[float, float]] = []
        self._complained = False

    @property
    def wall_s(self) -> float:
        return self._before_s + time.monotonic() - self._started_s

    @property
    def cpu_s(self) -> float:
        return self._cpu_before_s + time.process_time() - self._cpu_started_s

    def go_on_with(self, kept: TrainState) -> None:
        self._model.load_state_dict(kept.model)
        self.optimiser.load_state_dict(dict(kept.optimiser))
        self.epoch, self._step, self.steps = kept.epoch, kept.step, kept.steps
        self._losses, self.mean = list(kept.losses), kept.mean
        self._rng, self._epoch_rng = kept.rng, kept.epoch_rng
        self._before_s, self._cpu_before_s = kept.wall_s, kept.cpu_s

    def train_epoch(self, epoch: int) -> None:
        import torch

        if self._epoch_rng is not None:
            torch.set_rng_state(self._epoch_rng)
        self._epoch_rng = torch.get_rng_state()
        self._epoch_started_s = time.monotonic()
        with their_code(self._task, f"batches() of epoch {epoch + 1}"):
            batches = list(
                self._task.batches(_epoch_seed(self._recipe, epoch), self._recipe.batch_size, **self._seen(epoch))
            )
        if not batches:
            raise DataError(
                f"epoch {epoch + 1} of training",
                f"the train split gave no batch at batch_size {self._recipe.batch_size}",
                "Add training cases, or change batch_size",
            )
        first = self._step
        if first:
            torch.set_rng_state(self._rng)
        for index in range(first, len(batches)):
            if self._oversight.out_of_time():
                self._stop(epoch, index)
            self._train_step(epoch, index / len(batches), self._batch(batches[index], self._seen(epoch)))
            if time.monotonic() - self._told_s >= TELL_EVERY_S:
                self._tell(epoch, (index + 1 - first) / len(batches), 1 - (index + 1) / len(batches))
        self._end_epoch(epoch, 1 - first / len(batches))

    def _batch(self, batch: Any, arch: Mapping[str, Scalar]) -> Batch:
        specs = self._task.input_specs(**arch) if isinstance(self._task, Task) else None
        return as_batch(batch, specs)

    def _train_step(self, epoch: int, share: float, batch: Batch) -> None:
        import torch

        rate = self._recipe.learning_rate * _schedule(self._recipe, epoch + share)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss = _loss(self._model, self._task, self._recipe, self._precision, self._teacher, batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise BuildError(
                f"train for {self._recipe.epochs} epochs",
                f"the loss became {value} in epoch {epoch + 1}",
                "Lower learning_rate",
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), CLIP_NORM)
        self.optimiser.step()
        self._losses.append(value)
        self.steps += 1

    def _end_epoch(self, epoch: int, trained: float) -> None:
        """``trained`` is the share of the epoch that this run trained: less than 1 if it resumed within the epoch."""
        import torch

        self.mean = sum(self._losses) / len(self._losses)
        self.epoch, self._step, self._losses = epoch + 1, 0, []
        self._epoch_rng = torch.get_rng_state()
        self._keep()
        self._measured.append((self._work(epoch) * trained, time.monotonic() - self._epoch_started_s))
        self._tell(epoch + 1, 0.0, 0.0)

    def _tell(self, epoch: int, trained: float, left: float) -> None:
        """``trained`` and ``left`` are shares of the current epoch: done by this run, and still to do; 0 between
        epochs."""
        now_s = self._told_s = time.monotonic()
        measured = [
            *self._measured,
            *([(self._work(epoch) * trained, now_s - self._epoch_started_s)] if trained else []),
        ]
        after = range(epoch + 1 if trained else epoch, self._recipe.epochs)
        work = self._work(epoch) * left + sum(map(self._work, after))
        loss = sum(self._losses) / len(self._losses) if self._losses else self.mean
        spent_s = now_s - self._started_s
        self._oversight.progress(TrainProgress(epoch, self._recipe.epochs, loss, spent_s, remaining_s(measured, work)))

    def _seen(self, epoch: int) -> Mapping[str, Scalar]:
        """The architecture whose batches an epoch sees."""
        return {**self._arch, **self._recipe.early_arch} if epoch < self._recipe.early_epochs else self._arch

    def _work(self, epoch: int) -> float:
        """Relative cost of an epoch: its time grows with the number of input elements."""
        if not self._recipe.early_epochs or not isinstance(self._task, Task):
            return 1.0
        return float(sum(math.prod(spec.shape) for spec in self._task.input_specs(**self._seen(epoch))))

    def _stop(self, epoch: int, step: int) -> NoReturn:
        """Save a checkpoint between two steps, then end the training with ``OutOfTime``."""
        import torch

        self.epoch, self._step, self._rng = epoch, step, torch.get_rng_state()
        kept = self.steps > 0 and self._keep()
        raise OutOfTime(
            f"training of {self._oversight.what}",
            f"the time was over after {epoch} of {self._recipe.epochs} epochs",
            "A resumed study continues it" if kept else "A resumed study starts it from the beginning",
        )

    def _keep(self) -> bool:
        """Whether a checkpoint could be saved. A full disk does not end the training; it is noted once."""
        if self._oversight.checkpoint is None:
            return False
        state = TrainState(
            model=self._model.state_dict(),
            optimiser=self.optimiser.state_dict(),
            epoch=self.epoch,
            step=self._step,
            steps=self.steps,
            losses=self._losses,
            mean=self.mean,
            epoch_rng=self._epoch_rng,
            rng=self._rng,
            wall_s=self.wall_s,
            cpu_s=self.cpu_s,
        )
        try:
            write_checkpoint(self._oversight.checkpoint, self._identity, state)
        except (OSError, StorageError) as exc:
            if not self._complained:
                self._oversight.note(f"no checkpoint of the training of {self._oversight.what} could be saved: {exc}")
            self._complained = True
            return False
        return True


def _loss(
    model: Any,
    task: Recoverable,
    recipe: TrainRecipe,
    precision: TrainingPrecision,
    teacher: Any | None,
    batch: Batch,
) -> Any:
    import torch

    with users_line(
        f"a training step with inputs {batch.shapes}", "batches() and the model's forward have to fit each other"
    ):
        with _autocast(precision):
            outputs = call(model, batch.inputs)
        student = map_tensors(outputs, _float)
    with users_line(
        "the task's loss of the model's outputs and a batch's target", "loss() gets what the forward returns"
    ):
        loss = task.loss(student, batch.target)
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
        found = f"a {type(loss).__name__}" if not isinstance(loss, torch.Tensor) else f"a tensor {tuple(loss.shape)}"
        found = found if not isinstance(loss, torch.Tensor) or loss.numel() != 1 else "a tensor without gradient"
        raise BuildError("the task's loss as one number that can be differentiated", found, "Return a scalar tensor")
    if teacher is None or recipe.distill_weight == 0:
        return loss

    def ask() -> Any:
        with torch.no_grad(), _autocast(precision):
            return call(teacher, batch.inputs)

    wanted = map_tensors(answers_of(teacher).to(batch, precision, ask), _float)
    return (1 - recipe.distill_weight) * loss + recipe.distill_weight * distillation(student, wanted)


def _float(tensor: Any) -> Any:
    return tensor.float() if tensor.is_floating_point() else tensor


@contextmanager
def users_line(asked: str, remedy: str) -> Iterator[None]:
    """Turns an error of the user's model or loss into ours, with the user's line."""
    try:
        yield
    except (EdgeDeployError, OSError, MemoryError):
        raise
    except Exception as exc:  # the user's code may raise anything
        place = users_code(exc)
        found = f"{type(exc).__name__}: {first_line(exc)}{f' ({place})' if place else ''}"
        raise BuildError(asked, found, remedy) from exc


def _autocast(precision: TrainingPrecision) -> AbstractContextManager[Any]:
    import torch

    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")


def _schedule(recipe: TrainRecipe, epoch: float) -> float:
    """Share of the peak learning rate at a fractional epoch."""
    if epoch < recipe.warmup_epochs:
        return max(0.02, epoch / recipe.warmup_epochs)
    span = max(1e-9, recipe.epochs - recipe.warmup_epochs)
    return 0.5 * (1 + math.cos(math.pi * (epoch - recipe.warmup_epochs) / span))


def _epoch_seed(recipe: TrainRecipe, epoch: int) -> int:
    return recipe.seed * 100_003 + epoch
