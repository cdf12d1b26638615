"""The ONNX file of a study's baseline by itself: for what looks at the network beside the study."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from edgedeploy.compress.shaped import built
from edgedeploy.errors import DataError
from edgedeploy.interfaces.task import Task, baseline_arch
from edgedeploy.reference.export import export_reference
from edgedeploy.spec.source import SpecSource
from edgedeploy.spec.study import StudySpec
from edgedeploy.study.baseline import find_baseline
from edgedeploy.study.cases import inputs_of
from edgedeploy.study.modeller import GOLDEN_CASES
from edgedeploy.tasks.load import load_task


@contextmanager
def baseline_file(spec: StudySpec, source: SpecSource) -> Iterator[tuple[Task, Path]]:
    """The study's task, and its network with the weights of its file as ONNX, which is gone after the block. Raises what
    reading the task, loading the weights and exporting raise, and ``DataError`` where no file gives the weights."""
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
