"""Entries of a lab for tests: real bundles of small networks with their portable model, and sessions on boards."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import product_kit
import small_onnx
from fault_kit import local_board
from onnx import numpy_helper

from edgedeploy.evidence.statistics import StabilityLimits
from edgedeploy.nightly.session import SessionPlan, measure_session
from edgedeploy.nightly.subject import Subject, prepare
from edgedeploy.records.job import MeasurePlan
from edgedeploy.records.night import Session
from edgedeploy.runtime.bundle import manifest as m
from edgedeploy.runtime.bundle.names import MANIFEST
from edgedeploy.study.bundle.make import REFERENCE
from edgedeploy.study.runner import Runner, runner_on

ANY_CONDITIONS = StabilityLimits(1e9, 1e9, 1e9, 1e9, 1e9)
"""No run is disturbed: what a test looks at does not hang on the host's load."""

SHORT = SessionPlan(MeasurePlan(queries=16, warmup=1, block=4, cold_starts=0, time_limit_s=120.0), ANY_CONDITIONS)
NIGHT = "2026-11-29"


@dataclass(frozen=True)
class Entry:
    """As a lab file's."""

    id: str = "thyroid"
    bundle: str | None = "bundle"
    trust: str | None = None
    study: str | None = None
    pick: str = "pick"
    baseline: str | None = None
    metrics: Sequence[str] = ()
    rebuild: bool = False
    accuracy_margin: float | str | None = None


def changed_weight(path: Path) -> Path:
    """The small network with another last layer: what it answers is a quarter larger."""
    small_onnx.convolutional(path)
    model = onnx.load(str(path))
    for tensor in model.graph.initializer:
        if tensor.name == "wh":
            tensor.CopyFrom(numpy_helper.from_array(1.25 * numpy_helper.to_array(tensor), "wh"))
    onnx.save(model, str(path))
    return path


def with_reference(files: Mapping[str, bytes], recipe: Mapping[str, Any] | None = None) -> dict[str, bytes]:
    """A bundle with its portable model and its recipe, as edgedeploy makes it."""
    told = {
        "format": "edgedeploy-recipe",
        "version": 1,
        "precision": "float32",
        "built_with": {"onnx": onnx.__version__},
    }
    more = {
        REFERENCE: files["artifact/model.onnx"],
        "recipe.json": json.dumps({**told, **(recipe or {})}).encode(),
    }
    return product_kit.with_manifest({**files, **more}, m.parse(files[MANIFEST]))


def write_bundle(folder: Path, *, recipe: Mapping[str, Any] | None = None, **fields: Any) -> Path:
    files = with_reference(product_kit.make_files(steps=product_kit.NO_STEPS, **fields), recipe)
    return product_kit.replace_folder(folder, files)


def subject_of(folder: Path, entry: Entry | None = None) -> Subject:
    return prepare(entry or Entry(), folder, folder / "frozen")


def runner(root: Path, *, python: str = sys.executable, **options: Any) -> Runner:
    """New processes on this host, which stand for a board."""
    return runner_on(local_board(root, python=python, **options), lambda line: None)


def measured(subject: Subject, run: Runner, number: int = 1, **changes: Any) -> Session:
    return measure_session(subject, "here", run, replace(SHORT, **changes), night=NIGHT, number=number)
