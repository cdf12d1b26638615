"""The steps by which a task makes its inputs of frames, shown to give what the study measures with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgedeploy.errors import SpecError
from edgedeploy.interfaces.task import Piped, Task
from edgedeploy.interfaces.their_code import their_code
from edgedeploy.records.variant import Scalar
from edgedeploy.reference.export import Reference
from edgedeploy.runtime.faults import BundleError as Refused
from edgedeploy.runtime.pipeline.run import FrameError, prepare
from edgedeploy.runtime.pipeline.steps import Steps, check_steps
from edgedeploy.study.cases import inputs_of


def steps_of(task: Task, arch: Mapping[str, Scalar], reference: Reference) -> Steps:
    """The task's steps, which are shown to give its inputs; none where its inputs are no frames. Raises ``SpecError``."""
    if not isinstance(task, Piped) or reference.states:
        return Steps()
    asked = f"the pipeline of task {task.name!r}"
    with their_code(task, asked):
        steps = task.pipeline(reference.told, **arch)
    if not isinstance(steps, Steps):
        raise SpecError(asked, f"it is a {type(steps).__name__}", "Return edgedeploy.runtime.pipeline.steps.Steps")
    try:
        check_steps(steps)
    except Refused as exc:
        raise SpecError(asked, exc.message, "Correct the steps") from None
    if steps.input:
        _require_inputs(task, steps, arch, asked)
    return steps


def _require_inputs(task: Any, steps: Steps, arch: Mapping[str, Scalar], asked: str) -> None:
    case = next(iter(task.cases("calibration") or task.cases("selection")))
    wanted = inputs_of(task, case, arch)
    with their_code(task, asked):
        frame = task.frame(case)
    try:
        made, _ = prepare(steps, frame)
    except FrameError as exc:
        raise SpecError(f"{asked} on case {case.id}", str(exc), "Correct `frame` or the steps") from None
    same = set(made) == set(wanted) and all(
        made[name].dtype == wanted[name].dtype and np.array_equal(made[name], wanted[name]) for name in made
    )
    if not same:
        found = "the steps make other inputs of its frame than the study measured with"
        raise SpecError(
            f"{asked} on case {case.id}", found, "Let `inputs` run the same steps: runtime.pipeline.run.prepare"
        )
