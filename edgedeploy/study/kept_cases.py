"""The cases of each split that a study was begun with: numbers over other cases do not compare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from edgedeploy.errors import SpecError
from edgedeploy.interfaces.task import SPLITS, Split, Task, baseline_arch
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.variant import digest_of
from edgedeploy.study.cases import inputs_of
from edgedeploy.study.store import Store
from edgedeploy.tasks.onnx.inputs import digest_of_inputs

_SHOWN: Final = 3
_WAYS_OUT: Final = "Choose another --out; or put the data back as it was"
_BEGUN_BEFORE: Final = "this folder was begun before the cases of the splits were recorded: whether"


def names_of(task: Task) -> dict[str, list[str]]:
    """The ids of all cases by split."""
    return {split: [str(case.id) for case in task.cases(split)] for split in SPLITS}


def record_of(task: Task, names: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
    """What ``study.json`` keeps of each split: how many cases, a digest of their ids, and one of the first case's inputs
    where a board sees them. All inputs would take as long as a measurement."""
    record: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        record[split] = {"count": len(names[split]), "ids": _digest(split, names[split]), "first_inputs": ""}
        if split != "train" and names[split]:
            record[split]["first_inputs"] = digest_of_inputs(inputs_of(task, task.cases(split)[0], baseline_arch(task)))
    return record


def require_same_cases(store: Store, task: Task, measured: Iterable[Measurement]) -> tuple[str, ...]:
    """Hold the task's splits against those that the study in the folder was begun with; what is worth knowing of it. A
    folder of before this was recorded is held against the cases of its measurements. Nothing is compared in a folder that
    holds no study yet.

    Raises ``SpecError`` that names each split with other cases.
    """
    if not store.exists():
        return ()
    names = names_of(task)
    kept = store.study().get("cases")
    if kept is None:
        scored = {case for item in measured if item.split == "selection" for case in item.cases}
        if not scored:
            return (f"{_BEGUN_BEFORE} they changed since is not known",)
        if scored != set(names["selection"]):
            _refuse(store, [_changed("selection", sorted(scored), names["selection"])])
        return (f"{_BEGUN_BEFORE} those of other splits than selection changed since is not known",)
    now = record_of(task, names)
    older = store.case_names()
    changed = [split for split in SPLITS if split in kept and kept[split]["ids"] != now[split]["ids"]]
    if changed:
        told = []
        for split in changed:
            count = int(kept[split]["count"])
            told.append(
                _changed(split, older[split], names[split])
                if split in older
                else f"split {split!r} had {_cases(count)} and has {_cases(len(names[split]))}, not the same"
            )
        _refuse(store, told)
    others = [split for split in SPLITS if split in kept and kept[split]["first_inputs"] != now[split]["first_inputs"]]
    return tuple(
        f"split {split!r} has the cases it had, but inputs of its first case {names[split][0]!r} are others than when the "
        "study was begun: numbers of before and after do not compare"
        for split in others
    )


def _refuse(store: Store, told: Sequence[str]) -> None:
    found = f"the data is not what the study was begun with: {'; '.join(told)}"
    raise SpecError(f"--resume {store.root}", found, _WAYS_OUT)


def _changed(split: str, before: Sequence[str], now: Sequence[str]) -> str:
    came, went = sorted(set(now) - set(before)), sorted(set(before) - set(now))
    if not came and not went:
        return f"split {split!r} has its {_cases(len(now))} in another order"
    return f"split {split!r}: {_cases(len(came))} came{_named(came)}, {_cases(len(went))} went{_named(went)}"


def _named(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f" ({', '.join(names[:_SHOWN])}{more})"


def _cases(count: int) -> str:
    return "1 case" if count == 1 else f"{count} cases"


def _digest(split: Split, names: Sequence[str]) -> str:
    """The order counts where inputs are stored as rows by case; training shuffles anyway."""
    return digest_of({"ids": sorted(names) if split == "train" else list(names)})
