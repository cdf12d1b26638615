"""Which cases of a study belong together, as far as its task says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from edgedeploy.errors import DataError
from edgedeploy.interfaces.scores import Grouped, names_groups
from edgedeploy.interfaces.task import SPLITS, Case, Split, Task
from edgedeploy.interfaces.their_code import their_code

SCORED: Final[tuple[Split, ...]] = ("selection", "confirmation")
UNKNOWN: Final = (
    "clusters unknown: the task names no groups (patient, clip, site), so every case counts as independent; "
    "where several are of one patient, bounds on accuracy are too narrow"
)


@dataclass(frozen=True)
class Clusters:
    """``named``: the task says which cases belong together. ``cases`` and ``groups`` are their numbers by scored split."""

    named: bool
    cases: Mapping[str, int]
    groups: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        return {"named": self.named, "cases": dict(self.cases), "groups": dict(self.groups)}


def clusters_of(task: Task) -> Clusters:
    """Of the task's scored splits. Without groups every case is one of its own. Raises ``SpecError`` for a ``group_of`` of
    the user's that fails."""
    count: dict[str, int] = {split: len(task.cases(split)) for split in SCORED}
    if not (isinstance(task, Grouped) and names_groups(task)):
        return Clusters(False, count, count)
    groups: dict[str, int] = {split: len({group for _, group in _grouped(task, split)}) for split in SCORED}
    return Clusters(True, count, groups)


def check_groups(task: Task) -> None:
    """No group has cases in a scored split and in another one: what was seen confirms nothing. Raises ``DataError``, which
    names the cases and not the group, who may be a patient."""
    if not (isinstance(task, Grouped) and names_groups(task)):
        return
    first: dict[str, Case] = {}
    for split in SPLITS:
        for case, group in _grouped(task, split):
            other = first.setdefault(group, case)
            if other.split != case.split and {other.split, case.split} & set(SCORED):
                found = f"{other.id!r} ({other.split}) and {case.id!r} ({case.split}) are of one group"
                remedy = "Put all cases of a group (patient, clip, site) into one split"
                raise DataError(f"splits of task {task.name!r} that share no group", found, remedy)


def _grouped(task: Grouped, split: Split) -> list[tuple[Case, str]]:
    with their_code(task, f"group_of() of split {split!r}"):
        return [(case, str(task.group_of(case))) for case in cast("Task", task).cases(split)]


def kept_clusters(study: Mapping[str, Any]) -> Clusters | None:
    """What ``study.json`` says of them; None for a folder that was begun before it did."""
    kept = study.get("clusters")
    return Clusters(kept["named"], dict(kept["cases"]), dict(kept["groups"])) if kept else None
