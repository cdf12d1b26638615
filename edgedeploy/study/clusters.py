"""Which cases of a study belong together, as far as its task says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from edgedeploy.interfaces.scores import Grouped, names_groups
from edgedeploy.interfaces.task import Split, Task

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
    """Of the task's scored splits. Without groups every case is one of its own."""
    cases = {split: tuple(task.cases(split)) for split in SCORED}
    count: dict[str, int] = {split: len(found) for split, found in cases.items()}
    if not (isinstance(task, Grouped) and names_groups(task)):
        return Clusters(False, count, count)
    groups: dict[str, int] = {
        split: len({str(task.group_of(case)) for case in found}) for split, found in cases.items()
    }
    return Clusters(True, count, groups)


def kept_clusters(study: Mapping[str, Any]) -> Clusters | None:
    """What ``study.json`` says of them; None for a folder that was begun before it did."""
    kept = study.get("clusters")
    return Clusters(kept["named"], dict(kept["cases"]), dict(kept["groups"])) if kept else None
