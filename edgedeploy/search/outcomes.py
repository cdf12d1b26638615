"""What an evaluation of a variant gives, and who evaluates."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from edgedeploy.records.variant import Variant


@dataclass(frozen=True)
class Scored:
    """Objective values in the order of the objectives; a constraint is met when its value is <= 0. ``variances`` of the
    values, in their units squared, where they are known."""

    values: tuple[float, ...]
    constraints: Mapping[str, float]
    variances: tuple[float, ...] = ()


NETWORK: Final = "network"
"""The phase of a failure in which not even the torch network could be made: that of every target and precision alike."""

MEASURE: Final = "measure"
"""The phase of a failure of what was built and sent to a board."""

_OF_ITS_ANSWERS: Final = frozenset({"MeasurementError", "ParityError"})
_NOBODYS: Final = frozenset({"Unstable", "Unrepeatable"})


@dataclass(frozen=True)
class Failed:
    """A variant without a number; ``kind`` names the cause, ``phase`` where it happened. The optimiser learns of the failure
    but gets no value."""

    kind: str
    message: str
    phase: str = ""

    @property
    def teaches(self) -> bool:
        """Whether it says something of the variant. Conditions that drifted and builds that disagreed do not, and the next
        run tries them again."""
        return self.kind not in _NOBODYS

    @property
    def answers_nothing(self) -> bool:
        """Whether it ran, and its answers are of no use: one and the same for all cases, or no numbers. A limit on memory
        that it passed looks alike."""
        return self.phase == MEASURE and self.kind in _OF_ITS_ANSWERS


Outcome = Scored | Failed
StopReason = Literal["trials", "wall_clock", "exhausted", "converged", "impossible"]


@dataclass(frozen=True)
class Finished:
    """Why the search ended and how many distinct variants have an outcome. ``cut`` describes the training that the end
    of the time interrupted, if there was one: its variant has no outcome, and the next run evaluates it. ``best_gain`` is
    what the best untried variant promised a search that converged, as a share of the front's hypervolume; ``unreachable``
    names the constraint that ended one whose goals are impossible."""

    reason: StopReason
    evaluated: int
    cut: str = ""
    best_gain: float | None = None
    unreachable: str = ""


class Evaluator(Protocol):
    """Evaluates variants. A protocol, because boards of this process and boards of a cluster implement it differently."""

    def slots(self) -> int:
        """How many variants may be evaluated at the same time now; at least 1."""

    def submit(self, variant: Variant) -> Future[Outcome]:
        """Start an evaluation and return its future outcome. An exception in it ends the search."""

    def waiting(self) -> AbstractContextManager[None]:
        """Wraps the time in which the search only waits."""
