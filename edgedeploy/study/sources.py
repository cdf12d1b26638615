"""The files of the user's own code that a study's task is made of: numbers of two versions of it do not compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgedeploy.errors import SpecError
from edgedeploy.records.measurement import TASK_CHANGED
from edgedeploy.study.store import Store
from edgedeploy.tasks.load import task_sources

__all__ = ["changed_sources", "task_marks", "task_sources"]


def changed_sources(
    store: Store, sources: Mapping[str, str], *, allowed: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The files that are others than those which the study in the folder was measured with, and what is worth knowing of it.
    ``sources`` is what :func:`task_sources` gives now; nothing is compared in a folder that holds no study yet.

    Raises ``SpecError`` for a change that is not ``allowed``.
    """
    if not store.exists():
        return (), ()
    kept = store.study().get("task_sources")
    if kept is None:
        note = "this folder was begun before the task's files were recorded: whether they changed since is not known"
        return (), (note,) if sources else ()
    changed = tuple(sorted(name for name in {*kept, *sources} if kept.get(name) != sources.get(name)))
    if not changed:
        return (), ()
    listed = ", ".join(f"{name} {_what(kept, sources, name)}" for name in changed)
    if not allowed:
        raise SpecError(
            f"--resume {store.root}",
            f"the task's code is not what the study was measured with: {listed}",
            "Choose another --out; or put the old files back; or add --task-changed: what is measured, trained and stored "
            "stays, and the report says that two versions stand on one front",
        )
    return changed, (f"the task's code changed ({listed}): two versions of it stand on one front now",)


def task_marks(study: Mapping[str, Any]) -> tuple[str, ...]:
    """The note that measurements keep from now on; ``study`` is the content of a ``study.json``."""
    changes = study.get("task_changes") or ()
    if not changes:
        return ()
    last = changes[-1]
    return (f"{TASK_CHANGED} at {last['utc']} ({', '.join(last['files'])})",)


def _what(kept: Mapping[str, str], sources: Mapping[str, str], name: str) -> str:
    if name not in sources:
        return "is gone"
    return "changed" if name in kept else "is new"
