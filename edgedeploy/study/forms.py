"""The forms of files in a study's folder that are read as plain data. Each check returns the data, or raises one of
:data:`edgedeploy.study.reading.FAULTS`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import DataError
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Variant
from edgedeploy.runtime.wire.serde import from_json

PHASES: Final = ("train", "build", "upload", "measure", "evaluate", "search", "bookkeeping", "idle")
"""Phases of the time account."""

STUDY_REMEDY: Final = "Put a copy of it back, or begin the study again in another --out"


class Resolved(dict[str, Any]):
    """The content of a ``study.json``. A key that it lacks is damage to the file, told when it is looked up."""

    def __init__(self, data: Mapping[str, Any], path: Path) -> None:
        super().__init__(data)
        self._path = path

    def __missing__(self, key: str) -> Any:
        raise DataError(f"study file {self._path}", f"it lacks {key!r}", STUDY_REMEDY)


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
class _ClustersForm:
    named: bool
    cases: Mapping[str, int]
    groups: Mapping[str, int]


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
    clusters: _ClustersForm | None = None
    from_wider: bool | None = None


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
    order: tuple[str, ...] = ()
    order_sha256: str = ""


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


def checked_study(data: dict[str, Any]) -> dict[str, Any]:
    for name in _NEVER_NULL:
        if name in data and data[name] is None:
            raise ValueError(f"{name} is null")
    for item in from_json(_StudyForm, data, kept=True).baselines or ():
        Variant.from_json(item)
    return data


def checked_names(data: dict[str, Any]) -> dict[str, list[str]]:
    return {split: list(ids) for split, ids in from_json(_NamesForm, {"names": data}, kept=True).names.items()}


def checked_time(data: dict[str, Any]) -> dict[str, Any]:
    if from_json(_TimeForm, data, kept=True).phase not in PHASES:
        raise ValueError(f"no phase is named {data['phase']!r}")
    return data


def checked_opening(data: dict[str, Any]) -> dict[str, Any]:
    from_json(_OpeningForm, data, kept=True)
    return data


def checked_training(data: dict[str, Any]) -> dict[str, Any]:
    from_json(_TrainingForm, data, kept=True)
    return data
