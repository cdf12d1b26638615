"""What a search thinks of variants that it has not seen: why it proposes one, and why another is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgedeploy.records.variant import Variant
from edgedeploy.search.scales import Scale

Floats = NDArray[np.float64]

DEVIATIONS: Final = 2.0
"""How many standard deviations better than expected an optimistic value is."""

NO_CHANGE: Final = "even its optimistic value does not change the front"
LATER: Final = "others promised more for their time"


@dataclass(frozen=True)
class Belief:
    """Predicted values of the objectives, ``expected`` and ``optimistic``, the predicted ``gain`` of hypervolume over what
    the front has (None while it has none: nothing meets the limits yet), and what the evaluation is thought to cost. None of
    it is measured. Where ``explores`` is not empty, it is not proposed for its gain, but for what that says it tells."""

    expected: tuple[float, ...]
    optimistic: tuple[float, ...]
    gain: float | None
    cost_s: float | None = None
    explores: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "expected": list(self.expected),
            "optimistic": list(self.optimistic),
            "gain": self.gain,
            "cost_s": self.cost_s,
            "provenance": "predicted",
            **({"explores": self.explores} if self.explores else {}),
        }


@dataclass(frozen=True)
class Left:
    """A variant that was not tried, and why."""

    variant: Variant
    belief: Belief
    reason: str


@dataclass(frozen=True)
class Beliefs:
    """Of every candidate, by row: mean and standard deviation of each objective as it is ``modelled``, with the scale that
    leads back to its units; ``gain`` as a share of the front's hypervolume, whatever it costs, or of nothing where the front
    is ``empty``; ``bounds`` are the best values that there can be, by the index of the objective."""

    modelled: Sequence[tuple[Floats, Floats, Scale]]
    gain: Floats
    bounds: Mapping[int, float] = field(default_factory=dict)
    empty: bool = False

    def of(self, row: int, cost_s: float | None) -> Belief:
        gain = None if self.empty else float(self.gain[row])
        return Belief(self._values(row, 0.0), self._values(row, DEVIATIONS), gain, cost_s)

    def _values(self, row: int, deviations: float) -> tuple[float, ...]:
        found = []
        for index, (mean, spread, scale) in enumerate(self.modelled):
            value = float(scale.back(np.array([mean[row] - deviations * spread[row]]))[0])
            bound = self.bounds.get(index, value)
            found.append(bound if scale.sign * value < scale.sign * bound else value)
        return tuple(found)
