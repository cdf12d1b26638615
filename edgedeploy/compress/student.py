"""Another network in the place of the task's own, trained with the baseline as its teacher.

This module needs torch: import it inside functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from edgedeploy.errors import SpecError, nearest
from edgedeploy.interfaces.task import Recoverable, Task, Teaching, Trainable, TrainRecipe
from edgedeploy.interfaces.their_code import their_code
from edgedeploy.records.variant import Scalar

if TYPE_CHECKING:
    from torch import nn


def student_of(task: Task, name: str, arch: Mapping[str, Scalar]) -> nn.Module:
    """The task's student of that name, as its own code makes it.

    Raises ``SpecError`` for a name that it does not have, for what its code raises, and for anything but a module.
    """
    import torch

    students = task.students if isinstance(task, Teaching) else {}
    if name not in students:
        raise SpecError(f"student {name!r}", f"task {task.name!r} has no such student", nearest(name, students))
    given = students[name]
    asked = f"student {name!r} of task {task.name!r}"
    with their_code(task, asked):
        model = task.build(**{**arch, **given}) if isinstance(given, Mapping) else given(**arch)
    if not isinstance(model, torch.nn.Module):
        raise SpecError(asked, f"it is a {type(model).__name__}", "Return a torch.nn.Module")
    return model


def recipe_of_student(task: Recoverable) -> TrainRecipe:
    """As long as the task's baseline is trained, where it says how: a student begins without weights. The share of the loss
    that follows the teacher is that of recovery."""
    if not isinstance(task, Trainable):
        return task.recovery_recipe
    return replace(task.baseline_recipe, distill_weight=task.recovery_recipe.distill_weight)
