"""What a study wants: objectives and limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgedeploy.records.metrics import Direction
from edgedeploy.records.units import human


@dataclass(frozen=True)
class Objective:
    """A metric to make as small or as large as possible."""

    metric: str
    direction: Direction

    @property
    def sign(self) -> int:
        """1 where more is better, else -1."""
        return -1 if self.direction == "minimize" else 1

    def gain(self, ours: float, theirs: float) -> float:
        """How much better ``ours`` is, in the metric's unit; negative when it is worse."""
        return theirs - ours if self.direction == "minimize" else ours - theirs

    def as_json(self) -> dict[str, Any]:
        return {"metric": self.metric, "direction": self.direction}


@dataclass(frozen=True)
class Constraint:
    """A limit on a metric, in its base unit. ``margin`` is how far inside the limit a value has to be."""

    metric: str
    at_most: float | None = None
    at_least: float | None = None
    margin: float = 0.0

    def __post_init__(self) -> None:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError(f"constraint on {self.metric}: exactly one of at_most and at_least must be given")
        if self.margin < 0:
            raise ValueError(f"constraint on {self.metric}: margin >= 0 must hold, but got {self.margin}")

    @property
    def bound(self) -> float:
        """The value that has to be reached: the limit, tightened by the margin."""
        if self.at_most is not None:
            return self.at_most - self.margin
        assert self.at_least is not None
        return self.at_least + self.margin

    def violation(self, value: float) -> float:
        """How far ``value`` is on the wrong side of :attr:`bound`, in the metric's unit; <= 0 when the limit is met."""
        return value - self.bound if self.at_most is not None else self.bound - value

    def better(self, values: Sequence[float]) -> float:
        """The value with the smallest violation of this constraint."""
        return min(values) if self.at_most is not None else max(values)

    def text(self, unit: str) -> str:
        """For people: ``latency_p50_ns at most 20 ms (margin 1 ms)``."""
        limit = self.at_most if self.at_most is not None else self.at_least
        assert limit is not None
        word = "at most" if self.at_most is not None else "at least"
        margin = f" (margin {human(self.margin, unit)})" if self.margin else ""
        return f"{self.metric} {word} {human(limit, unit)}{margin}"

    def as_json(self) -> dict[str, Any]:
        return {"metric": self.metric, "at_most": self.at_most, "at_least": self.at_least, "margin": self.margin}
