"""Limits that no variant of a study can meet, by what is certain before anything is trained or measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from edgedeploy.records.board import Provenance
from edgedeploy.records.goals import Constraint
from edgedeploy.records.units import human

PROVENANCE: Final[Provenance] = "bound"


@dataclass(frozen=True)
class Proof:
    """No variant can be better than ``best`` in the constraint's metric, in its base ``unit``; ``why`` says what makes that
    certain."""

    constraint: Constraint
    unit: str
    best: float
    why: str

    @property
    def line(self) -> str:
        word = "below" if self.constraint.at_most is not None else "above"
        return (
            f"No variant can meet {self.constraint.text(self.unit)}: none is {word} {human(self.best, self.unit)}, because "
            f"{self.why}."
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "constraint": self.constraint.as_json(),
            "unit": self.unit,
            "best": self.best,
            "why": self.why,
            "provenance": PROVENANCE,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Proof:
        limits = {name: data["constraint"][name] for name in ("at_most", "at_least")}
        constraint = Constraint(
            str(data["constraint"]["metric"]),
            **{name: None if value is None else float(value) for name, value in limits.items()},
            margin=float(data["constraint"]["margin"]),
        )
        return cls(constraint, str(data["unit"]), float(data["best"]), str(data["why"]))
