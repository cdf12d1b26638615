"""A study's folder: the evidence, and everything that can be looked up instead of made again.

    study.toml           the study file as it was given       study.json       what it was resolved to
    measurements/*.json  one per variant, valid ones          invalid/*.json   runs whose conditions drifted
    failures/*.json      variants that cannot give a number   confirmation/    final split, with its log of openings
    models/DIGEST/       ONNX reference of a float model,     artifacts/NAME/  what a target built from it, with its
                         its outputs on golden cases                           manifest
    baseline/            the trained baseline's weights       inputs/*.npz     model-ready inputs of a split
    training/*.pt        checkpoints of unfinished trainings  optuna.sqlite3   the optimiser's history of proposals
    account.jsonl        where the time went                  events.jsonl     what happened when
    cases.json           the ids of each split's cases

Every file appears whole or not at all. One process at a time owns the folder (:meth:`Store.own`).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from edgedeploy.errors import DataError, SpecError
from edgedeploy.files import remove_partials, write_atomic, write_json
from edgedeploy.records.measurement import SCHEMA_VERSION, Failure, Measurement
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Variant
from edgedeploy.runtime.wire.serde import from_json
from edgedeploy.study.measured import measurement_of
from edgedeploy.study.mounts import network_file_system
from edgedeploy.study.reading import drop_torn_end, read_lines, read_record, read_text

T = TypeVar("T")

PHASES: Final = ("train", "build", "upload", "measure", "evaluate", "search", "bookkeeping", "idle")
"""Phases of the time account."""

MADE: Final = ("models", "artifacts", "baseline", "training", "inputs", "outputs")
"""Folders of what is made with the task's code and can be made again."""

ACCOUNT: Final = "account.jsonl"
OPENINGS: Final = "confirmation/openings.jsonl"

REMEDIES: Final = {
    "measurements": "Move it away and run search --resume: the variant is measured again",
    "failures": "Move it away and run search --resume: the variant is tried again",
    "confirmation": "Move it away and run search --resume: the variant is confirmed again",
    "invalid": "Move it away: a run whose conditions drifted counts for nothing",
    "training": "Move it away: only the report's section on training shows it",
    "study.json": "Put a copy of it back, or begin the study again in another --out",
    "cases.json": "Move it away: it only says which cases came and went",
    "study.toml": "Put the study file that the folder was made with back there",
}
"""What to do about a damaged file, by its folder or name."""


def utc_now() -> str:
    """Wall-clock time for people; durations never come from it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Store:
    """The folder of one study. Constructing it touches nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root

    # -- the study itself

    @property
    def study_path(self) -> Path:
        return self.root / "study.json"

    def check_place(self) -> None:
        """Raises ``SpecError`` for a path that cannot become a folder, and on a file system whose locks cannot be relied on:
        SQLite loses data there."""
        asked, remedy = f"study folder {self.root}", "Choose another --out"
        try:
            self.root.stat()
        except FileNotFoundError:
            pass  # it will be made
        except OSError as exc:  # a file in the way, a loop of links, a name that is too long
            raise SpecError(asked, exc.strerror or str(exc), remedy) from None
        base = next(path for path in (self.root, *self.root.absolute().parents) if path.exists())
        if not os.access(base, os.W_OK):
            raise SpecError(asked, f"{base} cannot be written to", remedy)
        found = network_file_system(self.root)
        if found is not None:
            raise SpecError(
                f"study folder {self.root}",
                f"it is on a network file system ({found}), where SQLite's locks cannot be relied on",
                "Choose an --out on a disk of this machine",
            )

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
        write_json(self.study_path, {"schema": SCHEMA_VERSION, "created_utc": utc_now(), **resolved})

    def keep_case_names(self, names: Mapping[str, Sequence[str]]) -> None:
        """Store the ids of each split's cases; their digests are in :meth:`study`."""
        write_json(self.root / "cases.json", {split: list(ids) for split, ids in names.items()})

    def case_names(self) -> dict[str, list[str]]:
        """What :meth:`keep_case_names` stored; empty for folders of before."""
        path = self.root / "cases.json"
        return read_record(path, _checked_names, REMEDIES["cases.json"]) if path.exists() else {}

    def study(self) -> dict[str, Any]:
        """What :meth:`create` wrote. Raises ``SpecError`` when the folder holds no study, ``DataError`` when the file is
        damaged, or lacks a key that is looked up."""
        if not self.study_path.exists():
            raise SpecError(
                f"study folder {self.root}", "it holds no study", "`edgedeploy search STUDY.toml --out DIR` makes one"
            )
        data = read_record(self.study_path, _checked_study, REMEDIES["study.json"])
        if data.get("schema") != SCHEMA_VERSION:
            raise SpecError(
                f"study folder {self.root}", "its study.json is of another version", "Use that version to read it"
            )
        return _Resolved(data, self.study_path)

    def study_text(self) -> str:
        """The study file. Raises ``DataError`` when it is gone or no text."""
        return read_text(self.root / "study.toml", REMEDIES["study.toml"])

    @contextmanager
    def own(self) -> Iterator[None]:
        """Hold the folder for writing; a second search on it is an error, a killed one frees it."""
        with self._lock_file() as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise SpecError(
                    f"study folder {self.root}",
                    "another process is writing to it",
                    "Wait for it, or choose another --out",
                ) from None
            remove_partials(self.root)
            for name in (ACCOUNT, OPENINGS):
                drop_torn_end(self.root / name)
            yield

    def _lock_file(self) -> IO[str]:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            return (self.root / ".lock").open("w")
        except OSError as exc:
            if exc.errno == errno.ENOSPC:
                raise  # told with what to do, whichever file it is
            asked, found = f"study folder {self.root}", f"nothing can be written there ({exc.strerror or exc})"
            raise SpecError(asked, found, "Choose another --out") from None

    # -- evidence

    def _read_all(self, folder: str, make: Callable[[dict[str, Any]], T]) -> tuple[T, ...]:
        """The records of a folder. Raises ``DataError`` for the first file that is damaged."""
        paths = sorted((self.root / folder).glob("*.json"))
        return tuple(read_record(path, make, REMEDIES[folder]) for path in paths)

    def _read_one(self, folder: str, digest: str, make: Callable[[dict[str, Any]], T]) -> T | None:
        path = self.root / folder / f"{digest}.json"
        return read_record(path, make, REMEDIES[folder]) if path.exists() else None

    def measurements(self) -> tuple[Measurement, ...]:
        return self._read_all("measurements", measurement_of)

    def measurement(self, digest: str) -> Measurement | None:
        return self._read_one("measurements", digest, measurement_of)

    def invalid(self) -> tuple[Measurement, ...]:
        return self._read_all("invalid", measurement_of)

    def failures(self) -> tuple[Failure, ...]:
        return self._read_all("failures", Failure.from_json)

    def failure(self, digest: str) -> Failure | None:
        return self._read_one("failures", digest, Failure.from_json)

    def variants(self) -> list[Variant]:
        """Every variant that has an outcome, in the order they were evaluated."""
        outcomes: list[Measurement | Failure] = [*self.measurements(), *self.failures()]
        found = [(item.created_utc, item.variant.digest, item.variant) for item in outcomes]
        return [variant for _, _, variant in sorted(found, key=lambda entry: entry[:2])]

    def confirmations(self) -> tuple[Measurement, ...]:
        return self._read_all("confirmation", measurement_of)

    def keep(self, measurement: Measurement) -> None:
        """Store a measurement as valid, invalid (each attempt in its own file), or confirmation."""
        if measurement.split == "confirmation":
            path = self.root / "confirmation" / f"{measurement.digest}.json"
        elif measurement.valid:
            path = self.root / "measurements" / f"{measurement.digest}.json"
        else:
            attempts = len(list((self.root / "invalid").glob(f"{measurement.digest}-*.json")))
            path = self.root / "invalid" / f"{measurement.digest}-{attempts + 1}.json"
        write_json(path, measurement.as_json())

    def keep_failure(self, failure: Failure) -> None:
        write_json(self.root / "failures" / f"{failure.variant.digest}.json", failure.as_json())

    def log_opening(self, reason: str, variants: tuple[str, ...]) -> None:
        """Record that the confirmation split was used. Using it often would make it part of the search."""
        self._append(OPENINGS, {"utc": utc_now(), "reason": reason, "variants": list(variants)})

    def openings(self) -> list[dict[str, Any]]:
        return read_lines(self.root / OPENINGS, _checked_opening)

    # -- the time account

    def add_time(self, run: str, phase: str, duration_ns: int, at_ns: int) -> None:
        self._append(ACCOUNT, {"run": run, "phase": phase, "ns": duration_ns, "at_ns": at_ns})

    def times(self) -> list[dict[str, Any]]:
        return read_lines(self.root / ACCOUNT, _checked_time)

    # -- line files: appended in one write, so that only the last line can be torn by a kill

    def _append(self, name: str, value: Mapping[str, Any]) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        line = (json.dumps(value, sort_keys=True) + "\n").encode()
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

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
        path = self.root / "baseline" / "training.json"
        return read_record(path, _checked_training, REMEDIES["training"]) if path.exists() else {}

    def model_trainings(self) -> list[dict[str, Any]]:
        """The same facts of each stored model that was trained by recovery or quantization-aware training."""
        paths = sorted((self.root / "models").glob("*/training.json"))
        return [read_record(path, _checked_training, REMEDIES["training"]) for path in paths]

    def checkpoint(self, name: str) -> Path:
        """The checkpoint of the unfinished training of the baseline, or of the model with that digest."""
        return self.root / "training" / f"{name}.pt"

    @property
    def optimiser_path(self) -> Path:
        return self.root / "optuna.sqlite3"


# -- the forms of files that are read as plain data; each check returns the data, or raises ``ValueError``


class _Resolved(dict[str, Any]):
    """The content of a ``study.json``. A key that it lacks is damage to the file, told when it is looked up."""

    def __init__(self, data: Mapping[str, Any], path: Path) -> None:
        super().__init__(data)
        self._path = path

    def __missing__(self, key: str) -> Any:
        raise DataError(f"study file {self._path}", f"it lacks {key!r}", REMEDIES["study.json"])


@dataclass(frozen=True)
class _ChangeForm:
    utc: str
    files: tuple[str, ...]
    before: Mapping[str, str] | None = None


@dataclass(frozen=True)
class _LimitsForm:
    utc: str
    limits: Mapping[str, float]
    first: Mapping[str, float]


@dataclass(frozen=True)
class _SplitForm:
    count: int
    ids: str
    first_inputs: str


@dataclass(frozen=True)
class _StudyForm:
    task_metrics: Mapping[str, MetricInfo] | None = None
    baselines: tuple[Mapping[str, Any], ...] | None = None
    versions: Mapping[str, str] | None = None
    boards: Mapping[str, Any] | None = None
    board: str | None = None
    created_utc: str | None = None
    spec_folder: str | None = None
    spec_digest: str | None = None
    task_sources: Mapping[str, str] | None = None
    task_changes: tuple[_ChangeForm, ...] = ()
    limits: Mapping[str, float] | None = None
    limit_changes: tuple[_LimitsForm, ...] = ()
    cases: Mapping[str, _SplitForm] | None = None
    baseline_weights: Mapping[str, str] | None = None
    recovered_baseline: bool | None = None


@dataclass(frozen=True)
class _NamesForm:
    names: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class _TimeForm:
    run: str
    phase: str
    ns: int
    at_ns: int


@dataclass(frozen=True)
class _OpeningForm:
    utc: str
    reason: str
    variants: tuple[str, ...]


@dataclass(frozen=True)
class _HostForm:
    cpu: str
    isa: tuple[str, ...]
    native_bfloat16: bool
    isa_limit: str


@dataclass(frozen=True)
class _TrainingForm:
    epochs: int
    wall_s: float
    precision: str
    host: _HostForm


_NEVER_NULL: Final = ("task_metrics", "baselines", "versions", "boards")


def _checked_study(data: dict[str, Any]) -> dict[str, Any]:
    for name in _NEVER_NULL:
        if name in data and data[name] is None:
            raise ValueError(f"{name} is null")
    for item in from_json(_StudyForm, data, kept=True).baselines or ():
        Variant.from_json(item)
    return data


def _checked_names(data: dict[str, Any]) -> dict[str, list[str]]:
    return {split: list(ids) for split, ids in from_json(_NamesForm, {"names": data}, kept=True).names.items()}


def _checked_time(data: dict[str, Any]) -> dict[str, Any]:
    if from_json(_TimeForm, data, kept=True).phase not in PHASES:
        raise ValueError(f"no phase is named {data['phase']!r}")
    return data


def _checked_opening(data: dict[str, Any]) -> dict[str, Any]:
    from_json(_OpeningForm, data, kept=True)
    return data


def _checked_training(data: dict[str, Any]) -> dict[str, Any]:
    from_json(_TrainingForm, data, kept=True)
    return data
