"""The front: which variants nothing else beats, which limits they meet, and why nothing meets them when nothing does.

Pure functions over point values. What the uncertainty of those values allows to be concluded is decided one floor up,
in :mod:`edgedeploy.evidence.front`. Values that were obtained in different ways (``measured``, ``emulated``,
``predicted``, ``bound``) never meet here: every function that compares candidates raises ``SpecError`` on a mixture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgedeploy.errors import SpecError
from edgedeploy.records.board import Provenance
from edgedeploy.records.goals import Constraint, Objective
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.units import human, human_limit


@dataclass(frozen=True)
class Candidate:
    """A variant's digest with its values by metric and how they were obtained."""

    digest: str
    provenance: Provenance
    values: Mapping[str, float]


@dataclass(frozen=True)
class Shortfall:
    """A constraint that is not met: ``value`` is None when the metric is missing, ``by`` is in the metric's unit."""

    constraint: Constraint
    value: float | None
    by: float | None

    @property
    def relative(self) -> float:
        """``by`` as a share of the bound, so that shortfalls in different units can be ranked; missing is infinite."""
        if self.by is None:
            return float("inf")
        return self.by / (abs(self.constraint.bound) or 1.0)

    def text(self, unit: str) -> str:
        if self.value is None or self.by is None:
            return f"{self.constraint.text(unit)}: no value"
        off = f" ({100 * self.relative:.0f} %)" if self.constraint.bound else ""
        return f"{self.constraint.text(unit)}: {human(self.value, unit)}, off by {human(self.by, unit)}{off}"

    def as_json(self) -> dict[str, Any]:
        return {"constraint": self.constraint.as_json(), "value": self.value, "by": self.by}


@dataclass(frozen=True)
class Miss:
    """A variant that came near: its shortfalls say what it would have needed."""

    digest: str
    shortfalls: tuple[Shortfall, ...]

    def as_json(self) -> dict[str, Any]:
        return {"digest": self.digest, "shortfalls": [item.as_json() for item in self.shortfalls]}


@dataclass(frozen=True)
class LimitReach:
    """How one constraint fared over all candidates: how many met it, and the best value that any reached."""

    constraint: Constraint
    met_by: int
    best: float | None

    def as_json(self) -> dict[str, Any]:
        return {"constraint": self.constraint.as_json(), "met_by": self.met_by, "best": self.best}


@dataclass(frozen=True)
class Impossible:
    """Why no candidate meets every constraint: each limit's reach, and the nearest misses, nearest first."""

    candidates: int
    reach: tuple[LimitReach, ...]
    nearest: tuple[Miss, ...]

    @property
    def blocking(self) -> tuple[LimitReach, ...]:
        """The constraints that no candidate meets; empty when it is only their combination that nobody meets."""
        return tuple(item for item in self.reach if item.met_by == 0)

    def lines(self, metrics: Mapping[str, MetricInfo], labels: Mapping[str, str]) -> list[str]:
        """The explanation in sentences: what blocks, who came nearest, what would have to give."""
        if not self.candidates:
            return ["No variant has a valid measurement with a value for every objective."]
        lines = []
        for item in self.blocking:
            unit = _unit(metrics, item.constraint.metric)
            best = "nobody has a value for it" if item.best is None else f"the best reached is {human(item.best, unit)}"
            lines.append(f"None of {self.candidates} variants meets {item.constraint.text(unit)}: {best}.")
        if not self.blocking:
            lines.append(
                f"Each limit is met by some variant, but none of {self.candidates} meets all of them together."
            )
        for miss in self.nearest:
            parts = "; ".join(short.text(_unit(metrics, short.constraint.metric)) for short in miss.shortfalls)
            lines.append(f"Near miss {labels.get(miss.digest, miss.digest)}: {parts}.")
        gives = [item for miss in self.nearest[:1] for item in miss.shortfalls if item.value is not None]
        if gives:
            wishes = " and ".join(_relaxed(item, _unit(metrics, item.constraint.metric)) for item in gives)
            lines.append(f"What would have to give: with {wishes}, the nearest miss would do.")
        return lines

    def as_json(self) -> dict[str, Any]:
        return {
            "candidates": self.candidates,
            "reach": [item.as_json() for item in self.reach],
            "nearest": [item.as_json() for item in self.nearest],
        }


def require_one_provenance(candidates: Sequence[Candidate]) -> None:
    """Raises ``SpecError`` when the candidates' values were obtained in different ways."""
    kinds = sorted({candidate.provenance for candidate in candidates})
    if len(kinds) > 1:
        raise SpecError(
            "compare variants",
            f"their values are {' and '.join(kinds)}",
            "Make one front per provenance: values of different origin say nothing about each other",
        )


def dominates(ours: Candidate, theirs: Candidate, objectives: Sequence[Objective]) -> bool:
    """At least as good on every objective and better on one. Raises ``KeyError`` when a value is missing."""
    require_one_provenance((ours, theirs))
    gains = [goal.gain(ours.values[goal.metric], theirs.values[goal.metric]) for goal in objectives]
    return min(gains) >= 0 and max(gains) > 0


def non_dominated(candidates: Sequence[Candidate], objectives: Sequence[Objective]) -> tuple[Candidate, ...]:
    """The candidates that no other one dominates, in the order given; equals of a member are members."""
    if not objectives:
        raise ValueError("a front needs at least one objective")
    require_one_provenance(candidates)
    values = np.array([[goal.sign * item.values[goal.metric] for goal in objectives] for item in candidates])
    return tuple(
        candidate
        for candidate, own in zip(candidates, values, strict=True)
        if not ((values >= own).all(axis=1) & (values > own).any(axis=1)).any()
    )


def shortfalls(values: Mapping[str, float], constraints: Sequence[Constraint]) -> tuple[Shortfall, ...]:
    """The constraints that ``values`` does not meet, margins included; a missing metric meets nothing."""
    found = []
    for constraint in constraints:
        value = values.get(constraint.metric)
        if value is None:
            found.append(Shortfall(constraint, None, None))
        elif constraint.violation(value) > 0:
            found.append(Shortfall(constraint, value, constraint.violation(value)))
    return tuple(found)


def explain_infeasible(
    candidates: Sequence[Candidate], constraints: Sequence[Constraint], *, nearest: int = 3
) -> Impossible | None:
    """None when some candidate meets every constraint. Nearest is by number of limits missed, then by relative size."""
    require_one_provenance(candidates)
    misses = [Miss(candidate.digest, shortfalls(candidate.values, constraints)) for candidate in candidates]
    if any(not miss.shortfalls for miss in misses):
        return None
    misses.sort(key=lambda miss: (len(miss.shortfalls), sum(item.relative for item in miss.shortfalls), miss.digest))
    return Impossible(len(candidates), tuple(_reach(item, candidates) for item in constraints), tuple(misses[:nearest]))


def _reach(constraint: Constraint, candidates: Sequence[Candidate]) -> LimitReach:
    values = [c.values[constraint.metric] for c in candidates if constraint.metric in c.values]
    met = sum(constraint.violation(value) <= 0 for value in values)
    return LimitReach(constraint, met, constraint.better(values) if values else None)


def _relaxed(item: Shortfall, unit: str) -> str:
    assert item.value is not None
    upper = item.constraint.at_most is not None
    margin = item.constraint.margin if upper else -item.constraint.margin
    limit = human_limit(item.value + margin, unit, at_most=upper)
    return f"{item.constraint.metric} {'at most' if upper else 'at least'} {limit}"


def _unit(metrics: Mapping[str, MetricInfo], metric: str) -> str:
    return metrics[metric].unit if metric in metrics else "1"
