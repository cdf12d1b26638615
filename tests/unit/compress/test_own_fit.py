"""Training by the user's own code: a plain loop, a trainer's object, and what is asked of both."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from edges_task import Edges, TrainableEdges, loss_of, variant
from torch import nn

from edgedeploy import Trainer
from edgedeploy.compress.model import derive, train_baseline
from edgedeploy.compress.oversight import Oversight, TrainProgress, TrainReport
from edgedeploy.compress.prune import channel_widths
from edgedeploy.compress.shaped import built
from edgedeploy.errors import BuildError, OutOfTime, SpecError
from edgedeploy.interfaces.task import can_train

ARCH = {"size": 16, "mix": "wide"}
LOADER = TrainableEdges()
"""Only for its batches and its loss."""


class PlainLoop(Edges):
    """A script's loop in a few lines; it distils from the teacher where there is one."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bool]] = []

    def fit(
        self,
        model: Any,
        *,
        arch: Any,
        purpose: str,
        teacher: Any,
        out_of_time: Callable[[], bool],
        progress: Callable[[int, int, float], None],
    ) -> None:
        self.asked.append((purpose, teacher is not None))
        epochs = 6 if purpose == "baseline" else 3
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
        model.train()
        for epoch in range(epochs):
            for images, truth in LOADER.batches(epoch, 8, **arch):
                if out_of_time():
                    return
                loss = LOADER.loss(model(images), truth)
                if teacher is not None:
                    with torch.no_grad():
                        wanted = teacher(images)
                    loss = loss + nn.functional.mse_loss(model(images), wanted)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            progress(epoch + 1, epochs, float(loss))


class Fitter:
    """Stands for a trainer with an interface of its own, such as Lightning's."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def fit(self, module: nn.Module, batches: Any) -> None:
        optimiser = torch.optim.Adam(module.parameters(), lr=1e-2)
        for epoch in range(self.epochs):
            for images, truth in batches(epoch):
                loss = LOADER.loss(module(images), truth)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()


class Wrapped(Edges):
    """Neither the teacher nor the time nor progress matters to it."""

    def fit(self, model: Any, *, purpose: str, arch: Any, **_: Any) -> None:
        Fitter(6 if purpose == "baseline" else 3).fit(model, lambda epoch: LOADER.batches(epoch, 8, **arch))


def test_a_plain_loop_trains_the_baseline_and_recovers() -> None:
    task, told, reports = PlainLoop(), list[TrainProgress](), list[TrainReport]()
    assert isinstance(task, Trainer)
    assert can_train(task)
    oversight = Oversight(progress=told.append, done=reports.append)
    baseline = train_baseline(task, ARCH, oversight=oversight)
    assert not baseline.training
    assert loss_of(LOADER, baseline) < 0.8 * loss_of(LOADER, task.build(**ARCH).eval())
    assert [state.epoch for state in told] == [1, 2, 3, 4, 5, 6]
    assert told[0].left_s is not None and told[-1].left_s == 0
    (report,) = reports
    assert (report.epochs, report.by) == (6, "fit")
    assert report.final_loss == told[-1].loss
    assert report.as_json()["by"] == "fit"

    before = {name: tensor.clone() for name, tensor in baseline.state_dict().items()}
    narrow = derive(task, variant(width=0.5), baseline, oversight=oversight)
    assert set(channel_widths(narrow).values()) == {8, 2}
    assert task.asked == [("baseline", False), ("recovery", True)]
    assert all(torch.equal(tensor, before[name]) for name, tensor in baseline.state_dict().items())


def test_a_trainer_of_another_interface_is_wrapped_in_a_few_lines() -> None:
    """It ignores the teacher, and tells nothing of its progress."""
    task, told, reports = Wrapped(), list[TrainProgress](), list[TrainReport]()
    baseline = train_baseline(task, ARCH, oversight=Oversight(progress=told.append, done=reports.append))
    assert loss_of(LOADER, baseline) < 0.8 * loss_of(LOADER, task.build(**ARCH).eval())
    assert [(state.epoch, state.epochs) for state in told] == [(1, 1)], "its end is told"
    assert math.isnan(told[0].loss)
    assert reports[0].as_json()["final_loss"] is None
    narrow = derive(task, variant(width=0.5), baseline)
    assert loss_of(LOADER, narrow) < loss_of(LOADER, task.build(**ARCH).eval())


class Both(TrainableEdges):
    def fit(self, model: Any, **_: Any) -> None:
        with torch.no_grad():
            model[0].bias += 1


def test_fit_stands_in_the_place_of_the_loop_where_a_task_has_both() -> None:
    task = Both()
    fresh = task.build(**ARCH)
    assert torch.equal(train_baseline(task, ARCH)[0].bias, fresh[0].bias + 1)  # type: ignore[index]


@pytest.mark.parametrize("asked", [0, 3])
def test_a_training_that_is_cut_off_begins_anew(asked: int) -> None:
    times = iter(range(1000))
    task = PlainLoop()
    with pytest.raises(OutOfTime, match=r"training of the baseline: the time was over\. .*from the beginning"):
        train_baseline(task, ARCH, oversight=Oversight("the baseline", out_of_time=lambda: next(times) >= asked))
    assert len(task.asked) == (1 if asked else 0)


class Odd(Edges):
    def __init__(self, change: Callable[[nn.Module], Any]) -> None:
        self._change = change

    def fit(self, model: Any, **_: Any) -> None:
        next(model.parameters()).data.mul_(1.01)
        self._change(model)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda model: model.append(nn.Conv2d(2, 2, 1)), SpecError, r"other tensors than before \(6.bias, 6.weight\)"),
        (lambda model: nn.utils.parametrizations.weight_norm(model[0]), SpecError, "other tensors than before"),
        (lambda model: model[0].weight.data.fill_(math.nan), BuildError, r"0.weight became NaN or Inf"),
    ],
)
def test_what_fit_may_not_do_to_a_model_is_told(
    change: Callable[[nn.Module], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train_baseline(Odd(change), ARCH)


def test_frozen_layers_and_training_mode_do_not_matter() -> None:
    def change(model: nn.Module) -> None:
        model.train().requires_grad_(False).to(memory_format=torch.channels_last)

    model = train_baseline(Odd(change), ARCH)
    assert not model.training
    assert all(tensor.is_contiguous() for tensor in model.state_dict().values())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_that_is_left_in_another_precision_comes_back_to_float32(kind: torch.dtype) -> None:
    model = train_baseline(Odd(lambda model: model.to(kind)), ARCH)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def becomes_another(model: Any) -> None:
    model.__class__ = type("Wrapper", (type(model),), {})


def exits(model: Any) -> None:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (becomes_another, r"other modules than before \(itself\)"),
        (lambda model: model["weights"], r"fit\(\) of .*test_own_fit.py, line \d+: TypeError"),
        (exits, r"fit\(\) of .*test_own_fit.py, line \d+: SystemExit: 3"),
    ],
)
def test_what_goes_wrong_in_fit_is_told_with_its_line(change: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        train_baseline(Odd(change), ARCH)


class Builds(Edges):
    """Whose ``build`` gives what ``make`` makes."""

    trained = True

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make

    def build(self, **arch: Any) -> Any:
        return self.make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Linear(2, 2).half(), r"build\(size=16, mix='wide'\): weight is float16.*Return model.float\(\)"),
        (lambda: {"weights": 1}, "it returned a dict.*Return a torch.nn.Module"),
        (lambda: ARCH["depth"], r"test_own_fit.py, line \d+: KeyError: 'depth'"),
    ],
)
def test_what_build_gives_is_held_against_what_a_study_needs(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        built(Builds(make), ARCH)


@pytest.mark.parametrize("fit", [lambda model: None, lambda model: copy.deepcopy(model)[0].weight.data.zero_()])
def test_a_baseline_that_fit_left_untrained_is_refused(fit: Callable[[nn.Module], Any]) -> None:
    class Leaves(Edges):
        def fit(self, model: Any, **_: Any) -> None:
            fit(model)

    with pytest.raises(SpecError, match=r"it left every weight as build\(\) made it.*not a copy.*trained = True"):
        train_baseline(Leaves(), ARCH)
