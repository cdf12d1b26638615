"""Converts a study file's goals to those of the front: objectives with their direction, limits in base units."""

from __future__ import annotations

from collections.abc import Mapping

from edgedeploy.errors import SpecError, nearest
from edgedeploy.records.goals import Constraint, LostCase, Margin, Objective, Rules
from edgedeploy.records.metric_table import BOARD_METRICS
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.units import parse_quantity
from edgedeploy.spec.objectives import ConstraintTable
from edgedeploy.spec.study import StudySpec


def objectives_of(spec: StudySpec, metrics: Mapping[str, MetricInfo]) -> tuple[Objective, ...]:
    return tuple(Objective(table.metric, _info(table.metric, metrics).direction) for table in spec.objectives)


def constraints_of(spec: StudySpec, metrics: Mapping[str, MetricInfo]) -> tuple[Constraint, ...]:
    return tuple(_constraint(table, _info(table.metric, metrics).unit) for table in spec.constraints)


def named_constraints(spec: StudySpec, metrics: Mapping[str, MetricInfo]) -> dict[str, Constraint]:
    """The constraints by the names under which a search hears of them: two may limit one metric."""
    return {f"{index} {limit.metric}": limit for index, limit in enumerate(constraints_of(spec, metrics))}


def min_effects_of(spec: StudySpec, metrics: Mapping[str, MetricInfo]) -> dict[str, float]:
    """Metric to the smallest difference that matters, in its base unit."""
    return {table.metric: _base(table.min_effect, _info(table.metric, metrics).unit) for table in spec.objectives}


def rules_of(spec: StudySpec, metrics: Mapping[str, MetricInfo]) -> Rules:
    """What the study states that has to be shown of a variant; nothing where it states no margin."""
    first = next((table.metric for table in spec.objectives if table.metric not in BOARD_METRICS), None)
    stated = spec.evidence.margins(spec.pick.non_inferiority_margin, first)
    margins = [Margin(_goal(name, metrics), _base(value, metrics[name].unit)) for name, value in stated.items()]
    by_case = spec.evidence.lost_cases(next(iter(stated), first)) if margins else {}
    share = spec.evidence.lost_share
    for name, value in by_case.items():
        return Rules.of(margins, LostCase(_goal(name, metrics), _base(value, metrics[name].unit), share))
    return Rules.of(margins, lost_share=share)


def _goal(metric: str, metrics: Mapping[str, MetricInfo]) -> Objective:
    return Objective(metric, _info(metric, metrics).direction)


def _base(value: float | str, unit: str) -> float:
    """A margin in the base unit; a bare number is in it already. Raises ``SpecError`` for a text of another unit."""
    if not isinstance(value, str):
        return float(value)
    try:
        return parse_quantity(value, unit)
    except ValueError as exc:
        raise SpecError("a margin of the study", str(exc), "Write it in the metric's own unit") from None


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
