"""What is audited: one artifact, the float model that it was made from, and cases to ask both with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.errors import MeasurementError
from edgedeploy.interfaces.task import Array, Case, Task
from edgedeploy.records.artifact import Artifact
from edgedeploy.records.variant import Scalar
from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.sessions.open import Session, open_session

MAX_PLACES: Final = 65_536
"""Answers of one case that are looked at, for each class: a mask of 256 by 256 pixels."""


@dataclass(frozen=True)
class Subject:
    """``reference`` is the ONNX file that the artifact in ``folder`` was built from; ``quantized`` says that it was
    int8 already. ``images`` are the values of the only input, (N, ...) float32, None where the network has several or
    another type. ``task``, its ``cases`` in the order of ``images`` and the architecture's keywords are there where
    answers can be scored."""

    name: str
    reference: Path
    quantized: bool
    artifact: Artifact
    folder: Path
    images: Array | None
    why_no_images: str = ""
    task: Task | None = None
    cases: Sequence[Case] = ()
    arch: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def input(self) -> str:
        return self.artifact.inputs[0].name

    @property
    def output(self) -> str:
        """The first: what classes are read from."""
        return self.artifact.outputs[0].name


@dataclass(frozen=True)
class Pair:
    """Both models, open: ``reference`` by ONNX Runtime, ``artifact`` by the runtime of its target."""

    reference: Session
    artifact: Session


def open_pair(subject: Subject) -> Pair:
    """Raises ``MeasurementError`` where one of them does not open on this machine."""
    artifact, path = subject.artifact, subject.reference
    try:
        reference = open_session("onnxruntime", path.parent, path.name, {}, 1)
        own = open_session(artifact.target, subject.folder, artifact.entry, dict(artifact.settings), 1)
    except RuntimeFault as exc:
        remedy = "Audit it on a machine that runs this artifact"
        raise MeasurementError(f"open {subject.name} for its audit", exc.message, remedy) from exc
    return Pair(reference, own)


def answers(session: Session, name: str, images: Array) -> dict[str, Array]:
    """All outputs of each image (N, ...), asked one by one as a product asks. Raises ``MeasurementError``."""
    rows: list[dict[str, Any]] = []
    try:
        rows = [session.run({name: image[None]}) for image in images]
    except RuntimeFault as exc:
        raise MeasurementError("run a case of the audit", exc.message, "Measure the variant again") from exc
    return {key: np.concatenate([np.asarray(row[key]) for row in rows]) for key in rows[0]} if rows else {}


def class_scores(output: Array, threshold: float | None = None) -> Array | None:
    """Scores by class and place, (N, classes, places), of an output (N, classes) or (N, classes, ...). One channel is
    the score of one class, held against ``threshold``: by default that of :func:`threshold_of`. None for another
    shape, or more than :data:`MAX_PLACES` places."""
    if output.ndim < 2 or output.dtype.kind != "f" or np.prod(output.shape[2:]) > MAX_PLACES:
        return None
    flat = output.reshape(*output.shape[:2], -1)
    if flat.shape[1] > 1:
        return flat
    own = flat.astype(np.float64) - (threshold_of(output) if threshold is None else threshold)
    return np.concatenate([np.zeros_like(own), own], axis=1)


def are_probabilities(output: Array) -> bool:
    """Whether an output (N, classes, ...) is one of a softmax, or of a sigmoid where there is one class."""
    values = np.asarray(output, np.float64)
    if not values.size or not (values.min() >= 0 and values.max() <= 1):
        return False
    return values.shape[1] == 1 or bool(np.abs(values.sum(axis=1) - 1).max() < 0.02)


def unanswered(output: Array) -> int:
    """Cases (N, ...) with NaN among their answers: its place among classes is the first, and says nothing."""
    return int(np.isnan(output.reshape(len(output), -1)).any(axis=1).sum()) if output.dtype.kind == "f" else 0


def threshold_of(output: Array) -> float:
    """Where a single score turns from no to yes: one half if all values are probabilities, else 0."""
    values = np.asarray(output, np.float64)
    return 0.5 if values.size and values.min() >= 0 and values.max() <= 1 else 0.0
