"""Studies whose int8 has its ranges from a file: those of several sites, for example."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import SpecError
from edgedeploy.interfaces.target import Target
from edgedeploy.spec.source import SpecSource
from edgedeploy.spec.study import StudySpec
from edgedeploy.targets.onnxruntime.ranged import RangedOnnxRuntime, read_ranges
from edgedeploy.tasks.places import place_of

RANGES_SHA256: Final = "ranges_sha256"
"""Key of ``study.json``: of the file that int8 has its ranges from."""

CHOICES: Final = ("calibration", "calibration_cases", "quantizer")


def ranged(spec: StudySpec, source: SpecSource, *, away: bool) -> dict[str, Target]:
    """ONNX Runtime with the ranges of the study's file.

    Raises ``SpecError`` where others than this host build (``away``), where another target is asked for, where the space
    has choices of calibration, and for a warm start from int8 of other ranges; ``DataError`` for a file that is none.
    """
    assert spec.study.ranges is not None
    if spec.study.targets != ("onnxruntime",):
        raise source.error("study.ranges", "ranges are for targets = ['onnxruntime'] alone", "Leave one of them out")
    chosen = sorted({*CHOICES} & set(spec.space))
    if chosen:
        raise source.error("study.ranges", f"they replace calibration, and the space has {chosen[0]}", "Take that out")
    if spec.search.warm_start is not None:
        raise source.error(
            "study.ranges", "int8 of the study of [search] warm_start has others", "Leave one of them out"
        )
    if away:
        raise source.error("study.ranges", "the workers of a cluster calibrate by themselves", "Run it without dask")
    path = place_of(source.path.resolve().parent, spec.study.ranges)
    return {"onnxruntime": RangedOnnxRuntime(*read_ranges(path))}


def require_same_ranges(study: Mapping[str, Any], targets: Mapping[str, Target], folder: Path) -> None:
    """Raises ``SpecError`` where the file of ranges changed since the study in ``folder`` began."""
    if study.get(RANGES_SHA256) != ranges_sha256(targets):
        found = "its file of ranges has changed since it began"
        raise SpecError(f"--resume {folder}", found, "Put the old file back, or choose another --out")


def ranges_sha256(targets: Mapping[str, Target]) -> str | None:
    """Of the file that int8 has its ranges from; None where it is calibrated."""
    found = targets.get("onnxruntime")
    return found.sha256 if isinstance(found, RangedOnnxRuntime) else None
