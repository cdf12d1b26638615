"""What a study tells its search of variants beforehand: how large they are, and what cannot change a metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edgedeploy.compress.sizes import size_of
from edgedeploy.interfaces.task import Task
from edgedeploy.records.metric_table import BOARD_METRICS
from edgedeploy.records.variant import Scalar, Variant
from edgedeploy.search.knowledge import Knowledge
from edgedeploy.spec.study import StudySpec

MOST_ARCHITECTURES: Final = 64
"""Architectures that are built to see how large they are, at most: each takes part of a second."""

NOT_FOR_ACCURACY: Final = frozenset({"threads", "power_mode"})
NOT_FOR_SIZE: Final = frozenset({"threads", "power_mode", "calibration", "calibration_cases"})

_BITS: Final[Mapping[str, int]] = {"bfloat16": 16, "float16": 16, "int8": 8, "int8-dynamic": 8, "int4-weights": 4}
_FLOAT_BITS: Final = 32


def knowledge_of(spec: StudySpec, task: Task) -> Knowledge:
    """A function of the study file and the task alone, so that a resumed search proposes what the first would have."""
    return Knowledge(
        statics=Sizes(task).of,
        without_effect=tuple(without_effect(objective.metric) for objective in spec.objectives),
    )


def without_effect(metric: str) -> frozenset[str]:
    """Parameters that cannot change the metric."""
    if metric not in BOARD_METRICS:
        return NOT_FOR_ACCURACY
    return NOT_FOR_SIZE if metric == "size_bytes" else frozenset()


class Sizes:
    """Estimates of how large variants are, for the search alone: a width keeps its square of what the whole architecture
    has. They are no result and stand nowhere."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._known: dict[tuple[tuple[str, Scalar], ...], Mapping[str, float]] = {}

    def of(self, variant: Variant) -> dict[str, float]:
        if variant.arch not in self._known:
            few = len(self._known) < MOST_ARCHITECTURES
            self._known[variant.arch] = size_of(self._task, variant.arch_kwargs) if few else {}
        kept = variant.width**2
        found = {name: value * kept for name, value in self._known[variant.arch].items()}
        if "parameters" in found:
            found["bytes"] = found["parameters"] * _BITS.get(variant.precision, _FLOAT_BITS) / 8
        return found
