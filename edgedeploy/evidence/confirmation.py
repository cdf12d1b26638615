"""What the confirmation split says of the pick, and the order of candidates that was fixed before it was opened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edgedeploy.evidence.pick import Judged
from edgedeploy.records.goals import Rules

Outcome = Literal["confirmed", "not confirmed", "not opened", "no number", "another was first"]


@dataclass(frozen=True)
class Confirmation:
    """- ``outcome``: ``no number`` when the split was opened and the pick has no valid measurement on it; ``another was
      first`` when the order that was fixed before the split was opened begins with another variant.
    - ``judged``: the pick by itself against the baseline on these cases: nothing is corrected for, as it was chosen
      before.
    - ``order``: candidates, cheapest first, as fixed before the first opening at ``fixed_utc``; empty where that is not
      in the log. ``intact``: the log's hash is that of this order and of the study's rules.
    - ``next``: who follows the pick in the order. It is named only: what one opening has shown of it confirms nothing.
    - ``openings``: how often the split was opened. Going on with an opening that was cut off, in the same order, is the
      same.
    """

    outcome: Outcome
    judged: Judged | None = None
    order: tuple[str, ...] = ()
    fixed_utc: str = ""
    intact: bool = False
    next: str | None = None
    openings: int = 0

    def as_json(self) -> dict[str, Any]:
        return {
            "outcome": self.outcome,
            "judged": self.judged.as_json() if self.judged else None,
            "order": list(self.order),
            "fixed_utc": self.fixed_utc,
            "intact": self.intact,
            "next": self.next,
            "openings": self.openings,
        }


def order_sha256(order: Sequence[str], rules: Rules) -> str:
    """Of an order of candidates and of the rules that it was made by."""
    text = json.dumps({"order": list(order), "rules": rules.as_json()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
