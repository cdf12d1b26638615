"""A task of the user's own with trained weights, for one artifact: its own metrics say what the precision costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgedeploy.compress.shaped import built
from edgedeploy.compress.weights_file import WeightsFile
from edgedeploy.errors import SpecError
from edgedeploy.interfaces.task import Array, ReadyMade, Split, Task, baseline_arch, is_trained
from edgedeploy.records.measurement import Measurement
from edgedeploy.reference.export import Reference, reference_outputs
from edgedeploy.reference.parity import UNJUDGED, Judged, apart, judge
from edgedeploy.study.scores import score
from edgedeploy.tasks.load import load_task

SPLIT: Final[Split] = "selection"


@dataclass(frozen=True)
class Accuracy:
    """One of the task's metrics over ``cases`` selection cases: of the float model by ONNX Runtime on this host, and of the
    artifact on the board. None where it is undefined in every case."""

    metric: str
    float_model: float | None
    artifact: float | None
    cases: int


def load_trained(task: str | Task, checkpoint: Path | None, key: str) -> tuple[Task, WeightsFile | None]:
    """The task, ``file.py:factory`` or the object itself, and the file of its weights, which are loaded once to see that
    they fit. Raises ``SpecError`` where nothing gives trained weights, and what reading the task and the file raises."""
    found = load_task({"kind": "python", "object": task}, Path.cwd()) if isinstance(task, str) else task
    if checkpoint is not None:
        file = WeightsFile(checkpoint, key)
        file.load_into(built(found, baseline_arch(found)))
        return found, file
    if is_trained(found) or isinstance(found, ReadyMade):
        return found, None
    remedy = "Add --checkpoint with a file of trained weights, or search a study, which can train it"
    raise SpecError(f"the weights of task {found.name!r}", "nothing gives them", remedy)


class GoldenOutputs:
    """Keeps what parity was judged on: outputs of the reference and of the artifact, by case and name."""

    def __init__(self) -> None:
        self.reference: Mapping[str, Mapping[str, Array]] = {}
        self.artifact: Mapping[str, Mapping[str, Array]] = {}
        self.judged = UNJUDGED

    def judge(
        self,
        reference: Mapping[str, Mapping[str, Array]],
        artifact: Mapping[str, Mapping[str, Array]],
        *precisions: str,
    ) -> Judged:
        self.reference, self.artifact = reference, artifact
        self.judged = judge(reference, artifact, *precisions)
        return self.judged

    @property
    def names(self) -> list[str]:
        return list(next(iter(self.reference.values()), {}))

    def by_case(self, name: str) -> dict[str, tuple[float | None, float]]:
        """The distances of an output in each case: see :func:`edgedeploy.reference.parity.apart`."""
        return {case: apart(outputs[name], self.artifact[case][name]) for case, outputs in self.reference.items()}


def accuracy_of(task: Task, reference: Reference, measured: Measurement) -> tuple[Accuracy, ...]:
    """The task's metrics of the float model beside those of the artifact, on the same cases."""
    cases = task.cases(SPLIT)
    arch = baseline_arch(task)
    plain = score(task, cases, list(reference_outputs(reference, (task.inputs(case, **arch) for case in cases))))
    names = dict.fromkeys((*task.metrics, *plain.metrics))
    return tuple(Accuracy(name, plain.metrics.get(name), measured.metrics.get(name), len(cases)) for name in names)
