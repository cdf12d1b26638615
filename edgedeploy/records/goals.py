"""What a study wants: objectives, limits, and what has to be shown before a variant may be shipped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

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
class Margin:
    """What may be lost on a metric of the task against the baseline, in its base unit."""

    objective: Objective
    allowed: float

    def as_json(self) -> dict[str, Any]:
        return {**self.objective.as_json(), "allowed": self.allowed}


@dataclass(frozen=True)
class LostCase:
    """A case that loses more than ``more_than`` counts as lost. ``share`` is what may be lost of all cases; None: no
    measured case may be. ``stated`` is False where the study does not say how much that is."""

    objective: Objective
    more_than: float
    share: float | None = None
    stated: bool = True

    def as_json(self) -> dict[str, Any]:
        return {**self.objective.as_json(), "more_than": self.more_than, "share": self.share, "stated": self.stated}


LOST_CASE_MARGINS: Final = 10
"""A case that loses more than so many margins counts as lost, where the study does not say how much that is."""


@dataclass(frozen=True)
class Rules:
    """What a study states beforehand that has to be shown of a variant: each of ``margins`` on the average, and how
    many cases may be ``lost``. Without a margin there is no verdict."""

    margins: tuple[Margin, ...] = ()
    lost: LostCase | None = None

    @classmethod
    def of(cls, margins: Iterable[Margin], lost: LostCase | None = None, lost_share: float | None = None) -> Rules:
        """With ten times the first margin for a lost case, where ``lost`` does not say it."""
        kept = tuple(margins)
        if lost is None and kept:
            lost = LostCase(kept[0].objective, LOST_CASE_MARGINS * kept[0].allowed, lost_share, stated=False)
        return cls(kept, lost)

    def as_json(self) -> dict[str, Any]:
        return {
            "margins": [item.as_json() for item in self.margins],
            "lost": self.lost.as_json() if self.lost else None,
        }


NO_RULES: Final = Rules()


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
