"""Where a variant stands: on the front or why it is not, and what ran on which processor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from edgedeploy.evidence.bootstrap import Estimate
from edgedeploy.evidence.pareto import Shortfall
from edgedeploy.evidence.verdict import Verdict
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.variant import Variant

Status = Literal["front", "indistinguishable", "dominated", "infeasible", "incomplete"]
Confidence = Literal["confirmed", "indistinguishable"]


@dataclass(frozen=True)
class Row:
    """One validly measured variant and where it stands.

    ``dominated_by`` is a member of the front. What the bounds do not show to be worse is not dominated, whatever its
    values: its status is ``indistinguishable``, and ``dominated_by`` is who has the better values. A member may have
    ``dominated_by`` too: it is better than that one somewhere, but by less than matters. ``verdict``
    says whether it is faster than the baseline that ran beside it; None when nothing was timed, or it is that baseline.
    ``beside`` is what that baseline gave in the same run, by metric in base units. ``file`` is the artifact, relative
    to the study's folder, ``notes`` those of the measurement. ``p_on_front`` is the share of bootstrap draws in which
    it is on the front, of members and of what is indistinguishable from one; None for others, and where too little can
    be drawn. ``reference`` is the baseline that ratios and the pick refer to: other targets have baselines too.
    """

    variant: Variant
    baseline: bool
    status: Status
    estimates: Mapping[str, Estimate]
    missing: Mapping[str, str]
    executed: Mapping[str, int]
    shortfalls: tuple[Shortfall, ...] = ()
    dominated_by: str | None = None
    confidence: Confidence | None = None
    verdict: Verdict | None = None
    board: str = ""
    beside: Mapping[str, float] = field(default_factory=dict)
    file: str = ""
    notes: tuple[str, ...] = ()
    p_on_front: float | None = None
    reference: bool = False

    @property
    def digest(self) -> str:
        return self.variant.digest

    @property
    def role(self) -> str:
        """What the variant is beside the searched ones, for people; empty for one of these."""
        if self.variant.recovered:
            return "baseline, recovered"
        if self.reference:
            return "baseline"
        return f"baseline of {self.variant.target}" if self.baseline else ""

    def as_json(self) -> dict[str, Any]:
        return {
            "digest": self.digest,
            "variant": self.variant.as_json(),
            "baseline": self.baseline,
            "status": self.status,
            "estimates": {name: item.as_json() for name, item in self.estimates.items()},
            "missing": dict(self.missing),
            "executed": dict(self.executed),
            "shortfalls": [item.as_json() for item in self.shortfalls],
            "dominated_by": self.dominated_by,
            "confidence": self.confidence,
            "latency_verdict": self.verdict.as_json() if self.verdict else None,
            "board": self.board,
            "baseline_beside": dict(self.beside),
            "file": self.file,
            "notes": list(self.notes),
            "p_on_front": self.p_on_front,
        }


@dataclass(frozen=True)
class Invalid:
    """A run whose conditions drifted: named, never scored."""

    variant: Variant
    cause: str
    created_utc: str

    def as_json(self) -> dict[str, Any]:
        return {"digest": self.variant.digest, "cause": self.cause, "created_utc": self.created_utc}


@dataclass(frozen=True)
class Processor:
    """What decided which kernels ran: ``isa`` are the flags that matter here."""

    cpu: str
    arch: str
    cores: int
    isa: tuple[str, ...]

    @classmethod
    def of(cls, board: BoardInfo) -> Processor:
        return cls(board.cpu, board.arch, board.cores, board.isa)
