"""Estimates how long a study will still take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """What a run has done so far: ``outcomes`` variants took ``spent_s``.

    ``once_s`` of it went into work that is done once (the baseline's training), ``current_s`` into the running
    training. ``training_left_s`` is that training's remaining time (None: unknown, or no training is running).
    """

    outcomes: int
    spent_s: float
    once_s: float = 0.0
    current_s: float = 0.0
    training_left_s: float | None = None


@dataclass(frozen=True)
class Eta:
    """``at_least``: this is a lower bound, because no variant has an outcome yet whose time could be used."""

    seconds: float
    at_least: bool = False


def eta(pace: Pace, *, to_do: int, budget_left_s: float) -> Eta | None:
    """Time for ``to_do`` variants without an outcome, including the current one; at most ``budget_left_s``. None
    without any outcome or any training with a known pace.

    The remaining training is added to the mean time of an outcome for every variant. The current training belongs to
    the next outcome, so the estimate is rather too long than too short.
    """
    left_s = pace.training_left_s or 0.0
    if pace.outcomes:
        each_s = max(0.0, pace.spent_s - pace.once_s - pace.current_s) / pace.outcomes
        return Eta(max(0.0, min(left_s + each_s * to_do, budget_left_s)))
    if pace.training_left_s is None:
        return None
    return Eta(max(0.0, min(left_s, budget_left_s)), at_least=to_do > 0)
