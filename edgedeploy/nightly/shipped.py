"""What is shipped, as it is found tonight, in one form for bundles and picks of studies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgedeploy.interfaces.task import Array, Case, Task
from edgedeploy.records.artifact import Artifact
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.night import ArtifactState
from edgedeploy.study.scores import score

SCORING: Final = threading.Lock()
"""A task is the user's own code: boards that run side by side score one after the other."""


@dataclass(frozen=True)
class Shipped:
    """``source`` has the artifact's files, in a folder or as bytes. ``inputs`` gives what it runs on, stacked along a new
    first axis, ``answers`` the outputs that its maker measured for them (None: the first session's are taken).
    ``precisions`` are those that it was built in, empty where nobody says; ``reference`` gives the float model that it is
    timed beside when nothing else is named. ``scorer`` is None where there is no task. ``power_mode`` pairs what is set with
    its value, where the pick was measured in a mode of its own."""

    artifact: Artifact
    source: Path | Mapping[str, bytes]
    threads: int
    states: Mapping[str, str]
    state: ArtifactState
    inputs: Callable[[], Mapping[str, Array]]
    answers: Mapping[str, Array] | None
    answers_of: str
    tolerance: Mapping[str, float]
    precisions: tuple[str, ...]
    reference: Callable[[], Shipped]
    scorer: Scorer | None = None
    power_mode: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Scorer:
    """The task's metrics over the selection cases, which follow ``golden`` rows of outputs. ``margins`` are what each may
    lose, in its own unit."""

    task: Task
    cases: tuple[Case, ...]
    golden: int
    metrics: Mapping[str, MetricInfo]
    margins: Mapping[str, float]

    def means(self, outputs: Mapping[str, Array]) -> tuple[dict[str, float], dict[str, str]]:
        """Metrics, and why others are missing, of the rows that a board answered. Raises ``SpecError`` for a task whose
        code fails, ``MeasurementError`` for outputs that are no numbers."""
        places = range(self.golden, self.golden + len(self.cases))
        rows = [{name: values[place] for name, values in outputs.items()} for place in places]
        with SCORING:
            found = score(self.task, self.cases, rows)
        return dict(found.metrics), dict(found.missing)


def state_of(artifact: Artifact, release: int | None, threads: int) -> ArtifactState:
    files = {item.name: item.sha256 for item in artifact.files}
    return ArtifactState(artifact.digest, files, dict(artifact.built_with), release, threads=threads)
