"""What is certain of candidates without an evaluation: values of objectives that hang on no training, and their work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from edgedeploy.search.candidates import Candidates
from edgedeploy.search.improvement import MOST_OBJECTIVES
from edgedeploy.search.knowledge import Knowledge
from edgedeploy.search.outcomes import Outcome, Scored
from edgedeploy.search.surrogate import Floats

TURN: Final = 10
"""Where no times are known beforehand, one proposal in so many weighs the work too. What computes least is tried so, however
slow a surrogate thinks it is; without that one of fifty searches on a public table ended at .81 of the true front, and the
next at .94 (docs/reference/search.md)."""


class Certain:
    """Of each candidate the values that are known of what is weighed: the objectives that somebody ``asked`` for and, where
    there is room for one more, multiply-accumulates as the last one. They count at each proposal where ``more_boards``
    follow, else at one in :data:`TURN` of those of a search that knows no value beforehand. Of what they are not known they
    are taken to be the most that are.

    What was certain stays so. ``signs`` are -1 for what is to be large, one for each objective that was asked for; those of
    :attr:`signs` are of all that is weighed.
    """

    def __init__(self, signs: Sequence[float], knowledge: Knowledge, more_boards: bool) -> None:
        self.asked = len(signs)
        has_room = self.asked < MOST_OBJECTIVES
        self._in_turn = has_room and not more_boards and not knowledge.has_exact
        self._weighs_work = has_room and (more_boards or self._in_turn)
        self.signs: Floats = np.array([*signs, 1.0] if self._weighs_work else signs)
        self.always = self.asked if self._in_turn else len(self.signs)
        """So many of :attr:`signs`, the first ones, count at each proposal."""
        self.values: Floats = np.zeros((0, len(self.signs)))
        """In their units, NaN for what is not known; shape (candidates, weighed)."""
        self._knowledge = knowledge
        self._work_of: Floats = np.zeros(0)

    def learn(self, candidates: Candidates) -> None:
        """Ask for what is certain by now of candidates of which nothing was."""
        more = np.full((len(candidates) - len(self.values), len(self.signs)), np.nan)
        self.values = np.concatenate([self.values, more])
        if self._knowledge.has_exact:
            for row in np.flatnonzero(np.isnan(self._of_asked).all(axis=1)):
                for index, value in self._knowledge.exact(candidates.variants[int(row)]).items():
                    self.values[row, index] = value
        if self._weighs_work:
            self.values[:, -1] = self._work(candidates)

    def known_rows(self) -> list[int]:
        """Candidates of which an objective that was asked for is known."""
        return [int(row) for row in np.flatnonzero(np.isfinite(self._of_asked).any(axis=1))]

    def wholly(self, count: int) -> dict[int, Floats]:
        """Values, by index, of what is certain of each of ``count`` candidates; none while there are some that nobody has
        asked for."""
        if not count or len(self.values) != count:
            return {}
        return {index: values for index, values in enumerate(self.values.T) if np.all(np.isfinite(values))}

    def wholly_asked(self, count: int) -> dict[int, Floats]:
        """The same without the work."""
        return {index: values for index, values in self.wholly(count).items() if self.was_asked(index)}

    def is_turn_of_work(self, told: int) -> bool:
        """Whether the proposal after ``told`` outcomes weighs the work beside what counts at each."""
        return self._in_turn and told % TURN == TURN - 1

    def was_asked(self, index: int) -> bool:
        """Whether it is an objective, and not the work that is weighed beside them."""
        return index < self.asked

    def with_work(self, candidates: Candidates, row: int, outcome: Outcome) -> Outcome:
        """With the candidate's work as one more value, where that is weighed."""
        if not self._weighs_work or not isinstance(outcome, Scored):
            return outcome
        variances = (*outcome.variances, 0.0) if outcome.variances else ()
        return replace(outcome, values=(*outcome.values, float(self._work(candidates)[row])), variances=variances)

    def log_work(self, candidates: Candidates) -> Floats:
        """Logarithms of every candidate's multiply-accumulates, NaN where they are unknown."""
        if len(self._work_of) != len(candidates):
            self._work_of = candidates.work()
        return self._work_of

    @property
    def _of_asked(self) -> Floats:
        return self.values[:, : self.asked]

    def _work(self, candidates: Candidates) -> Floats:
        logarithms = self.log_work(candidates)
        return np.exp(np.nan_to_num(logarithms, nan=np.nanmax(logarithms, initial=0.0)))
