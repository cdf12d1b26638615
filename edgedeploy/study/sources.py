"""The files of the user's own code that a study's task is made of: numbers of two versions of it do not compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from edgedeploy.errors import SpecError
from edgedeploy.records.measurement import TASK_CHANGED
from edgedeploy.study.store import Store
from edgedeploy.tasks.load import task_sources

__all__ = ["TaskChange", "changed_sources", "task_marks", "task_sources"]


@dataclass(frozen=True)
class TaskChange:
    """What a resumed run finds of the task's files: ``files`` are others than before; or they are those of before again,
    which forgets all changes but the first ``taken_back_to``."""

    files: tuple[str, ...] = ()
    taken_back_to: int | None = None

    def keep(self, store: Store, sources: Mapping[str, str]) -> None:
        """Record it in the study's folder."""
        if self.taken_back_to is not None:
            store.take_back_task_changes(self.taken_back_to)
        elif self.files:
            store.keep_task_change(sources, self.files)


def changed_sources(store: Store, sources: Mapping[str, str], *, allowed: bool) -> tuple[TaskChange, tuple[str, ...]]:
    """How the files differ from those which the study in the folder was measured with, and what is worth knowing of it.
    ``sources`` is what :func:`task_sources` gives now; nothing is compared in a folder that holds no study yet. Files of
    before a change that nothing was made with are no change.

    Raises ``SpecError`` for a change that is not ``allowed``.
    """
    if not store.exists():
        return TaskChange(), ()
    study = store.study()
    kept = study.get("task_sources")
    if kept is None:
        note = "this folder was begun before the task's files were recorded: whether they changed since is not known"
        return TaskChange(), (note,) if sources else ()
    changed = tuple(sorted(name for name in {*kept, *sources} if kept.get(name) != sources.get(name)))
    if not changed:
        return TaskChange(), ()
    changes = study.get("task_changes") or ()
    back = next((n for n, change in enumerate(changes) if change.get("before") == dict(sources)), None)
    made = "" if back is None else _made_since(store, changes[back:])
    if back is not None and not made:
        utc = changes[back]["utc"]
        return TaskChange(taken_back_to=back), (
            f"the task's code is that of before {utc} again: nothing was made since",
        )
    listed = ", ".join(f"{name} {_what(kept, sources, name)}" for name in changed)
    tried = _is_tried(store)
    if not allowed:
        again = "" if back is None else f". It is that of before {changes[back]['utc']} again, but {made} since then"
        begun = "measured with" if tried else "begun with"
        old = "the old" if back is None else "the changed"
        raise SpecError(
            f"--resume {store.root}",
            f"the task's code is not what the study was {begun}: {listed}{again}{'' if tried else _nothing_yet(store)}",
            f"Choose another --out; or put {old} files back; or add --task-changed: {_what_stays(store, tried)}",
        )
    versions = "two versions of it stand on one front now" if tried else "nothing was measured with the old one"
    return TaskChange(changed), (f"the task's code changed ({listed}): {versions}",)


def _is_tried(store: Store) -> bool:
    """Whether a variant has an outcome."""
    return bool(store.measurements() or store.confirmations() or store.invalid() or store.failures())


def _nothing_yet(store: Store) -> str:
    return "; nothing is measured in it yet" + ("" if store.latest_made() else ", and nothing trained or built")


def _what_stays(store: Store, tried: bool) -> str:
    """What ``--task-changed`` does with what the folder has."""
    if tried:
        return "what is measured, trained and stored stays, and the report says that two versions stand on one front"
    if store.latest_made():
        return "what is trained and stored with the old code stays, and what is measured says that the code changed"
    return "there is nothing of the old code to be mixed with"


def task_marks(study: Mapping[str, Any]) -> tuple[str, ...]:
    """The note that measurements keep from now on; ``study`` is the content of a ``study.json``."""
    changes = study.get("task_changes") or ()
    if not changes:
        return ()
    return (_mark(changes[-1]),)


def _mark(change: Mapping[str, Any]) -> str:
    return f"{TASK_CHANGED} at {change['utc']} ({', '.join(change['files'])})"


def _made_since(store: Store, changes: Sequence[Mapping[str, Any]]) -> str:
    """What was made with the task's files after the first of ``changes``; empty for nothing. Measurements keep the change
    that they were made after; everything else its time."""
    marks = {_mark(change) for change in changes}
    found = (*store.measurements(), *store.confirmations(), *store.invalid())
    measured = sum(not marks.isdisjoint(item.notes) for item in found)
    if measured:
        return f"{measured} measurement{'s were' if measured > 1 else ' was'} made"
    began = datetime.fromisoformat(changes[0]["utc"])
    failed = [item for item in store.failures() if datetime.fromisoformat(item.created_utc) > began]
    if failed:
        return f"{failed[-1].variant.label} failed"
    return "models or artifacts were made" if store.latest_made() > began.timestamp() + 1 else ""


def _what(kept: Mapping[str, str], sources: Mapping[str, str], name: str) -> str:
    if name not in sources:
        return "is gone"
    return "changed" if name in kept else "is new"
