"""When a search has found what there is: no untried variant is expected to raise the front's hypervolume by enough, or to
meet a limit that all others miss."""

from __future__ import annotations

from typing import Final

from edgedeploy.search.codesign import STARTUP

IN_A_ROW: Final = 3
"""Proposals without a promise before a search ends: one more outcome may change what is expected of all the rest."""

LEAST_OUTCOMES: Final = 2 * STARTUP
"""With fewer, the surrogates say little of what they have not seen."""


class Stopping:
    """``least_gain`` is a share of the front's hypervolume; 0 never ends a search. Decided by the history of proposals
    alone, so that a search that was killed and goes on decides as an undisturbed one."""

    def __init__(self, least_gain: float) -> None:
        self._least_gain = least_gain
        self._gains: list[float] = []
        self._unreachable: list[str] = []

    def begun(self, best_gain: float | None, unreachable: str = "") -> None:
        """A proposal was begun, when the best untried variant promised ``best_gain``; None when nothing was predicted.
        ``unreachable`` is the constraint that none was expected to meet."""
        if best_gain is not None:
            self._gains.append(best_gain)
            self._unreachable.append(unreachable)

    def given_up(self, unreachable: str, outcomes: int) -> bool:
        """Whether the proposal at hand is not to be begun, because ``unreachable`` was so before."""
        last = [*self._unreachable[1 - IN_A_ROW :], unreachable]
        return outcomes >= LEAST_OUTCOMES and last == [unreachable] * IN_A_ROW and bool(unreachable)

    def is_over(self, best_gain: float | None, outcomes: int) -> bool:
        """Whether the proposal at hand, for which the best untried variant promises ``best_gain``, is not to be begun."""
        if best_gain is None or outcomes < LEAST_OUTCOMES:
            return False
        last = [*self._gains[1 - IN_A_ROW :], best_gain]
        return len(last) == IN_A_ROW and max(last) < self._least_gain
