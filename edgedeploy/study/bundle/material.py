"""All that a bundle is made of, read back from a study's folder, each part held against the others."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import BundleError, SpecError
from edgedeploy.evidence.front import Front
from edgedeploy.interfaces.task import Task
from edgedeploy.records.artifact import Artifact
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.variant import Scalar
from edgedeploy.reference.export import Reference
from edgedeploy.runtime.pipeline.steps import Steps
from edgedeploy.runtime.sessions.sources import BUILTIN
from edgedeploy.spec.public import SHORTEST_SECRET, private_words, without
from edgedeploy.spec.study import StudySpec
from edgedeploy.study.bundle.choice import Choice, chosen
from edgedeploy.study.front import read_front, stored_spec
from edgedeploy.study.models import RECORD
from edgedeploy.study.oneshot.export import stored_artifact
from edgedeploy.study.oneshot.folder import artifact_of
from edgedeploy.study.reading import read_record
from edgedeploy.study.steps import steps_of
from edgedeploy.study.store import Store
from edgedeploy.tasks.load import load_task, task_sources

NO_STEPS: Final = "the task declares no pipeline: a product gives tensors and takes tensors"


@dataclass(frozen=True)
class Material:
    """``reference`` is the ONNX model that the artifact was built from, ``sums`` the hashes of the files beside it, by name.
    ``steps`` are empty where the task declares none. ``private`` are the words of the study file that may not get out,
    ``cases`` the ids of cases, which may name patients."""

    store: Store
    study: Mapping[str, Any]
    spec: StudySpec
    front: Front
    choice: Choice
    artifact: Artifact
    artifact_folder: Path
    reference: Reference
    sums: Mapping[str, str]
    task: Task
    steps: Steps
    private: tuple[str, ...]
    cases: tuple[str, ...]

    @property
    def measurement(self) -> Measurement:
        return self.choice.measurement

    @property
    def arch(self) -> dict[str, Scalar]:
        return self.measurement.variant.arch_kwargs


def gather(folder: str | Path, pick: str) -> Material:
    """What becomes the bundle of the variant ``pick`` of a study.

    Raises ``SpecError`` for a folder without a study and a digest that is not one variant's, ``GoalNotMet`` where there is
    no pick, ``DataError`` when the artifact is gone, ``BundleError`` for a target that no product's runtime has, and what
    loading the task raises: its steps and its cases are needed.
    """
    store = Store(Path(folder))
    study, spec = store.study(), stored_spec(store)
    front = read_front(store.root)
    choice = chosen(store, front, pick)
    target = choice.measurement.variant.target
    if target not in BUILTIN:
        found = f"it is for target {target!r}, whose session comes from another package"
        raise BundleError("a bundle of that variant", found, f"Choose one for {', '.join(sorted(BUILTIN))}")
    place = stored_artifact(store, choice.measurement)
    artifact, reference_path = artifact_of(place)
    reference, sums = _reference(reference_path)
    base = Path(study["spec_folder"])
    table = spec.task.model_dump()
    task = load_task(table, base)
    _require_same_code(study, task_sources(table, base))
    steps = steps_of(task, choice.measurement.variant.arch_kwargs, reference)
    private = private_words(tomllib.loads(store.study_text()))
    cases = _case_names(store, choice.measurement)
    choice = replace(choice, text=without(choice.text, (*private, *cases)))
    return Material(store, study, spec, front, choice, artifact, place, reference, sums, task, steps, private, cases)


def float_baseline(material: Material) -> tuple[Measurement, Path, Reference]:
    """The study's float baseline: its measurement, the folder of its artifact, and the model that it was built from. Raises
    ``SpecError`` where it has no valid measurement, ``DataError`` when the artifact is gone."""
    store, digest = material.store, material.front.reference
    found = None if digest is None else store.measurement(digest)
    if found is None:
        asked, remedy = f"the float baseline of {store.root}", "Run its search with --resume"
        raise SpecError(asked, "it has no valid measurement", remedy)
    place = stored_artifact(store, found)
    return found, place, _reference(artifact_of(place)[1])[0]


def _case_names(store: Store, measured: Measurement) -> tuple[str, ...]:
    """The ids of all cases, and those without their split, longest first."""
    ids = {*measured.cases, *(name for names in store.case_names().values() for name in names)}
    parts = {part for name in ids for part in (name, name.partition("/")[2]) if len(part) >= SHORTEST_SECRET}
    return tuple(sorted(parts, key=lambda part: (-len(part), part)))


def _reference(path: Path) -> tuple[Reference, dict[str, str]]:
    def read(data: dict[str, Any]) -> tuple[Reference, dict[str, str]]:
        return Reference.from_json(data, path.parent), dict(data.get("sha256_of", {}))

    return read_record(path.with_name(RECORD), read, "Run the search again with --resume: the model is made anew")


def _require_same_code(study: Mapping[str, Any], now: Mapping[str, str]) -> None:
    kept = study.get("task_sources")
    changed = sorted(name for name in {*(kept or {}), *now} if kept is not None and kept.get(name) != now.get(name))
    if changed:
        found = f"{', '.join(Path(name).name for name in changed)} changed since"
        raise SpecError("the task that the study was measured with", found, "Put the files back, or measure again")
