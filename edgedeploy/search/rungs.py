"""The rungs of recovery: how many epochs a changed architecture is trained in all, each from the model of the rung below.

One ladder per architecture and width, shared by all targets and precisions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from edgedeploy.records.variant import Scalar, Variant


@dataclass(frozen=True)
class Rungs:
    """``epochs`` are the values of ``recovery_epochs`` in a study's space, in rising order; without any, every
    architecture is recovered once, by the task's recipe."""

    epochs: tuple[int, ...] = ()

    @classmethod
    def of(cls, values: Iterable[Scalar]) -> Rungs:
        return cls(tuple(sorted(int(value) for value in values)))

    @property
    def middle(self) -> int:
        """Epochs of the rung in the middle: enough to tell what training gives, at a part of what all of it costs."""
        return self.epochs[len(self.epochs) // 2]

    def below(self, variant: Variant) -> Variant | None:
        """The same variant one rung further down; None on the lowest one, and for what is not recovered by rungs."""
        if variant.recovery_epochs is None:
            return None
        lower = [epochs for epochs in self.epochs if epochs < variant.recovery_epochs]
        return _after(variant, lower[-1]) if lower else None

    def lowest(self, variant: Variant) -> Variant:
        """The same variant on the lowest rung: it has the same size, memory and times."""
        return variant if variant.recovery_epochs is None else _after(variant, self.epochs[0])

    def further_epochs(self, variant: Variant) -> int | None:
        """How many epochs its model is trained from the rung below; None for those of the task's recipe."""
        if variant.recovery_epochs is None:
            return None
        below = self.below(variant)
        return variant.recovery_epochs - ((below.recovery_epochs or 0) if below else 0)


def _after(variant: Variant, epochs: int) -> Variant:
    """The variant after fewer epochs; without any, nothing starts from a wider model."""
    return replace(variant, recovery_epochs=epochs, from_wider=variant.from_wider and epochs > 0)


NO_RUNGS = Rungs()
