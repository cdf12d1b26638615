"""What a study leaves out of networks besides channels, held against the task's network before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgedeploy.errors import EdgeDeployError, nearest
from edgedeploy.interfaces.task import ReadyMade, Task, Teaching, baseline_arch, can_recover
from edgedeploy.interfaces.their_code import their_code
from edgedeploy.records.shrink import NO_STUDENT, SHARES, SHRINK_KEYS, Shrink
from edgedeploy.records.storage import NO_STORAGE
from edgedeploy.records.variant import Scalar
from edgedeploy.spec.source import SpecSource

Parameters = Mapping[str, Sequence[Any]]


def leaves_out(parameters: Parameters, task: Task) -> bool:
    """Whether any variant of these parameters is no whole network of the task's own."""
    return any(_smaller(parameters, task))


def _smaller(parameters: Parameters, task: Task) -> list[str]:
    """Parameters with a value that leaves something out; those that the task has itself are its own affair."""
    ours = [name for name in SHRINK_KEYS if name in parameters and name not in task.architecture]
    return [name for name in ours if any(value not in (1, NO_STUDENT) for value in parameters[name])]


def check_network(source: SpecSource, space: Mapping[str, Sequence[Scalar]], task: Task) -> None:
    """Refuse parameters of which the task's network has nothing to leave out, by making its untrained network smaller by
    the least share of each; and students that it does not have, or that answer in other shapes."""
    if isinstance(task, ReadyMade) and any(value != NO_STORAGE for value in space.get("storage", ())):
        found = "a ready-made model's weights are packed in no study: it is no network in PyTorch"
        raise source.error("space.storage", found, "Remove it from the space")
    for name in _smaller(space, task):
        if isinstance(task, ReadyMade):
            found = "a ready-made model cannot be made smaller: it is no network in PyTorch"
            raise source.error(f"space.{name}", found, "Remove it from the space")
        if name not in SHARES:
            _check_students(source, task, [str(value) for value in space[name] if value != NO_STUDENT])
            continue
        try:
            _make(task, Shrink.of({name: min(float(value) for value in space[name])}, ()))
        except EdgeDeployError as exc:
            raise source.error(f"space.{name}", f"{exc.asked}: {exc.found}", exc.remedy) from exc


def _make(task: Task, shrink: Shrink) -> None:
    import torch

    from edgedeploy.compress.shaped import built, one_case
    from edgedeploy.compress.shrink.apply import shrunk

    arch = baseline_arch(task)
    with torch.random.fork_rng(devices=[]), their_code(task, f"one inference with {shrink.label}"):
        shrunk(built(task, arch), shrink, one_case(task, arch), None)


def _check_students(source: SpecSource, task: Task, names: Sequence[str]) -> None:
    import torch

    from edgedeploy.compress.shaped import built, one_case
    from edgedeploy.compress.student import student_of
    from edgedeploy.reference.calling import call, named_tensors

    known = task.students if isinstance(task, Teaching) else {}
    missing = [name for name in names if name not in known]
    if missing:
        found = f"task {task.name!r} has no student {missing[0]!r}"
        remedy = nearest(missing[0], known) if known else "Give the task `students`, or remove it from the space"
        raise source.error("space.student", found, remedy)
    if not can_recover(task):
        raise source.error("space.student", f"task {task.name!r} has no training for it", "Remove it from the space")
    arch = baseline_arch(task)

    def shapes(model: Any, what: str) -> dict[str, tuple[int, ...]]:
        with their_code(task, f"one inference of {what}"):
            outputs = named_tensors(call(model.eval(), one_case(task, arch)))
        return {name: tuple(tensor.shape) for name, tensor in outputs.items()}

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        wanted = shapes(built(task, arch), "the task's network")
        for name in names:
            found_shapes = shapes(student_of(task, name, arch), f"student {name!r}")
            if found_shapes != wanted:
                found = f"student {name!r} answers {found_shapes}, the task's network {wanted}"
                raise source.error("space.student", found, "Let it answer in the same names and shapes")
