"""From a study's folder to its front and its report: the stored evidence, and pictures where the task's data is at hand."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.errors import DataError, EdgeDeployError
from edgedeploy.evidence.bootstrap import Resampler
from edgedeploy.evidence.front import Front
from edgedeploy.evidence.layers import SIDES, profile_of
from edgedeploy.files import read_arrays
from edgedeploy.interfaces.task import Array, Case, Pictured
from edgedeploy.records.measurement import Measurement
from edgedeploy.report.again import command_again
from edgedeploy.report.page_sections import ReportData, write_markdown, write_report
from edgedeploy.report.pictures import CasePicture, pick_and_reference, pictured_cases, require_picture
from edgedeploy.report.private import private_in, shown
from edgedeploy.report.rivals import rivals_of
from edgedeploy.spec.public import without
from edgedeploy.spec.study import StudySpec
from edgedeploy.study.account import summarise
from edgedeploy.study.front import front_of, stored_spec, summarised, with_failures
from edgedeploy.study.layer_times import kept_times
from edgedeploy.study.left import NotTried, Promotion, kept_left, kept_promotions
from edgedeploy.study.outline import Outline, outline_of
from edgedeploy.study.plans import MadePlans, kept_plans
from edgedeploy.study.store import Store
from edgedeploy.tasks.load import load_task


def make_report(folder: str | Path, to: str | Path | None = None) -> Path:
    """Write the HTML report (``FOLDER/report.html``) and return its path."""
    return write_report(report_data(folder), Path(to) if to is not None else Path(folder) / "report.html")


def make_markdown(folder: str | Path, to: str | Path) -> Path:
    """Write the report as one Markdown page and return its path."""
    return write_markdown(report_data(folder, pictures=False), Path(to))


def report_data(folder: str | Path, *, pictures: bool = True) -> ReportData:
    """What a report of the study in ``folder`` is made from, with ``pictures`` of cases where they are wanted."""
    store = Store(Path(folder))
    study = store.study()
    spec = stored_spec(store)
    light, derived = summarised(store, study, spec)
    front = with_failures(front_of(study, spec, light, derived=derived), store)
    measurements = _with_series(light, front, store)
    resampler = Resampler(front.seed, front.resamples, {digest: item.samples for digest, item in derived.items()})
    account = summarise(store.times())
    wanted = pictured_cases(front, measurements) if pictures else ()
    drawn, notes = _pictures(store, study, spec, front, wanted)
    confirmation, training, trainings = store.confirmations(), store.baseline_training(), store.model_trainings()
    plans, plan_notes = _plans(store)
    plan_notes += _layer_times(store)
    not_tried, promoted, left_notes = _rungs(store)
    text = store.study_text()
    private = private_in(text)
    return ReportData(
        name=spec.study.name,
        front=front,
        measurements=measurements,
        study_text=shown(text),
        command=command_again(store, study, spec, len(front.rows) + len(front.failures)),
        confirmation=confirmation,
        seconds=account.seconds,
        overhead=account.overhead if account.wall_s else None,
        training=training,
        trainings=trainings,
        openings=store.openings(),
        pictures=drawn,
        versions=study["versions"],
        created_utc=study["created_utc"],
        notes=[without(note, private) for note in (*store.left_out(), *plan_notes, *left_notes, *notes)],
        not_tried=not_tried,
        promoted=promoted,
        plans=plans,
        rivals=rivals_of(front, light, resampler),
        outline=_outline(store, front, measurements),
    )


def _with_series(light: Sequence[Measurement], front: Front, store: Store) -> list[Measurement]:
    """The measurements with the raw series of what a report shows in detail: the pick or what comes nearest, the
    baseline, or else the first."""
    shown = {front.reference, front.featured}
    if not any(shown):
        shown = {next((item.digest for item in light if item.valid), None)}
    whole = {digest: store.measurement(digest) for digest in shown if digest}
    return [(whole.get(item.digest) if item.valid else None) or item for item in light]


def _outline(store: Store, front: Front, measurements: Sequence[Measurement]) -> Outline:
    """The shape of the network whose layers are shown."""
    shown = next((item for item in pick_and_reference(front, measurements) if item), None)
    if shown is None or not shown.layers:
        return Outline()
    names = {layer.source for side in SIDES for layer in profile_of(shown, side).layers if layer.source}
    return outline_of(store, shown.variant.model_digest, names)


def _rungs(store: Store) -> tuple[tuple[NotTried, ...], tuple[Promotion, ...], list[str]]:
    """What the last run did not try, and what was trained further; or why either is not shown."""
    left: tuple[NotTried, ...] = ()
    promoted: tuple[Promotion, ...] = ()
    told = []
    try:
        left = kept_left(store)
    except DataError as exc:
        told.append(f"What was not tried is not shown: {exc}")
    try:
        promoted = kept_promotions(store)
    except DataError as exc:
        told.append(f"What was trained further is not shown: {exc}")
    return left, promoted, told


def _plans(store: Store) -> tuple[MadePlans, list[str]]:
    """The plans that were made for budgets; or why they are not shown."""
    try:
        return kept_plans(store.root), []
    except DataError as exc:
        return {}, [f"No precision plans are shown: {exc}"]


def _layer_times(store: Store) -> list[str]:
    """Whose layer times widths by time follow; or why that is not shown."""
    try:
        times = kept_times(store.root)
    except DataError as exc:
        return [f"No layer times are shown: {exc}"]
    return [f"{times.text[0].upper()}{times.text[1:]}."] if times else []


_GONE: Final = (
    "No pictures of the {}'s answers: its outputs are not in the folder. They are kept for baselines, and for variants that "
    "have been on the front since they were measured."
)


def _pictures(
    store: Store, study: Mapping[str, Any], spec: StudySpec, front: Front, wanted: Sequence[str]
) -> tuple[list[CasePicture], list[str]]:
    """The cases ``wanted``, if the task can be loaded where the study was made; else the reason why not."""
    if not wanted or front.featured is None or front.reference is None:
        return [], []
    try:
        task = load_task(spec.task.model_dump(), Path(study["spec_folder"]))
    except Exception as exc:  # whatever the task's own code raises
        return [], [f"No pictures of cases: the task's data is not at hand ({_said(exc)})."]
    if not isinstance(task, Pictured):
        return [], ["No pictures of cases: the task has no `picture`."]
    try:
        answers = {"baseline": _outputs(store, front.reference), "pick": _outputs(store, front.featured)}
        return _drawn(task, wanted, answers), [_GONE.format(role) for role, rows in answers.items() if not rows]
    except Exception as exc:  # whatever the task's own code raises
        return [], [f"No pictures of cases: they could not be drawn ({_said(exc)})."]


def _drawn(task: Any, wanted: Sequence[str], answers: Mapping[str, Mapping[str, Array]]) -> list[CasePicture]:
    """Raises ``DataError`` where the task has other cases than the study had, and whatever the task raises."""
    cases = {case.id: (row, case) for row, case in enumerate(task.cases("selection"))}
    counts = {len(values) for rows in answers.values() for values in rows.values()}
    if not set(wanted) <= set(cases) or not counts <= {len(cases)}:
        raise DataError("the task's cases", "they are not those that the study measured")
    found = []
    for name in wanted:
        row, case = cases[name]
        images = {"truth": task.picture(case, None)}
        images |= {role: _answer(task, case, rows, row) for role, rows in answers.items() if rows}
        for image in images.values():
            require_picture(image)
        found.append(CasePicture(name, images))
    return found


def _said(exc: Exception) -> str:
    return str(exc) if isinstance(exc, EdgeDeployError) else f"{type(exc).__name__}: {exc}"


def _answer(task: Pictured, case: Case, rows: Mapping[str, Array], row: int) -> Any:
    return task.picture(case, {name: values[row].astype(np.float32) for name, values in rows.items()})


def _outputs(store: Store, digest: str) -> dict[str, Array]:
    """Raises ``DataError`` for a file that is torn."""
    path = store.outputs_path(digest, "selection")
    try:
        return read_arrays(path) if path.is_file() else {}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as exc:
        raise DataError(f"stored outputs {path.name}", f"they cannot be read: {exc}") from None
