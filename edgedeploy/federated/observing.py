"""Histograms of a site's own calibration cases, of the network that its study would build from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgedeploy.federated.calibration import FORM
from edgedeploy.federated.histograms import Histograms, Range, float_tensors, observe
from edgedeploy.files import write_json
from edgedeploy.interfaces.task import baseline_arch
from edgedeploy.spec.source import SpecSource
from edgedeploy.spec.study import StudySpec
from edgedeploy.study.baseline_file import baseline_file
from edgedeploy.study.cases import inputs_of


def observed_by(spec: StudySpec, source: SpecSource) -> Histograms:
    """Over all calibration cases of the study's task, by its baseline with the given weights. Raises what
    :func:`edgedeploy.study.baseline_file.baseline_file` raises, and ``DataError`` without cases."""
    with baseline_file(spec, source) as (task, path):
        arch = baseline_arch(task)
        return observe(path, (inputs_of(task, case, arch) for case in task.cases("calibration")))


def tensors_by(spec: StudySpec, source: SpecSource) -> tuple[str, ...]:
    """The names of the float tensors, in the order of the graph, that :func:`observed_by` counts."""
    import onnx

    with baseline_file(spec, source) as (_, path):
        return tuple(float_tensors(onnx.load(str(path))))


def write_named(path: Path, ranges: Mapping[str, Range]) -> None:
    """Ranges by name for a study's ``[study] ranges``, whole or not at all."""
    told: dict[str, Any] = {"form": FORM, "ranges": {name: list(pair) for name, pair in ranges.items()}}
    write_json(path, told)
