"""Which variant of a study becomes the bundle, and what the study's rules say of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from edgedeploy.errors import GoalNotMet
from edgedeploy.evidence.front import Front, Row
from edgedeploy.evidence.pick import Judged
from edgedeploy.evidence.reasons import nothing_text, rules_text, what_is_missing
from edgedeploy.records.measurement import Measurement
from edgedeploy.study.front import read_measurement
from edgedeploy.study.store import Store

PICK: Final = "pick"
"""The word for the study's own pick, in the place of a digest."""

_AGAINST: Final = {
    "not confirmed": "The confirmation split does not show it.",
    "another was first": "The order of candidates that was fixed before the confirmation split was opened begins otherwise.",
}


@dataclass(frozen=True)
class Choice:
    """``judged`` is what the study's rules say of the variant, None where nothing could be held against anything; ``text``
    says it for people. ``picked``: it is the study's own pick, and the confirmation split does not speak against it."""

    measurement: Measurement
    row: Row
    picked: bool
    judged: Judged | None
    text: str
    rules: str

    @property
    def word(self) -> str:
        return self.judged.word if self.judged else "no verdict"

    @property
    def warned(self) -> bool:
        """Whether a reader has to know first of all that it is not shown to be as good as the baseline."""
        return self.word not in ("non-inferior", "baseline") or not self.text.startswith(_SHOWN)

    def as_json(self) -> dict[str, Any]:
        return {
            "word": self.word,
            "text": self.text,
            "rules": self.rules,
            "picked_by_rule": self.picked,
            "judged": _anonymous(self.judged) if self.judged else None,
        }


def _anonymous(judged: Judged) -> dict[str, Any]:
    """Without the ids of cases, which may name patients."""
    found = judged.as_json()
    lost = found["lost_cases"]
    if lost is None:
        return found
    told = {key: value for key, value in lost.items() if key not in ("lost", "worst_case", "worst_group")}
    return {**found, "lost_cases": {**told, "lost": len(lost["lost"])}}


_SHOWN: Final = "Shown"
_BASELINE: Final = f"{_SHOWN} to be as good as the float baseline: it is that baseline."


def chosen(store: Store, front: Front, wanted: str) -> Choice:
    """The variant whose digest begins with ``wanted``, or the study's pick. Raises ``GoalNotMet`` where the study picks
    none, or its confirmation split speaks against it, and ``SpecError`` for a digest that is not one variant's."""
    if wanted == PICK and (front.pick is None or not front.fit_to_ship):
        remedy = "Name the variant that is to be shipped all the same: --variant DIGEST, of `edgedeploy front --json`"
        raise GoalNotMet(f"the pick of {store.root}", _why_none(front), remedy)
    found = read_measurement(store.root, front.pick.digest if wanted == PICK and front.pick else wanted)
    row = front.row(found.digest)
    assert row is not None  # every valid measurement is a row
    is_pick = front.pick is not None and front.pick.digest == found.digest
    judged = front.decision.judged.get(found.digest)
    rules = rules_text(front.decision.rules, front.metrics)
    text = _text(front, judged, _against(front) if is_pick else "")
    return Choice(found, row, is_pick and front.fit_to_ship, judged, text, rules)


def _why_none(front: Front) -> str:
    if front.pick is not None:
        return f"{front.pick.digest} is not fit to ship. {_against(front)}".rstrip(".")
    nearest = front.decision.judged.get(front.decision.nearest or "")
    near = f" ({nearest.digest}). {what_is_missing(nearest, front.metrics)}".rstrip(".") if nearest else ""
    return f"the study has none: {' '.join(front.explanation()).rstrip('.') or _nothing(front)}{near}"


def _nothing(front: Front) -> str:
    return nothing_text(front.decision, front.labels)


def _against(front: Front) -> str:
    return _AGAINST.get(front.confirmation.outcome, "") if front.confirmation else ""


def _text(front: Front, judged: Judged | None, against: str) -> str:
    if judged is not None and judged.word == "baseline":
        return _BASELINE
    if judged is not None and judged.shown and not against:
        rules = rules_text(front.decision.rules, front.metrics)
        return f"{_SHOWN} to be as good as the float baseline by the study's rules: {rules[:1].lower()}{rules[1:]}"
    missing = what_is_missing(judged, front.metrics) if judged else f"Nothing was judged: {_nothing(front)}."
    return f"NOT shown to be as good as the float baseline. {against or missing}"
