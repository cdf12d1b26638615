"""Which variant of a study becomes the bundle, and what the study's rule says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from edgedeploy.errors import GoalNotMet
from edgedeploy.evidence.bootstrap import Comparison, Resampler
from edgedeploy.evidence.front import Front, Row
from edgedeploy.evidence.pick import accuracy_objective
from edgedeploy.evidence.quantities import comparison_text, phrase, quantity
from edgedeploy.records.measurement import Measurement
from edgedeploy.spec.goals import margin_of
from edgedeploy.spec.study import StudySpec
from edgedeploy.study.front import read_measurement
from edgedeploy.study.store import Store

PICK: Final = "pick"
"""The word for the study's own pick, in the place of a digest."""


@dataclass(frozen=True)
class Choice:
    """``word``: ``non-inferior``, ``not shown``, ``no verdict`` or ``baseline``; ``text`` says it for people. ``picked``:
    it is the study's own pick."""

    measurement: Measurement
    row: Row
    picked: bool
    word: str
    text: str
    comparison: Comparison | None
    margin: float | None

    @property
    def warned(self) -> bool:
        """Whether a reader has to know first of all that it is not shown to be as good as the baseline."""
        return self.word not in ("non-inferior", "baseline")

    def as_json(self) -> dict[str, Any]:
        return {
            "word": self.word,
            "text": self.text,
            "picked_by_rule": self.picked,
            "margin": self.margin,
            "comparison": self.comparison.as_json() if self.comparison else None,
        }


def chosen(store: Store, spec: StudySpec, front: Front, wanted: str) -> Choice:
    """The variant whose digest begins with ``wanted``, or the study's pick. Raises ``GoalNotMet`` where the study picks
    none, and ``SpecError`` for a digest that is not one variant's."""
    shown = front.pick is not None and front.pick.non_inferior is not False
    if wanted == PICK and (front.pick is None or not shown):
        why = " ".join(front.explanation()).rstrip(".") or (front.pick.reason if front.pick else "nothing is measured")
        remedy = "Name the variant that is to be shipped all the same: --pick DIGEST, of `edgedeploy front --json`"
        raise GoalNotMet(f"the pick of {store.root}", f"the study has none: {why}", remedy)
    digest = front.pick.digest if wanted == PICK and front.pick else wanted
    found = read_measurement(store.root, digest)
    row = front.row(found.digest)
    assert row is not None  # every valid measurement is a row
    picked = front.pick is not None and shown and front.pick.digest == found.digest
    return _held(store, spec, front, found, row, picked)


def _held(store: Store, spec: StudySpec, front: Front, found: Measurement, row: Row, picked: bool) -> Choice:
    """``found`` against the float baseline by the study's margin."""
    goal = accuracy_objective(front.objectives)
    reference = store.measurement(front.reference) if front.reference else None
    if reference is not None and reference.digest == found.digest:
        return Choice(found, row, picked, "baseline", "It is the float baseline itself.", None, None)
    if goal is None or reference is None or not {goal.metric} <= {*reference.metrics} & {*found.metrics}:
        text = "Nothing says how it compares with the float baseline: the study has no metric of both."
        return Choice(found, row, picked, "no verdict", text, None, None)
    margin = margin_of(spec, front.metrics)
    compared = Resampler(front.seed, front.resamples).compare(found, reference, goal)
    unit = front.unit(goal.metric)
    is_shown = compared.shows_at_least(-margin)
    said = (
        f"{phrase(goal.metric)} against the float baseline: {comparison_text(compared, unit)}, {compared.units} cases"
    )
    allowed = f"the study allows a loss of {quantity(margin, goal.metric, unit)}"
    text = f"{'Shown' if is_shown else 'NOT shown'} to be as good as the float baseline: {allowed}; {said}."
    return Choice(found, row, picked, "non-inferior" if is_shown else "not shown", text, compared, margin)
