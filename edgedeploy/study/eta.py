"""How long a study will still take, as far as it can be told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """What a run has done so far. ``outcomes`` variants took ``spent_s``, of which ``once_s`` went into what no other one
    needs again (the baseline's training) and ``current_s`` into the training that is under way, if one is; it has
    ``training_left_s`` to go (None: not known, or none is)."""

    outcomes: int
    spent_s: float
    once_s: float = 0.0
    current_s: float = 0.0
    training_left_s: float | None = None


@dataclass(frozen=True)
class Eta:
    """``at_least``: what is known takes so long, and what no outcome has told yet comes on top."""

    seconds: float
    at_least: bool = False


def eta(pace: Pace, *, to_do: int, budget_left_s: float) -> Eta | None:
    """Of ``to_do`` variants that have no outcome yet, the one under way included; never more than the budget of time that is
    left. None when nothing is known: no outcome, and no training that has a pace.

    The rest of the training counts by itself, and the pace of outcomes for every variant: a training under way is the next
    outcome's, so this is on the careful side.
    """
    left_s = pace.training_left_s or 0.0
    if pace.outcomes:
        each_s = max(0.0, pace.spent_s - pace.once_s - pace.current_s) / pace.outcomes
        return Eta(max(0.0, min(left_s + each_s * to_do, budget_left_s)))
    if pace.training_left_s is None:
        return None
    return Eta(max(0.0, min(left_s, budget_left_s)), at_least=to_do > 0)
