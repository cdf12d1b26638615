"""A study's folder: the evidence, and everything that can be looked up instead of made again.

    study.toml           the study file as it was given       study.json       what it was resolved to
    measurements/*.json  one per variant, valid ones          invalid/*.json   runs whose conditions drifted
    failures/*.json      variants that cannot give a number   confirmation/    final split, with its log of openings
    models/DIGEST/       ONNX reference of a float model,     artifacts/NAME/  what a target built from it, with its
                         its outputs on golden cases                           manifest
                         (or cuts of an elastic network)
    models/DIGEST.start.json   the wider model that its training starts from
    baseline/            the trained baseline's weights       inputs/*.npz     model-ready inputs of a split
    training/*.pt        checkpoints of unfinished trainings  optuna.sqlite3   the optimiser's history of proposals
    account.jsonl        where the time went                  events.jsonl     what happened when
    cases.json           the ids of each split's cases    set-aside/       files that were found here and are no evidence
    plans.json           precision plans made for budgets

Every file appears whole or not at all. One process at a time owns the folder (:meth:`Store.own`). No link in it is followed
for writing. What is damaged or does not belong here is left out by readers and set aside by the owner, with a line each
(:mod:`edgedeploy.study.evidence_files`); ``study.json`` and ``study.toml`` alone stop whoever needs them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from edgedeploy.errors import DataError, SpecError
from edgedeploy.files import append_line, remove_partials, write_atomic, write_json
from edgedeploy.records.measurement import Failure, Measurement
from edgedeploy.records.variant import Variant
from edgedeploy.spec.public import without
from edgedeploy.study.evidence_files import (
    CONFIRMATION,
    FAILURES,
    INVALID,
    MEASUREMENTS,
    SET_ASIDE,
    STUDY_KEY,
    EvidenceFolder,
    Stray,
    T,
)
from edgedeploy.study.forms import (
    PHASES,
    STUDY_REMEDY,
    Resolved,
    checked_names,
    checked_opening,
    checked_study,
    checked_time,
    checked_training,
)
from edgedeploy.study.layout import ACCOUNT, MADE, OPENINGS, check_kinds, links_among_made
from edgedeploy.study.migrations import Kind, latest, upgraded
from edgedeploy.study.place import check_place, held
from edgedeploy.study.reading import drop_lines, drop_torn_end, read_good_lines, read_record, read_text
from edgedeploy.study.strays import Strays

__all__ = ["PHASES", "Store", "utc_now"]

Record = TypeVar("Record")

STUDY_FILE_REMEDY: Final = "Put the study file that the folder was made with back there"
UNREADABLE_OPENING: Final = {"utc": "", "reason": "a line of the log that cannot be read any more", "variants": []}
"""Stands for an opening of the confirmation split whose line is damaged: left out, the split would look less used."""


def utc_now() -> str:
    """Wall-clock time for people; durations never come from it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Store:
    """The folder of one study. Constructing it touches nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.private: Sequence[str] = ()
        """Words of the study file that are left out of every sentence that is kept."""
        self._strays = Strays(root)
        self._whole: set[tuple[object, ...]] = set()
        self._id: tuple[tuple[object, ...], str] = ((), "")

    # -- the study itself

    @property
    def study_path(self) -> Path:
        return self.root / "study.json"

    def check_place(self) -> None:
        """Raises ``SpecError`` for a path that cannot become a folder, and on a file system whose locks cannot be relied on:
        SQLite loses data there."""
        check_place(self.root)

    def keep_task_change(self, sources: Mapping[str, str], changed: Sequence[str]) -> None:
        """Record that the task's files are others from now on. ``sources`` is as in :meth:`create`'s ``task_sources``."""
        kept = dict(self.study())
        change = {"utc": utc_now(), "files": list(changed), "before": dict(kept.get("task_sources") or {})}
        changes = [*kept.get("task_changes", ()), change]
        write_json(self.study_path, {**kept, "task_sources": dict(sources), "task_changes": changes})

    def keep_board(self, name: str, identity: str) -> None:
        """Record which machine a board is that joined after the study began."""
        kept = dict(self.study())
        write_json(self.study_path, {**kept, "boards": {**kept.get("boards", {}), name: identity}})

    def take_back_task_changes(self, count: int) -> None:
        """Forget all changes of the task's files but the first ``count``: nothing was made with the others."""
        kept = dict(self.study())
        changes = list(kept["task_changes"])
        back = {"task_sources": changes[count]["before"], "task_changes": changes[:count]}
        write_json(self.study_path, {**kept, **back})

    def latest_made(self) -> float:
        """When a model, an artifact, a training or a set of inputs was made last, in seconds since the epoch; 0 for none."""
        made = [path for name in MADE for path in (self.root / name).rglob("*") if path.is_file()]
        return max((path.stat().st_mtime for path in made), default=0.0)

    def keep_limit_change(self, change: Mapping[str, Any]) -> None:
        """Record limits of ``[measure]`` that count from now on, by their keys: ``limits`` that are others than the
        ``first`` ones."""
        kept = dict(self.study())
        changes = [*kept.get("limit_changes", ()), {"utc": utc_now(), **change}]
        write_json(self.study_path, {**kept, "limit_changes": changes})

    def exists(self) -> bool:
        return self.study_path.is_file()

    def create(self, study_text: str, resolved: Mapping[str, Any]) -> None:
        write_atomic(self.root / "study.toml", study_text.encode())
        write_json(self.study_path, {"schema": latest("study"), "created_utc": utc_now(), **resolved})

    def keep_study_text(self, study_text: str) -> None:
        """Put back the study file as it was given, where the folder's own is gone or no text."""
        write_atomic(self.root / "study.toml", study_text.encode())

    def keep_case_names(self, names: Mapping[str, Sequence[str]]) -> None:
        """Store the ids of each split's cases; their digests are in :meth:`study`."""
        write_json(self.root / "cases.json", {split: list(ids) for split, ids in names.items()})

    def case_names(self) -> dict[str, list[str]]:
        """What :meth:`keep_case_names` stored; empty for folders of before."""
        return self._read_plain(self.root / "cases.json", checked_names) or {}

    def study(self) -> dict[str, Any]:
        """What :meth:`create` wrote. Raises ``SpecError`` when the folder holds no study, ``DataError`` when the file is
        damaged, or lacks a key that is looked up."""
        if not os.path.lexists(self.study_path):
            raise SpecError(
                f"study folder {self.root}", "it holds no study", "`edgedeploy search STUDY.toml --out DIR` makes one"
            )
        state = _state(self.study_path)
        data = read_record(self.study_path, _of_today, STUDY_REMEDY)
        self._id = state, str(data.get("id", ""))
        return Resolved(data, self.study_path)

    def study_text(self) -> str:
        """The study file. Raises ``DataError`` when it is gone or no text."""
        return read_text(self.root / "study.toml", STUDY_FILE_REMEDY)

    @contextmanager
    def own(self) -> Iterator[None]:
        """Hold the folder for writing; a second search on it is an error, a killed one frees it. What a kill left is
        removed, and what is no evidence set aside (:meth:`left_out` names it).

        Raises ``SpecError`` for a folder that is held or that a link leads out of, ``StorageError`` for a full disk.
        """
        with held(self.root):
            check_kinds(self.root)
            remove_partials(self.root)
            self._strays.moved = True
            try:
                self._set_all_aside()
                yield
            finally:
                self._strays.moved = False

    # -- what is no evidence

    def left_out(self) -> tuple[str, ...]:
        """What was found in the folder so far and is left out, a line each: damaged files, copies, files of others."""
        return self._strays.told()

    def _set_all_aside(self) -> None:
        for folder in (MEASUREMENTS, INVALID, CONFIRMATION):
            self._check_folder(folder)
        self._check_folder(FAILURES)
        for path, check in self._plain_files():
            self._read_plain(path, check)
        for path in links_among_made(self.root):
            self._strays.leave_out(Stray(path, "it is a link, which is not followed"))
        drop_torn_end(self.root / OPENINGS)
        moved = drop_lines(self.root / ACCOUNT, checked_time, self.root / SET_ASIDE / ACCOUNT)
        if moved:
            self._strays.leave_out_lines(ACCOUNT, moved)

    def _check_folder(self, folder: EvidenceFolder[T]) -> None:
        for path in folder.entries(self.root):
            if _state(path) not in self._whole:
                self._read_file(folder, path)

    def _plain_files(self) -> Iterator[tuple[Path, Callable[[dict[str, Any]], Any]]]:
        yield self.root / "cases.json", checked_names
        yield self.root / "baseline" / "training.json", checked_training
        for path in (self.root / "models").glob("*/training.json"):
            yield path, checked_training

    # -- evidence

    def _study_id(self) -> str:
        if self._id[0] != _state(self.study_path):
            try:
                self.study()
            except (DataError, SpecError):
                return ""
        return self._id[1]

    def _read_file(self, folder: EvidenceFolder[T], path: Path, study: str | None = None) -> T | None:
        state = _state(path)
        found = folder.read(path, self._study_id() if study is None else study)
        if isinstance(found, Stray):
            self._strays.leave_out(found)
            return None
        self._whole.add(state)
        return found

    def _read_all(self, folder: EvidenceFolder[T]) -> tuple[T, ...]:
        """The records of a folder, without what is none (:meth:`left_out`)."""
        study = self._study_id()
        found = (self._read_file(folder, path, study) for path in folder.entries(self.root))
        return tuple(item for item in found if item is not None)

    def _read_one(self, folder: EvidenceFolder[T], digest: str) -> T | None:
        path = folder.path(self.root, digest)
        return self._read_file(folder, path) if os.path.lexists(path) else None

    def _read_plain(self, path: Path, check: Callable[[dict[str, Any]], Record]) -> Record | None:
        """A file of facts that nothing depends on; None when there is none, or it is left out."""
        if not os.path.lexists(path):
            return None
        try:
            return read_record(path, check, "")
        except DataError as exc:
            self._strays.leave_out(Stray(path, exc.found))
            return None

    def measurements(self) -> tuple[Measurement, ...]:
        return self._read_all(MEASUREMENTS)

    def measurement(self, digest: str) -> Measurement | None:
        return self._read_one(MEASUREMENTS, digest)

    def invalid(self) -> tuple[Measurement, ...]:
        return self._read_all(INVALID)

    def failures(self) -> tuple[Failure, ...]:
        return self._read_all(FAILURES)

    def failure(self, digest: str) -> Failure | None:
        return self._read_one(FAILURES, digest)

    def variants(self) -> list[Variant]:
        """Every variant that has an outcome, in the order they were evaluated."""
        outcomes: list[Measurement | Failure] = [*self.measurements(), *self.failures()]
        found = [(item.created_utc, item.variant.digest, item.variant) for item in outcomes]
        return [variant for _, _, variant in sorted(found, key=lambda entry: entry[:2])]

    def confirmations(self) -> tuple[Measurement, ...]:
        return self._read_all(CONFIRMATION)

    def keep(self, measurement: Measurement) -> None:
        """Store a measurement as valid, invalid (each attempt in its own file), or confirmation."""
        if measurement.split == "confirmation":
            path = CONFIRMATION.path(self.root, measurement.digest)
        elif measurement.valid:
            path = MEASUREMENTS.path(self.root, measurement.digest)
        else:
            attempts = len(list((self.root / INVALID.name).glob(f"{measurement.digest}-*.json")))
            path = INVALID.path(self.root, f"{measurement.digest}-{attempts + 1}")
        notes = [without(note, self.private) for note in measurement.notes]
        cause = without(measurement.cause, self.private) if measurement.cause else None
        self._keep_record("measurement", path, {**measurement.as_json(), "notes": notes, "cause": cause})

    def keep_failure(self, failure: Failure) -> None:
        told = without(failure.message, self.private)
        self._keep_record(
            "failure", FAILURES.path(self.root, failure.variant.digest), {**failure.as_json(), "message": told}
        )

    def _keep_record(self, kind: Kind, path: Path, data: Mapping[str, Any]) -> None:
        """With the id of the study, so that a file that gets into another study's folder is known there."""
        study = self._study_id()
        write_json(path, {**data, "schema": latest(kind), **({STUDY_KEY: study} if study else {})})

    def log_opening(self, reason: str, variants: tuple[str, ...], order: Sequence[str] = (), sha256: str = "") -> None:
        """Record that the confirmation split is about to be used: for which ``variants``, and which ``order`` of candidates
        was fixed before. Using it often would make it part of the search."""
        fixed = {"order": list(order), "order_sha256": sha256} if order else {}
        self._append(OPENINGS, {"utc": utc_now(), "reason": reason, "variants": list(variants), **fixed})

    def openings(self) -> list[dict[str, Any]]:
        found = read_good_lines(self.root / OPENINGS, checked_opening)
        return [UNREADABLE_OPENING if item is None else item for item in found]

    # -- the time account

    def add_time(self, run: str, phase: str, duration_ns: int, at_ns: int) -> None:
        self._append(ACCOUNT, {"run": run, "phase": phase, "ns": duration_ns, "at_ns": at_ns})

    def times(self) -> list[dict[str, Any]]:
        found = read_good_lines(self.root / ACCOUNT, checked_time)
        lost = sum(item is None for item in found)
        if lost:
            self._strays.leave_out_lines(ACCOUNT, lost)
        return [item for item in found if item is not None]

    def _append(self, name: str, value: Mapping[str, Any]) -> None:
        append_line(self.root / name, json.dumps(value, sort_keys=True).encode())

    # -- places for what can be made again

    def model_folder(self, model_digest: str) -> Path:
        return self.root / "models" / model_digest

    def artifact_folder(self, name: str) -> Path:
        return self.root / "artifacts" / name

    def weight_bits_path(self, artifact_name: str) -> Path:
        """Which of an artifact's two builds, with 7-bit or 8-bit weights, a board chose."""
        return self.root / "artifacts" / f"{artifact_name}.weight-bits.json"

    def inputs_path(self, name: str) -> Path:
        return self.root / "inputs" / f"{name}.npz"

    def outputs_path(self, digest: str, split: str) -> Path:
        return self.root / "outputs" / f"{digest}-{split}.npz"

    @property
    def baseline_weights(self) -> Path:
        return self.root / "baseline" / "weights.pt"

    def keep_baseline_training(self, facts: Mapping[str, Any]) -> None:
        """Store how the baseline was trained: ``wall_s`` and ``cpu_s`` over all its runs, the ``precision``, and the
        ``host``'s processor."""
        write_json(self.root / "baseline" / "training.json", dict(facts))

    def baseline_training(self) -> dict[str, Any]:
        return self._read_plain(self.root / "baseline" / "training.json", checked_training) or {}

    def model_trainings(self) -> list[dict[str, Any]]:
        """The same facts of each stored model that was trained by recovery or quantization-aware training."""
        paths = sorted((self.root / "models").glob("*/training.json"))
        found = (self._read_plain(path, checked_training) for path in paths)
        return [item for item in found if item is not None]

    def checkpoint(self, name: str) -> Path:
        """The checkpoint of the unfinished training of the baseline, or of the model with that digest."""
        return self.root / "training" / f"{name}.pt"

    @property
    def optimiser_path(self) -> Path:
        return self.root / "optuna.sqlite3"


def _state(path: Path) -> tuple[object, ...]:
    """What changes when a file does."""
    try:
        found = path.lstat()
    except OSError:
        return (path,)
    return path, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _of_today(data: dict[str, Any]) -> dict[str, Any]:
    """The content of a ``study.json`` of this or an older version."""
    return checked_study(upgraded("study", data))
