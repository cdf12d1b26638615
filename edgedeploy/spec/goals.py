"""Converts a study file's goals to those of the front: objectives with their direction, limits in base units."""

from __future__ import annotations

from collections.abc import Mapping

from edgedeploy.errors import SpecError, nearest
from edgedeploy.records.goals import Constraint, Objective
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.units import parse_quantity
from edgedeploy.spec.study import ConstraintTable, StudySpec


def objectives_of(spec: StudySpec, metrics: Mapping[str, MetricInfo]) -> tuple[Objective, ...]:
    return tuple(Objective(table.metric, _info(table.metric, metrics).direction) for table in spec.objectives)


def constraints_of(spec: StudySpec, metrics: Mapping[str, MetricInfo]) -> tuple[Constraint, ...]:
    return tuple(_constraint(table, _info(table.metric, metrics).unit) for table in spec.constraints)


def min_effects_of(spec: StudySpec) -> dict[str, float]:
    return {table.metric: table.min_effect for table in spec.objectives}


def _info(metric: str, metrics: Mapping[str, MetricInfo]) -> MetricInfo:
    """Raises ``SpecError`` for a goal of a stored study whose metric this version does not have."""
    if metric not in metrics:
        raise SpecError(
            f"the study's goal {metric}", "this version has no metric of that name", nearest(metric, metrics)
        )
    return metrics[metric]


def _constraint(table: ConstraintTable, unit: str) -> Constraint:
    def base(value: float | str | None) -> float | None:
        return None if value is None else parse_quantity(value, unit)

    margin = parse_quantity(table.margin, unit) if table.margin else 0.0
    return Constraint(table.metric, base(table.at_most), base(table.at_least), margin)
