"""Another board's study that a new one starts from: held against the new one before anything is taken over from it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedeploy.errors import DataError, SpecError
from edgedeploy.interfaces.ability import sums_int8_exactly
from edgedeploy.interfaces.task import ReadyMade, Task
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.layer_times import LayerTimes
from edgedeploy.records.measurement import Measurement
from edgedeploy.spec.source import SpecSource
from edgedeploy.spec.study import StudySpec
from edgedeploy.study.front import stored_spec
from edgedeploy.study.kept_cases import names_of, record_of
from edgedeploy.study.layer_times import kept_times
from edgedeploy.study.store import Store
from edgedeploy.tasks.places import place_of

KEY = "search.warm_start"
_ELSEWHERE = "Name the folder of a study of this task, or remove warm_start"


@dataclass(frozen=True)
class Origin:
    """A finished or unfinished study of the same task. ``study`` is the content of its ``study.json``."""

    store: Store
    study: Mapping[str, Any]
    measurements: tuple[Measurement, ...]

    @property
    def name(self) -> str:
        return f"{self.study.get('name', self.store.root.name)} on {self.study.get('board', 'its board')}"

    @property
    def layer_times(self) -> LayerTimes | None:
        """None where it has none, or its file is damaged."""
        try:
            return kept_times(self.store.root)
        except DataError:
            return None

    def sums_as(self, board: BoardInfo) -> bool:
        """Whether its boards add int8 products as ``board`` does: models trained to be int8, and weights of 7 bits, are
        made for one way of it."""
        exactly = sums_int8_exactly(board.arch, board.isa)
        return all(sums_int8_exactly(item.board.arch, item.board.isa) == exactly for item in self.measurements)


def find_origin(
    spec: StudySpec, source: SpecSource, task: Task, sources: Mapping[str, str], named: str, out: Path
) -> Origin:
    """The study in the folder ``named``, which is relative to the study file. ``sources`` are the files of the task's code
    (:func:`edgedeploy.tasks.load.task_sources`), ``out`` the new study's folder. Writes nothing.

    Raises ``SpecError`` when the folder holds no study, or one of another task, other code or other data.
    """
    folder = place_of(source.path.resolve().parent, named)
    if _same(folder, out):
        raise source.error(KEY, "it is this study's own folder", "Name another study's, or search with --resume")
    store = Store(folder)
    try:
        study, theirs = store.study(), stored_spec(store)
    except (SpecError, DataError) as exc:
        there = os.path.lexists(store.study_path)  # else it is the folder, which is named already
        file = f"{exc.asked.rpartition('/')[2]}: " if there else ""
        raise source.error(KEY, f"{named!r} cannot be started from: {file}{exc.found}", _ELSEWHERE) from exc
    measurements = store.measurements()
    for found in (
        _other_task(spec, theirs, study, task),
        _other_code(study, sources),
        _other_data(study, task),
        "" if measurements else "nothing is measured in it yet",
    ):
        if found:
            raise source.error(KEY, f"{named!r} cannot be started from: {found}", _ELSEWHERE)
    if spec.study.seed != theirs.study.seed:
        remedy = f"Write seed = {theirs.study.seed} in [study]: then its models are this study's too"
        raise source.error(KEY, f"the seed of {named!r} is {theirs.study.seed}, here it is {spec.study.seed}", remedy)
    return Origin(store, study, measurements)


def _same(folder: Path, out: Path) -> bool:
    """A loop of links is nobody's folder."""
    try:
        return folder.resolve() == out.resolve()
    except (OSError, RuntimeError):
        return False


def _other_task(spec: StudySpec, theirs: StudySpec, study: Mapping[str, Any], task: Task) -> str:
    ours, other = spec.task, theirs.task
    if ours.kind != other.kind or _factory(ours.object) != _factory(other.object):
        return f"its task is another one ({other.object or other.kind}, not {ours.object or ours.kind})"
    names = sorted({*ours.options, *other.options})
    changed = [name for name in names if ours.options.get(name) != other.options.get(name)]
    if changed:
        return f"its task has other options: {', '.join(changed)}"
    if isinstance(task, ReadyMade) and Path(str(ours.model)).name != Path(str(other.model)).name:
        return f"its model is another one ({other.model})"
    kept = set(study.get("task_metrics") or ())
    return "" if kept == set(task.metrics) else "its task has other metrics"


def _factory(named: str | None) -> str:
    """Two study files may name one task's file by two paths."""
    return (named or "").rpartition(":")[2]


def _other_code(study: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    if study.get("task_changes"):
        return "its task's code changed while it ran"
    theirs = {Path(name).name: sha256 for name, sha256 in (study.get("task_sources") or {}).items()}
    ours = {Path(name).name: sha256 for name, sha256 in sources.items()}
    changed = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    return f"its task's code is another one: {', '.join(changed)} differs" if changed else ""


def _other_data(study: Mapping[str, Any], task: Task) -> str:
    kept, now = study.get("cases"), record_of(task, names_of(task))
    if kept is None:
        return "it was begun before a study recorded its cases"
    changed = [split for split in now if split in kept and kept[split] != now[split]]
    return f"its data is other than this study's: split {', '.join(changed)}" if changed else ""
