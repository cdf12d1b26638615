"""Which variant to ship, by rules that the study states before anybody looks at the numbers.

Non-inferiority: of all measured variants that meet the limits, those that are *shown* to lose no more than the study's
margins against the float baseline, and no more cases than may be lost; of these, the cheapest. None shown: no pick, and
what came nearest, by how much it misses, and how many cases would decide it. No margin stated: no verdict.

What is compared, and counted by Holm's steps, are the variants that cost less than the baseline, each set of
differences once: variants that answer alike (other threads) are one question. The bound on lost cases is not corrected
for how many were compared: the picked variant is held against both on the confirmation split, alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from edgedeploy.evidence.bootstrap import LEVEL, MIN_UNITS, Comparison, Resampler, paired_gains
from edgedeploy.evidence.noninferiority import Differences, LostCases, holm_levels, lost_cases
from edgedeploy.evidence.quantities import phrase
from edgedeploy.records.goals import NO_RULES, Margin, Objective, Rules
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metric_table import BOARD_METRICS, is_relative

Word = Literal["non-inferior", "inferior", "not shown", "no verdict", "baseline"]
Outcome = Literal[
    "picked", "none shown", "nothing cheaper", "no margin", "no baseline", "no task objective", "no variant"
]


@dataclass(frozen=True)
class Endpoint:
    """One metric's average against the baseline. The bounds of ``comparison`` are of the level at which the variant is
    judged; ``margin`` is what may be lost. ``cases_wanted``: about how many cases would show it, None where more will
    not."""

    comparison: Comparison
    margin: float
    cases_wanted: int | None

    @property
    def shown(self) -> bool:
        return self.comparison.shows_at_least(-self.margin)

    @property
    def missed_by(self) -> float:
        """How much too large the bounded loss is, in the metric's unit; infinite without a bound, 0 where it is
        shown."""
        return (
            0.0 if self.shown else math.inf if self.comparison.lower is None else -self.comparison.lower - self.margin
        )

    def as_json(self) -> dict[str, Any]:
        return {
            **self.comparison.as_json(),
            "margin": self.margin,
            "shown": self.shown,
            "cases_wanted": self.cases_wanted,
        }


@dataclass(frozen=True)
class Judged:
    """A variant held against the baseline by the study's rules.

    ``level`` is that of the bounds on averages, Holm's steps taken into account. ``compared``: it was a candidate for
    the pick. ``why`` says why there is no verdict.
    """

    digest: str
    word: Word
    level: float = LEVEL
    compared: bool = False
    endpoints: tuple[Endpoint, ...] = ()
    lost: LostCases | None = None
    why: str = ""

    @property
    def shown(self) -> bool:
        return self.word == "non-inferior"

    @property
    def cases_wanted(self) -> int | None:
        """About how many cases would show it, if all stays as it is; None where more will not, and without a
        verdict."""
        wanted = [item.cases_wanted for item in self.endpoints] + ([self.lost.cases_wanted()] if self.lost else [])
        known = [count for count in wanted if count is not None]
        return max(known) if known and len(known) == len(wanted) and self.word != "no verdict" else None

    @property
    def missed_by(self) -> float:
        """The largest miss on an average, as a share of its margin."""
        return max((item.missed_by / (item.margin or 1.0) for item in self.endpoints), default=math.inf)

    def as_json(self) -> dict[str, Any]:
        return {
            "word": self.word,
            "level": self.level,
            "compared": self.compared,
            "endpoints": [item.as_json() for item in self.endpoints],
            "lost_cases": self.lost.as_json() if self.lost else None,
            "cases_wanted": self.cases_wanted,
            "why": self.why,
        }


@dataclass(frozen=True)
class Pick:
    """The variant to ship: ``reason`` is the rule's outcome in words, ``accuracy`` its comparison on the first margin's
    metric, ``judged`` all of its evidence."""

    digest: str
    reason: str
    accuracy: Comparison
    margin: float
    judged: Judged

    def __str__(self) -> str:
        return f"{self.digest}: {self.reason}"

    def as_json(self) -> dict[str, Any]:
        return {
            "digest": self.digest,
            "reason": self.reason,
            "non_inferior": True,
            "accuracy": self.accuracy.as_json(),
            "margin": self.margin,
        }


@dataclass(frozen=True)
class Decision:
    """What the evidence allows to be said of shipping anything in the baseline's place.

    - ``outcome``: in a word; ``rules`` are what the study stated.
    - ``judged``: by digest, every variant that meets the limits; empty where nothing could be held against anything.
    - ``order``: the variants that are shown, cheapest first; the first one is the pick. It is fixed before the
      confirmation split is opened.
    - ``nearest``: where none is shown, the compared variant that fewest further cases would decide.
    - ``featured``: what a report shows in detail: the pick, else the nearest, else the front's best on accuracy.
    - ``compared``: how many variants were candidates, ``questions`` how many differ in their answers (Holm's count).
    - ``groups``: how many groups the cases are of; None where the task names none.
    """

    outcome: Outcome
    rules: Rules = NO_RULES
    judged: Mapping[str, Judged] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    nearest: str | None = None
    featured: str | None = None
    compared: int = 0
    questions: int = 0
    groups: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Without what was judged, which is with the rows."""
        return {
            "outcome": self.outcome,
            "rules": self.rules.as_json(),
            "order": list(self.order),
            "nearest": self.nearest,
            "featured": self.featured,
            "compared": self.compared,
            "questions": self.questions,
            "groups": self.groups,
        }


NOTHING: Final = Decision("no variant")


@dataclass(frozen=True, eq=False)
class Held:
    """A measurement held against the baseline, before it is known how many others are. ``p_value`` is that of its
    averages, None without a verdict, and ``why`` says why."""

    item: Measurement
    differences: tuple[Differences | None, ...] = ()
    lost: LostCases | None = None
    p_value: float | None = None
    why: str = ""

    @property
    def question(self) -> str:
        """The same for variants that answer alike."""
        parts = hashlib.sha256()
        for found in self.differences:
            assert found is not None
            parts.update(repr(found.value).encode())
            parts.update((found.draws if found.units is None else found.units).tobytes())
        return parts.hexdigest()


def accuracy_objective(objectives: Sequence[Objective]) -> Objective | None:
    """The first objective that belongs to the task; None when all of them are costs."""
    return next((goal for goal in objectives if goal.metric not in BOARD_METRICS), None)


def cost_objective(objectives: Sequence[Objective]) -> Objective | None:
    """The first objective that is measured on the board; None when all of them belong to the task."""
    return next((goal for goal in objectives if goal.metric in BOARD_METRICS), None)


def hold(item: Measurement, reference: Measurement | None, rules: Rules, resampler: Resampler) -> Held:
    """``item`` against the baseline on each endpoint of the study; as it is where nothing can be held against
    anything."""
    if reference is None or not _has_margins(reference, rules):
        return Held(item)
    lost = _lost(item, reference, rules)
    missing = [margin.objective.metric for margin in rules.margins if margin.objective.metric not in item.metrics]
    if lost is None and rules.lost and _undefined(item, reference, rules.lost.objective.metric):
        missing.append(rules.lost.objective.metric)
    if missing:
        return Held(item, lost=lost, why=f"it has no {phrase(missing[0])}")
    for margin in rules.margins:  # the cases that are left may be those that it gets right
        undefined = _undefined(item, reference, margin.objective.metric)
        if undefined:
            why = f"{phrase(margin.objective.metric)} is undefined in {len(undefined)} cases where the baseline has it"
            return Held(item, lost=lost, why=why)
    found = tuple(resampler.differences(item, reference, margin.objective) for margin in rules.margins)
    short = next((margin for margin, one in zip(rules.margins, found, strict=True) if one is None), None)
    if short is not None:
        return Held(item, found, lost, why=_too_few(item, reference, short.objective))
    pairs = zip(rules.margins, found, strict=True)
    return Held(item, found, lost, max(one.p_value(margin.allowed) for margin, one in pairs if one is not None))


def decide(
    held: Sequence[Held],
    members: Collection[str],
    reference: Measurement | None,
    objectives: Sequence[Objective],
    rules: Rules,
) -> Decision:
    """The decision over all ``held`` measurements that meet the limits, of which ``members`` are on the front.

    Ties in cost go to the next objective, then the digest. The baseline itself is no candidate, nor is one that was
    trained further: it shows what more training gives by itself.
    """
    featured = _best_member(held, members, reference, objectives)
    outcome = _nothing_to_judge(held, reference, objectives, rules)
    if outcome is not None or reference is None:
        return Decision(outcome or "no baseline", rules, featured=featured)
    groups = len(set(reference.groups.values())) or None
    candidates = _candidates(held, reference, objectives)
    p_values = {one.question: one.p_value for one in candidates if one.p_value is not None}
    steps = holm_levels(p_values)
    asked = {one.item.digest for one in candidates}
    judged = {one.item.digest: _judged(one, reference, rules, steps, asked) for one in held}
    shown = sorted((one.item for one in candidates if judged[one.item.digest].shown), key=_by_cost(objectives))
    order = tuple(item.digest for item in shown)
    nearest = None if order else _nearest([judged[one.item.digest] for one in candidates])
    return Decision(
        outcome="picked" if order else "none shown" if candidates else "nothing cheaper",
        rules=rules,
        judged=judged,
        order=order,
        nearest=nearest,
        featured=order[0] if order else nearest or featured,
        compared=len(candidates),
        questions=len(p_values),
        groups=groups,
    )


def _nothing_to_judge(
    held: Sequence[Held], reference: Measurement | None, objectives: Sequence[Objective], rules: Rules
) -> Outcome | None:
    if not held:
        return "no variant"
    if not rules.margins:
        return "no margin" if accuracy_objective(objectives) else "no task objective"
    return None if reference is not None and _has_margins(reference, rules) else "no baseline"


def _has_margins(reference: Measurement, rules: Rules) -> bool:
    """There is something to hold a variant against."""
    return bool(rules.margins) and all(margin.objective.metric in reference.metrics for margin in rules.margins)


def _candidates(held: Sequence[Held], reference: Measurement, objectives: Sequence[Objective]) -> list[Held]:
    """What could be picked: it is not the baseline, and costs less where the baseline meets the limits itself. A ratio to
    the baseline is held against 1: what the baseline measured against itself is noise."""
    cost = cost_objective(objectives)
    fits = any(one.item.digest == reference.digest for one in held)
    others = [one for one in held if one.item.digest != reference.digest and not one.item.variant.recovered]
    if cost is None or not fits or cost.metric not in reference.metrics:
        return others
    bar = 1.0 if is_relative(cost.metric) else reference.metrics[cost.metric]
    return [one for one in others if cost.gain(one.item.metrics[cost.metric], bar) > 0]


def _judged(
    one: Held, reference: Measurement, rules: Rules, steps: Mapping[str, tuple[bool, float]], asked: Collection[str]
) -> Judged:
    digest = one.item.digest
    if digest == reference.digest:
        return Judged(digest, "baseline")
    compared = digest in asked
    if one.p_value is None:
        return Judged(digest, "no verdict", compared=compared, lost=one.lost, why=one.why)
    level = steps[one.question][1] if compared else LEVEL
    pairs = zip(rules.margins, one.differences, strict=True)
    endpoints = tuple(_endpoint(one.item, margin, found, level) for margin, found in pairs if found is not None)
    return Judged(digest, _word(endpoints, one.lost), level, compared, endpoints, one.lost)


def _word(endpoints: Sequence[Endpoint], lost: LostCases | None) -> Word:
    if all(item.shown for item in endpoints) and (lost is None or lost.shown):
        return "non-inferior"
    uppers = [(item.comparison.upper, item.margin) for item in endpoints]
    return "inferior" if any(upper is not None and upper < -margin for upper, margin in uppers) else "not shown"


def _endpoint(item: Measurement, margin: Margin, found: Differences, level: float) -> Endpoint:
    method: Literal["paired cases", "paired draws"] = "paired draws" if found.units is None else "paired cases"
    bounds = found.strict_lower(level), found.upper(level)
    compared = Comparison(margin.objective.metric, found.value, *bounds, method, found.cases)
    wanted = found.cases if bounds[0] >= -margin.allowed else found.cases_wanted(margin.allowed, level)
    return Endpoint(compared, margin.allowed, wanted)


def judge_alone(item: Measurement, reference: Measurement, rules: Rules, resampler: Resampler) -> Judged:
    """One variant by itself, chosen before its numbers were seen: nothing is corrected for. Raises ``KeyError`` when
    the ``reference`` lacks the metric of a margin."""
    one = hold(item, reference, rules, resampler)
    steps = holm_levels({one.question: one.p_value}) if one.p_value is not None else {}
    return _judged(one, reference, rules, steps, {item.digest})


def _lost(item: Measurement, reference: Measurement, rules: Rules) -> LostCases | None:
    """None where no metric of cases says what is lost."""
    rule = rules.lost
    if rule is None:
        return None
    metric = rule.objective.metric
    return lost_cases(
        paired_gains(item, reference, rule.objective),
        _undefined(item, reference, metric),
        metric=metric,
        more_than=rule.more_than,
        allowed=rule.share,
        groups=item.groups or reference.groups,
    )


def _undefined(item: Measurement, reference: Measurement, metric: str) -> list[str]:
    """Cases for which the baseline alone has a value."""
    defined, here = (
        {case for case, values in side.cases.items() if values.get(metric) is not None} for side in (reference, item)
    )
    return sorted(defined - here)


def _too_few(item: Measurement, reference: Measurement, goal: Objective) -> str:
    pairs = len(paired_gains(item, reference, goal)) or len(item.cases)
    groups = len(set((item.groups or reference.groups).values()))
    if groups and groups < MIN_UNITS <= pairs:
        return f"its {pairs} cases are of {groups} groups, and fewer than {MIN_UNITS} bound no loss"
    if pairs < MIN_UNITS:
        return f"it was held against the baseline on {pairs} cases, and fewer than {MIN_UNITS} bound no loss"
    return (
        f"draws of its {pairs} cases were not kept, or often leave {phrase(goal.metric)} undefined, as one class has very "
        "few: no loss is bounded"
    )


def _nearest(candidates: Sequence[Judged]) -> str | None:
    """What fewest further cases would decide; of those that none will, the one that misses by the smallest share."""
    found = min(
        candidates,
        key=lambda item: (item.cases_wanted or math.inf, item.missed_by, item.digest),
        default=None,
    )
    return found.digest if found else None


def _by_cost(objectives: Sequence[Objective]) -> Any:
    cost, accuracy = cost_objective(objectives), accuracy_objective(objectives)
    first = cost or accuracy
    order = [goal for goal in (first, *(goal for goal in objectives if goal is not first)) if goal is not None]
    return lambda item: (*(-goal.gain(item.metrics[goal.metric], 0.0) for goal in order), item.digest)


def _best_member(
    held: Sequence[Held], members: Collection[str], reference: Measurement | None, objectives: Sequence[Objective]
) -> str | None:
    """The member of the front that is best on accuracy, the baseline only where there is no other."""
    first = accuracy_objective(objectives) or (objectives[0] if objectives else None)
    if first is None:
        return None
    items = [one.item for one in held if one.item.digest in members]

    def key(item: Measurement) -> tuple[bool, float, str]:
        aside = item.variant.recovered or (reference is not None and item.digest == reference.digest)
        return aside, -first.gain(item.metrics[first.metric], 0.0), item.digest

    return min(items, key=key).digest if items else None
