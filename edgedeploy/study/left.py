"""What a search with rungs of recovery trained further, and why (``promoted.json``), and what it did not try, and why
(``not-tried.json``, written anew after each run).

Values in both are predicted. Nothing reads them but a report, and none of them is on a front. A run that is cut leaves no
list of what was not tried.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgedeploy.errors import DataError
from edgedeploy.files import write_json
from edgedeploy.records.variant import Variant
from edgedeploy.runtime.wire.serde import from_json
from edgedeploy.search.beliefs import Belief, Left
from edgedeploy.search.space import ENUMERATION_LIMIT, Space
from edgedeploy.spec.study import StudySpec
from edgedeploy.study.layout import NOT_TRIED, PROMOTED
from edgedeploy.study.reading import read_record
from edgedeploy.study.store import Store

MOST: Final = 60
"""Variants that are written down; the most promising ones."""

REMEDY: Final = "Remove it: the next run writes it anew"


@dataclass(frozen=True)
class NotTried:
    """A variant by its label, with the predicted values of the objectives and the reason."""

    label: str
    reason: str
    expected: Mapping[str, float]
    optimistic: Mapping[str, float]
    gain: float | None
    cost_s: float | None


@dataclass(frozen=True)
class Promotion:
    """A variant by its digest and label that was trained further, and why, with what was predicted then."""

    digest: str
    label: str
    reason: str


def keep_promotion(store: Store, spec: StudySpec, variant: Variant, belief: Belief | None) -> str:
    """Write down why a variant is trained further, beside those of before; a line about it. A damaged file is begun anew."""
    try:
        before = [item for item in kept_promotions(store) if item.digest != variant.digest]
    except DataError:
        before = []
    reason = _reason(spec, variant, belief)
    kept = [*before, Promotion(variant.digest, variant.label, reason)]
    write_json(store.root / PROMOTED, {"provenance": "predicted", "promoted": [vars(item) for item in kept]})
    return f"{variant.label}: {reason}"


def kept_promotions(store: Store) -> tuple[Promotion, ...]:
    """What was trained further in all runs, in order. Raises ``DataError`` for a damaged file."""
    path = store.root / PROMOTED
    if not path.exists():
        return ()
    return read_record(path, lambda data: tuple(from_json(Promotion, item) for item in data["promoted"]), REMEDY)


def _reason(spec: StudySpec, variant: Variant, belief: Belief | None) -> str:
    epochs = f"{variant.recovery_epochs} epoch{'s' if variant.recovery_epochs != 1 else ''}"
    if belief is None:
        return f"{epochs}, drawn by {spec.search.sampler} without a prediction"
    goal = next((i for i, one in enumerate(spec.objectives) if one.metric in _open_metrics(spec, belief)), 0)
    cost = "" if belief.cost_s is None else f", for about {belief.cost_s:.0f} s"
    predicted = f"predicted to be {belief.expected[goal]:.4g}, at best {belief.optimistic[goal]:.4g}"
    metric = spec.objectives[goal].metric
    if belief.explores:
        return f"{epochs}, to tell {belief.explores}: {metric} is {predicted}{cost}"
    worth = "and nothing is on the front yet" if belief.gain is None else f"{belief.gain:.2%} of the front's volume"
    return f"{epochs}, because {metric} is {predicted}: {worth}{cost}"


def _open_metrics(spec: StudySpec, belief: Belief) -> set[str]:
    """Objectives that are not known yet."""
    pairs = zip(spec.objectives, belief.expected, belief.optimistic, strict=True)
    return {goal.metric for goal, expected, best in pairs if expected != best}


def keep_left(store: Store, spec: StudySpec, left: Sequence[Left]) -> str | None:
    """Write down the most promising of what was not tried; a line about it, None when there is nothing."""
    path = store.root / NOT_TRIED
    if not left:
        path.unlink(missing_ok=True)
        return None
    names = [goal.metric for goal in spec.objectives]
    write_json(path, {"provenance": "predicted", "not_tried": [_as_json(item, names) for item in left[:MOST]]})
    reasons = {item.reason: 0 for item in left}
    for item in left:
        reasons[item.reason] += 1
    told = "; ".join(f"{count} because {reason}" for reason, count in reasons.items())
    return f"{len(left)} rungs were not tried: {told}. {NOT_TRIED} has what is predicted of them"


def left_out_line(
    space: Space, left_out: Callable[[Variant], str], tried: Collection[str], *, most: int = ENUMERATION_LIMIT
) -> str | None:
    """What a search that found nothing more to try never proposes, and why; None where that is nothing, or where the space
    has more than ``most`` combinations. ``tried`` are digests."""
    if space.size() > most:
        return None
    variants = {variant.digest: variant for variant in map(space.variant, filter(space.allows, space.combinations()))}
    reasons = Counter(left_out(variant) for digest, variant in variants.items() if digest not in tried)
    del reasons[""]
    if not reasons:
        return None
    told = "; ".join(f"{count} because {reason}" for reason, count in reasons.items())
    return f"nothing is left to try: {reasons.total()} variants are left out, {told}"


def kept_left(store: Store) -> tuple[NotTried, ...]:
    """What the last run did not try; empty when it noted nothing. Raises ``DataError`` for a damaged file."""
    path = store.root / NOT_TRIED
    if not path.exists():
        return ()
    return read_record(path, lambda data: tuple(_from_json(item) for item in data["not_tried"][:MOST]), REMEDY)


def _as_json(left: Left, names: Sequence[str]) -> dict[str, Any]:
    belief = left.belief
    return {
        "variant": left.variant.as_json(),
        "label": left.variant.label,
        "reason": left.reason,
        "expected": dict(zip(names, belief.expected, strict=True)),
        "optimistic": dict(zip(names, belief.optimistic, strict=True)),
        "gain": belief.gain,
        "cost_s": belief.cost_s,
    }


def _from_json(data: Mapping[str, Any]) -> NotTried:
    cost_s = data["cost_s"]
    return NotTried(
        label=str(data["label"]),
        reason=str(data["reason"]),
        expected={str(name): float(value) for name, value in data["expected"].items()},
        optimistic={str(name): float(value) for name, value in data["optimistic"].items()},
        gain=None if data["gain"] is None else float(data["gain"]),
        cost_s=None if cost_s is None else float(cost_s),
    )
