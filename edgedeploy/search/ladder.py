"""Measure first, train last: what a rung of recovery needs, what is known of it already, and what it costs.

Times, memory and size do not depend on the values of the weights. So a structure is measured once on the lowest rung, and a
higher rung is proposed with these values known: only its accuracy is open. A rung needs two things first:

- its own target and precision measured on the lowest rung: nothing is trained for a build that fails;
- its model measured on the rung below, in any target and precision: they share the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from statistics import median

from edgedeploy.records.variant import Variant
from edgedeploy.search.outcomes import Outcome, Scored
from edgedeploy.search.rungs import Rungs

GROWTH_OF_TIME = 0.8
"""An epoch takes time in proportion to this power of the multiply-accumulate operations: small layers keep a CPU less
busy. It is used between architectures whose own epochs have not been timed."""


@dataclass(frozen=True)
class Pace:
    """What evaluations and trainings have taken so far: ``evaluation_s`` without any training, ``epoch_s`` by model digest,
    and ``macs`` of these models."""

    evaluation_s: tuple[float, ...] = ()
    epoch_s: Mapping[str, float] = field(default_factory=dict)
    macs: Mapping[str, float] = field(default_factory=dict)

    def of_evaluation(self) -> float:
        return median(self.evaluation_s) if self.evaluation_s else 1.0

    def of_epoch(self, model: str, macs: float) -> float:
        """Seconds of one epoch of a model. Without any training yet, an epoch is taken to cost as much as an evaluation."""
        if model in self.epoch_s:
            return self.epoch_s[model]
        scaled = [
            seconds * (macs / self.macs[name]) ** GROWTH_OF_TIME
            for name, seconds in self.epoch_s.items()
            if self.macs.get(name) and macs
        ]
        return median(scaled) if scaled else self.of_evaluation()


class Ladder:
    """The rungs of one study. ``lookup`` answers from the evidence, ``made`` says whether a variant's model is trained
    already. ``fixed`` are the indices of the objectives that do not depend on the values of weights."""

    def __init__(
        self,
        rungs: Rungs,
        *,
        fixed: Iterable[int],
        lookup: Callable[[Variant], Outcome | None],
        made: Callable[[Variant], bool],
        macs: Callable[[Variant], float],
        pace: Callable[[], Pace],
    ) -> None:
        self._rungs = rungs
        self._fixed = tuple(fixed)
        self._lookup = lookup
        self._made = made
        self._macs = macs
        self._pace = pace
        self._measured: dict[str, set[int]] = {}

    def told(self, variant: Variant, outcome: Outcome) -> None:
        """A variant has an outcome; its model counts as measured on its rung when it has a number."""
        if variant.recovery_epochs is not None and isinstance(outcome, Scored):
            self._measured.setdefault(_architecture(variant), set()).add(variant.recovery_epochs)

    def before(self, variant: Variant) -> Variant | None:
        """The variant that has to be evaluated before this one: a lower rung of it; None when it may be evaluated now."""
        below = self._rungs.below(variant)
        if below is None:
            return None
        lowest = self._rungs.lowest(variant)
        if self._lookup(lowest) is None:
            return lowest
        done = self._measured.get(_architecture(variant), set())
        return None if below.recovery_epochs in done else (self.before(below) or below)

    def hopeless(self, variant: Variant) -> bool:
        """Whether the variant could not be evaluated on the lowest rung: it is not trained."""
        if self._rungs.below(variant) is None:
            return False
        outcome = self._lookup(self._rungs.lowest(variant))
        return outcome is not None and not isinstance(outcome, Scored) and outcome.phase == "build"

    def exact(self, variant: Variant) -> Mapping[int, float]:
        """The objectives that the lowest rung has told for all of them."""
        if self._rungs.below(variant) is None:
            return {}
        outcome = self._lookup(self._rungs.lowest(variant))
        return {index: outcome.values[index] for index in self._fixed} if isinstance(outcome, Scored) else {}

    def cost_s(self, variant: Variant) -> float:
        """Expected seconds until the variant has an outcome, with every rung below that has yet to be evaluated."""
        pace = self._pace()
        total = 0.0
        at: Variant | None = variant
        while at is not None:
            total += self._own_cost_s(at, pace)
            at = self._rungs.below(at)
            if at is not None and at.recovery_epochs in self._measured.get(_architecture(at), set()):
                break
        return total

    def _own_cost_s(self, variant: Variant, pace: Pace) -> float:
        epochs = self._rungs.further_epochs(variant)
        training_s = 0.0
        if epochs and not self._made(variant):
            training_s = epochs * pace.of_epoch(_architecture(variant), self._macs(variant))
        return pace.of_evaluation() + training_s


def _architecture(variant: Variant) -> str:
    """Names the float network of a variant, whatever its target, precision, training and rung."""
    return replace(variant, training="", recovery_epochs=None).model_digest
