"""When a run has to give up on a machine that is too busy for numbers, instead of spending its time on invalid runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edgedeploy.errors import Unstable
from edgedeploy.search.loop import Failed, Outcome

FIRST_IN_A_ROW: Final = 2
"""Variants without a valid run that end a study in which nothing was valid yet, the baseline least of all."""

LATER_IN_A_ROW: Final = 4
"""The same once something was valid: the machine was quiet before, and may be again."""

SHARE_AT_FIRST: Final = 0.25
"""Of the study's time: when the first variant alone has taken so much without a valid run, a second one is not tried."""


@dataclass
class Steadiness:
    """Counts variants of which no run was valid, each after its repeats (``retries`` in ``[measure]``). ``measured`` says
    whether the study's folder held a valid measurement before."""

    measured: bool
    in_a_row: int = 0

    def note(self, outcome: Outcome, spent_share: float) -> None:
        """Take in an outcome; ``spent_share`` is the share of the study's time that is gone. Raises ``Unstable`` when the
        machine shows no sign of becoming quiet."""
        if not isinstance(outcome, Failed) or outcome.kind != Unstable.__name__:
            self.measured = self.measured or not isinstance(outcome, Failed)
            self.in_a_row = 0
            return
        self.in_a_row += 1
        early = not self.measured and spent_share >= SHARE_AT_FIRST
        if self.in_a_row >= (LATER_IN_A_ROW if self.measured else FIRST_IN_A_ROW) or early:
            raise Unstable(
                "measure on this board",
                f"of {_variants(self.in_a_row)} no run was valid, the last because {outcome.message}",
                "Then go on with --resume: what was measured is kept, and these are tried again",
            )


def _variants(count: int) -> str:
    return "one variant" if count == 1 else f"{count} variants in a row"
