"""What a study file says that it wants: objectives, limits, and the older place of what a pick may lose."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from edgedeploy.records.metric_table import BOARD_METRICS
from edgedeploy.records.metrics import Direction, MetricInfo
from edgedeploy.records.units import parse_quantity
from edgedeploy.spec.evidence import NotNegative
from edgedeploy.spec.scenarios import Table as _Table
from edgedeploy.spec.source import SpecSource


class ObjectiveTable(_Table):
    """What the search improves, best first."""

    metric: str
    """Name of a metric: of the task, of the board, or of a scenario."""
    goal: Direction | None = None
    """The metric's own direction, which it is filled from; the opposite one is an error."""
    min_effect: NotNegative | str = 0.0
    """Smallest difference that matters, in the metric's own unit (``"0.2 ms"``; a bare number is in its base unit); a
    smaller one does not make a variant dominate."""
    scale: Literal["log", "linear"] = "log"
    """How the search weighs gains of a positive metric that is minimised: by their ratio, or by their difference."""


class ConstraintTable(_Table):
    """A limit that a variant has to keep to be on the front."""

    metric: str
    """Name of a metric: of the task, of the board, or of a scenario."""
    at_most: float | str | None = None
    """Upper limit with its unit, such as "40 ms" or "8 MB"; a bare number for metrics without a unit. What a board measures
    from zero on has none below it."""
    at_least: float | str | None = None
    """Lower limit, as `at_most`. Exactly one of the two is given."""
    margin: float | str = 0.0
    """How far inside the limit a measured value has to be, with its unit; 0 or more."""

    @model_validator(mode="after")
    def _one_limit(self) -> ConstraintTable:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("exactly one of `at_most` and `at_least` must be given")
        return self


class PickTable(_Table):
    """Older place of what a pick may lose; `margin` in [evidence] wins where both are there."""

    non_inferiority_margin: NotNegative | str | None = None
    """How much of the first objective of the task a pick may lose against the baseline, in that metric's own unit
    (``"0.5 px"``; a bare number is in its base unit)."""


def check_limit(source: SpecSource, key: str, limit: ConstraintTable, info: MetricInfo) -> None:
    """Refuse what is no quantity of the metric's unit, a margin below zero, and a limit below zero on what a board measures
    from zero on: none would meet it, or all. What values a task's own metric can have, nobody says."""
    name = "at_most" if limit.at_most is not None else "at_least"
    bound = _limit(source, f"{key}.{name}", getattr(limit, name), info.unit, limit.metric)
    margin = _limit(source, f"{key}.margin", limit.margin, info.unit, limit.metric) if limit.margin != 0 else 0.0
    if margin < 0:
        found = f"{limit.metric}: expected a margin of 0 or more, but got {limit.margin!r}"
        raise source.error(f"{key}.margin", found, "It is how far inside the limit a value has to be")
    row = BOARD_METRICS.get(limit.metric)
    if row is not None and not row.signed and bound < 0:
        found = f"{limit.metric}: expected a limit of 0 or more, but got {getattr(limit, name)!r}"
        raise source.error(f"{key}.{name}", found, "No board measures less than 0 of it")


def _limit(source: SpecSource, key: str, value: float | str, unit: str, metric: str) -> float:
    try:
        return parse_quantity(value, unit)
    except ValueError as exc:
        raise source.error(key, f"{metric}: {exc}") from None
