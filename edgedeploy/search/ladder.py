"""Measure first, train last: what a rung of recovery needs, what is known of it already, and what it costs.

Times, memory and size do not depend on the values of the weights. So a structure is measured once on the lowest rung, and a
higher rung is proposed with these values known: only its accuracy is open. A rung needs two things first:

- its own target and precision measured on the lowest rung: nothing is trained for a build that fails;
- its model measured on the rung below, in any target and precision: they share the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Final

from edgedeploy.records.variant import Variant
from edgedeploy.search.outcomes import NETWORK, Failed, Outcome, Scored
from edgedeploy.search.rungs import Rungs

GROWTH_OF_TIME = 0.8
"""An epoch takes time in proportion to this power of the multiply-accumulate operations: small layers keep a CPU less
busy. The power is assumed, and used only for architectures whose own epochs have not been timed."""

OF_LIKE_SIZE = 2.0
"""Networks whose parameters differ by less than this factor are taken to be alike in what training gives them."""

MOST_FOR_EXPLORING = 0.05
"""Share of the time left that may go into a training whose use is to tell what training gives."""


WHAT_TRAINING_GIVES: Final = "what training gives to a network of this size"

NO_LIMITS: Final[Mapping[str, float]] = {}


@dataclass(frozen=True)
class Pace:
    """What evaluations and trainings have taken so far: ``evaluation_s`` without any training (None: nothing was evaluated
    yet), ``epoch_s`` by architecture, and ``macs`` of these models."""

    evaluation_s: float | None = None
    epoch_s: Mapping[str, float] = field(default_factory=dict)
    macs: Mapping[str, float] = field(default_factory=dict)

    def of_evaluation(self) -> float:
        return self.evaluation_s or 1.0

    def of_epoch(self, name: str, macs: float) -> float:
        """Seconds of one epoch of an architecture. Without any training yet, an epoch is taken to cost as much as an
        evaluation."""
        if name in self.epoch_s:
            return self.epoch_s[name]
        scaled = [
            seconds * (macs / self.macs[other]) ** GROWTH_OF_TIME
            for other, seconds in self.epoch_s.items()
            if self.macs.get(other) and macs
        ]
        return median(scaled) if scaled else self.of_evaluation()


class Ladder:
    """The rungs of one study, which hears what happened to each variant. ``fixed`` are the indices of the objectives that
    do not depend on the values of weights; ``made`` says whether a variant's model lies there already, ``macs`` its
    multiply-accumulate operations, ``parameters`` how many it has, ``pace`` what was timed so far, ``left_s`` the seconds
    that the study has left. ``limits`` are the constraints that the values of weights do not change, each with the share of
    its bound by which a lowest rung may miss it and a higher one be tried all the same."""

    def __init__(
        self,
        rungs: Rungs,
        *,
        fixed: Iterable[int],
        macs: Callable[[Variant], float],
        parameters: Callable[[Variant], float] = lambda variant: 0.0,
        made: Callable[[Variant], bool] = lambda variant: False,
        pace: Callable[[], Pace] = Pace,
        left_s: Callable[[], float] = lambda: math.inf,
        limits: Mapping[str, float] = NO_LIMITS,
    ) -> None:
        self._rungs = rungs
        self._fixed = tuple(fixed)
        self._macs = macs
        self._parameters = parameters
        self._is_made = made
        self._paces = pace
        self._pace = Pace()
        self._left_s = left_s
        self._limits = limits
        self._outcomes: dict[str, Outcome] = {}
        self._climbed: dict[str, set[int]] = {}
        self._trained_sizes: list[float] = []
        self._names: dict[str, str] = {}

    def told(self, variant: Variant, outcome: Outcome) -> None:
        """A variant has an outcome; its model counts as measured on its rung when it has a number."""
        self._pace = self._paces()
        self._outcomes[variant.digest] = outcome
        if variant.recovery_epochs is not None and isinstance(outcome, Scored):
            self._climbed.setdefault(self._architecture(variant), set()).add(variant.recovery_epochs)
            if variant.recovery_epochs >= self._rungs.middle:
                self._trained_sizes.append(self._parameters(variant))

    def before(self, variant: Variant) -> Variant | None:
        """The variant that has to be evaluated before this one: a lower rung of it; None when it may be evaluated now."""
        below = self._rungs.below(variant)
        if below is None:
            return None
        lowest = self._rungs.lowest(variant)
        if lowest.digest not in self._outcomes:
            return lowest
        return None if self._is_climbed(below) else (self.before(below) or below)

    def left_out(self, variant: Variant) -> str:
        """Why the variant is not to be evaluated; empty when it may. Its lowest rung could not be built or misses a limit
        by what it is and not by what it answers, or what it takes is more than the study has left."""
        if self._rungs.below(variant) is None:
            return ""
        outcome = self._outcomes.get(self._rungs.lowest(variant).digest)
        if isinstance(outcome, Scored) and any(
            outcome.constraints.get(name, 0.0) > most for name, most in self._limits.items()
        ):
            return "it misses a limit that training does not change"
        if isinstance(outcome, Failed) and outcome.phase in ("build", NETWORK):
            return "it cannot be built"
        left_s = self._left_s()
        return "" if left_s == math.inf or self.cost_s(variant) <= left_s else "the time does not suffice"

    def explores(self, variant: Variant) -> str:
        """:data:`WHAT_TRAINING_GIVES` where a training to the middle rung is due: no network of about this size was trained
        so far, and it costs a small share of the time left. What training gives to one size says little of another: a
        network that answers nothing after half of its channels were cut may answer as well as the whole one after a few
        epochs. Else empty."""
        size = self._parameters(variant)
        due = (
            self._rungs.below(variant) is not None
            and variant.recovery_epochs == self._rungs.middle
            and size > 0
            and not any(size / OF_LIKE_SIZE < other < size * OF_LIKE_SIZE for other in self._trained_sizes)
            and self.cost_s(variant) <= MOST_FOR_EXPLORING * self._left_s()
        )
        return WHAT_TRAINING_GIVES if due else ""

    def exact(self, variant: Variant) -> Mapping[int, float]:
        """The objectives that the lowest rung has told for all of them."""
        if self._rungs.below(variant) is None:
            return {}
        outcome = self._outcomes.get(self._rungs.lowest(variant).digest)
        return {index: outcome.values[index] for index in self._fixed} if isinstance(outcome, Scored) else {}

    def cost_s(self, variant: Variant) -> float:
        """Expected seconds until the variant has an outcome, with every rung below that has yet to be evaluated."""
        total, at = self._own_cost_s(variant), self._rungs.below(variant)
        while at is not None and not self._is_climbed(at):
            total += self._own_cost_s(at)
            at = self._rungs.below(at)
        return total

    def _own_cost_s(self, variant: Variant) -> float:
        epochs = self._rungs.further_epochs(variant)
        if not epochs or self._is_climbed(variant) or self._is_made(variant):
            return self._pace.of_evaluation()
        return self._pace.of_evaluation() + epochs * self._pace.of_epoch(
            self._architecture(variant), self._macs(variant)
        )

    def _is_climbed(self, variant: Variant) -> bool:
        return variant.recovery_epochs in self._climbed.get(self._architecture(variant), ())

    def _architecture(self, variant: Variant) -> str:
        if variant.digest not in self._names:
            self._names[variant.digest] = architecture_of(variant)
        return self._names[variant.digest]


def architecture_of(variant: Variant) -> str:
    """Names the float network of a variant, whatever its target, precision, training and rung."""
    return replace(variant, training="", recovery_epochs=None, from_wider=False).model_digest
