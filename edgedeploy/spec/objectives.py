"""What a study file says that it wants: objectives, limits, and the older place of what a pick may lose."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from edgedeploy.records.metrics import Direction
from edgedeploy.spec.evidence import NotNegative
from edgedeploy.spec.scenarios import Table as _Table


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
    """Upper limit with its unit, such as "40 ms" or "8 MB"; a bare number for metrics without a unit."""
    at_least: float | str | None = None
    """Lower limit, as `at_most`. Exactly one of the two is given."""
    margin: float | str = 0.0
    """How far inside the limit a measured value has to be, with its unit."""

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
