"""What a task says of its cases, held against what the task protocol asks: splits, inputs, scores.

A study's task is its user's own code. What it returns wrongly is told with the case, and what it raises with file and
line; neither says anything of a variant, so neither is stored as a variant's failure.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from edgedeploy.errors import DataError, SpecError, nearest
from edgedeploy.interfaces.task import SPLITS, Array, Case, Split, Task, baseline_arch
from edgedeploy.interfaces.their_code import their_code
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.variant import Scalar

NEEDED: Final[Mapping[Split, str]] = {
    "calibration": "ranges are taken from it, and every artifact is compared with its reference on it",
    "selection": "variants are scored on it",
}

LARGEST_SCORE: Final = 1e100
"""Of a case, by its absolute value: variances of any number of cases stay finite."""


def check_cases(task: Task, space: Mapping[str, Sequence[Any]]) -> None:
    """Hold the task's splits, and the inputs of the first case of each, against the protocol, before a board is touched.

    The inputs are looked at for the baseline's architecture, and for each value of ``space`` that is a keyword of the
    architecture. Raises ``DataError`` and ``SpecError``.
    """
    splits = {split: _cases_of(task, split) for split in SPLITS}
    for split, why in NEEDED.items():
        if not splits[split]:
            raise DataError(f"cases of split {split!r}", "there are none", f"Give it some: {why}")
    baseline = baseline_arch(task)
    firsts = [splits[split][0] for split in ("calibration", "selection", "confirmation") if splits[split]]
    for case in firsts:
        inputs_of(task, case, baseline)
    for name in baseline.keys() & space.keys():
        for value in space[name]:
            inputs_of(task, firsts[0], {**baseline, name: value})
    _check_shared(task, splits, baseline)


def inputs_of(task: Task, case: Case, arch: Mapping[str, Scalar]) -> dict[str, Array]:
    """The model-ready inputs of a case, as ``input_specs()`` describes them. Raises ``DataError``."""
    asked = f"inputs() of case {case.id!r}"
    with their_code(task, asked):
        specs = task.input_specs(**arch)
        found = task.inputs(case, **arch)
    if not isinstance(found, Mapping):
        raise DataError(asked, f"it returned {_kind(found)}", "Return a dict of arrays by the names of input_specs()")
    wanted = {spec.name for spec in specs}
    if set(found) != wanted:
        names = ", ".join(sorted(map(str, found))) or "nothing"
        raise DataError(asked, f"it has {names}", f"input_specs() names {', '.join(sorted(wanted))}")
    return {spec.name: _checked(asked, found[spec.name], spec) for spec in specs}


def scores_of(task: Task, outputs: Mapping[str, Array], case: Case) -> dict[str, float | None]:
    """What ``evaluate()`` says of a case, as plain floats. Raises ``SpecError``."""
    asked = f"evaluate() of case {case.id!r}"
    with their_code(task, asked):
        found = task.evaluate(outputs, case)
    return checked_scores(asked, found, tuple(task.metrics), "metrics")


def checked_scores(asked: str, found: object, names: Sequence[str], member: str) -> dict[str, float | None]:
    """What ``evaluate()`` or ``score()`` returned, as plain floats of the ``names`` that the task's ``member`` has. Raises
    ``SpecError``."""
    if not isinstance(found, Mapping):
        raise SpecError(asked, f"it returned {_kind(found)}", f"Return a dict with {', '.join(names)}")
    for name in found:
        if name not in names:
            raise SpecError(asked, f"it returned {name!r}, which `{member}` does not name", nearest(str(name), names))
    missing = [name for name in names if name not in found]
    if missing:
        raise SpecError(asked, f"it lacks {', '.join(missing)}", "Return None for a metric that is undefined")
    return {name: _number(asked, name, found[name]) for name in names}


def _cases_of(task: Task, split: Split) -> Sequence[Case]:
    asked = f"cases({split!r})"
    with their_code(task, asked):
        found = tuple(task.cases(split))
    seen: set[str] = set()
    for case in found:
        if not isinstance(case, Case):
            raise SpecError(asked, f"it holds {_kind(case)}", "Return edgedeploy.Case objects")
        if case.split != split:
            raise DataError(asked, f"case {case.id!r} says it is of split {case.split!r}", "Correct one of the two")
        if case.id in seen:
            raise DataError(asked, f"two cases have the id {case.id!r}", "Give each case an id of its own")
        seen.add(case.id)
    return found


def _check_shared(task: Task, splits: Mapping[Split, Sequence[Case]], arch: Mapping[str, Scalar]) -> None:
    """Cases of one id in two splits may be numbered alike; they must not be the same."""
    first: dict[str, Case] = {}
    for split in ("calibration", "selection", "confirmation"):
        for case in splits[split]:
            other = first.setdefault(case.id, case)
            if other is case:
                continue
            mine, theirs = inputs_of(task, case, arch), inputs_of(task, other, arch)
            if all(np.array_equal(mine[name], theirs[name]) for name in mine):
                found = f"case {case.id!r} is in {other.split} and in {split}"
                raise DataError("splits that share no case", found, "What the search saw can confirm nothing")


def _checked(asked: str, value: Any, spec: TensorSpec) -> Array:
    asked = f"{asked}, input {spec.name!r}"
    if type(value).__module__.partition(".")[0] == "torch":
        raise DataError(asked, "it is a torch tensor", "Return numpy arrays: tensor.numpy()")
    if not isinstance(value, np.ndarray):
        raise DataError(asked, f"it is {_kind(value)}", "Return a numpy array")
    wanted = f"input_specs() says {spec.dtype} {spec.shape}"
    if tuple(value.shape) != spec.shape:
        lacks = tuple(value.shape) == spec.shape[1:]
        remedy = "Add the batch axis: array[None]" if lacks else "Correct one of the two"
        raise DataError(asked, f"it has shape {tuple(value.shape)}, and {wanted}", remedy)
    if value.dtype.name != spec.dtype:
        raise DataError(
            asked, f"it is {value.dtype.name}, and {wanted}", f"array.astype({spec.dtype!r}) if that is meant"
        )
    if value.dtype.kind in "fc" and not np.isfinite(value).all():
        bad = int(np.count_nonzero(~np.isfinite(value)))
        raise DataError(asked, f"{bad} of {value.size} values are NaN or Inf", "Remove the case, or mend its data")
    return value


def _number(asked: str, name: str, value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, numbers.Real) and getattr(value, "shape", None) is not None:
        size = math.prod(value.shape)
        if size != 1:
            found = f"{name} has {size} values ({_kind(value)} of shape {tuple(value.shape)})"
            raise SpecError(asked, found, "Return one number a metric")
        value = value.item()
    if not isinstance(value, (numbers.Real, np.bool_)):
        raise SpecError(asked, f"{name} is {_kind(value)}", "Return a number, or None where it is undefined")
    try:
        number = float(value)
    except OverflowError:  # a whole number of more than 308 digits
        number = math.inf
    if not math.isfinite(number):
        raise SpecError(asked, f"{name} is {number}", "Return None where the metric is undefined")
    if abs(number) > LARGEST_SCORE:
        found = f"{name} is {number:.3g}, and at most {LARGEST_SCORE:g} is taken: sums of squares would overflow"
        raise SpecError(asked, found, "Give it in a larger unit, or return None where the metric is undefined")
    return number


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
