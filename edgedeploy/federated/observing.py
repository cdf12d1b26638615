"""Histograms of a site's own calibration cases, of the network that its study would build from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgedeploy.compress.model import built
from edgedeploy.errors import DataError
from edgedeploy.federated.histograms import Histograms, Range, float_tensors, observe
from edgedeploy.files import write_json
from edgedeploy.interfaces.task import Task, baseline_arch
from edgedeploy.reference.export import export_reference
from edgedeploy.spec.source import SpecSource
from edgedeploy.spec.study import StudySpec
from edgedeploy.study.baseline import find_baseline
from edgedeploy.study.cases import inputs_of
from edgedeploy.study.modeller import GOLDEN_CASES
from edgedeploy.targets.onnxruntime.ranged import FORM
from edgedeploy.tasks.load import load_task


def observed_by(spec: StudySpec, source: SpecSource) -> Histograms:
    """Over all calibration cases of the study's task, by its baseline with the given weights. Raises what reading the task,
    loading the weights and exporting raise, and ``DataError`` without cases."""
    with _reference(spec, source) as (task, path):
        arch = baseline_arch(task)
        return observe(path, (inputs_of(task, case, arch) for case in task.cases("calibration")))


def tensors_by(spec: StudySpec, source: SpecSource) -> tuple[str, ...]:
    """The names of the float tensors, in the order of the graph, that :func:`observed_by` counts."""
    import onnx

    with _reference(spec, source) as (_, path):
        return tuple(float_tensors(onnx.load(str(path))))


@contextmanager
def _reference(spec: StudySpec, source: SpecSource) -> Iterator[tuple[Task, Path]]:
    task = load_task(spec.task.model_dump(), source.path.resolve().parent)
    baseline = find_baseline(spec, source, task)
    if baseline.file is None:
        raise DataError("the network to observe", "no file gives its weights", "The coordinator's checkpoint does")
    arch = baseline_arch(task)
    model = built(task, arch).eval()
    baseline.file.load_into(model)
    samples = [inputs_of(task, case, arch) for case in task.cases("calibration")[:GOLDEN_CASES]]
    with TemporaryDirectory(prefix="edgedeploy-observed-") as folder:
        path = Path(folder) / "reference.onnx"
        export_reference(model, task.input_specs(**arch), path, samples=samples)
        yield task, path


def write_named(path: Path, ranges: Mapping[str, Range]) -> None:
    """Ranges by name for a study's ``[study] ranges``, whole or not at all."""
    told: dict[str, Any] = {"form": FORM, "ranges": {name: list(pair) for name, pair in ranges.items()}}
    write_json(path, told)
