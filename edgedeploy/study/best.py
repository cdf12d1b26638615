"""The best so far of a running study: the front and what could be picked, kept up to date variant by variant.

A quick look with few resamples: the front at the end is computed from the evidence and takes its time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from edgedeploy.evidence.bootstrap import Resampler
from edgedeploy.evidence.front import rank
from edgedeploy.evidence.pareto import Candidate, dominates, shortfalls
from edgedeploy.evidence.pick import Decision, Held, decide, hold
from edgedeploy.evidence.reasons import nothing_text
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.units import human
from edgedeploy.records.variant import Variant
from edgedeploy.search.outcomes import Outcome, Scored
from edgedeploy.spec.goals import constraints_of, objectives_of, rules_of
from edgedeploy.spec.study import StudySpec

QUICK_RESAMPLES: Final = 200

KEPT_CANDIDATES: Final = 5
"""The cheapest ones that are shown: outputs of more are not kept for pictures."""


class Best:
    """``study`` is the content of the study's ``study.json``; ``taken`` are the digests of all that was taken in."""

    def __init__(self, study: Mapping[str, Any], spec: StudySpec, known: Iterable[Measurement]) -> None:
        metrics = spec.metric_table({name: MetricInfo.from_json(info) for name, info in study["task_metrics"].items()})
        self._metrics = metrics
        self._objectives = objectives_of(spec, metrics)
        self._constraints = constraints_of(spec, metrics)
        self._rules = rules_of(spec, metrics)
        self._baselines = [Variant.from_json(item).digest for item in study["baselines"]]
        self._reference: Measurement | None = None
        self._resampler = Resampler(spec.study.seed, QUICK_RESAMPLES)
        self._members: list[Measurement] = []
        self._held: dict[str, Held] = {}
        self._decision: Decision | None = None
        self.taken: set[str] = set()
        for item in known:
            self.add(item)

    def add(self, item: Measurement) -> None:
        """Take in a measurement. Costs a comparison with each member of the front, and one with the baseline."""
        if not item.valid:
            return
        self.taken.add(item.digest)
        self._decision = None
        if item.digest in self._baselines[:1]:
            self._reference = item
            self._held = {digest: self._hold(one.item) for digest, one in self._held.items()}
        complete = all(goal.metric in item.metrics for goal in self._objectives)
        if not complete or shortfalls(item.metrics, self._constraints):
            return
        self._held[item.digest] = self._hold(item)
        members = [member for member in self._members if member.digest != item.digest]
        if not any(self._dominates(member, item) for member in members):
            members = [member for member in members if not self._dominates(item, member)]
            self._members = sorted([*members, item], key=lambda member: rank(member, self._objectives))

    @property
    def shown(self) -> set[str]:
        """Digests of the front's members, of the baselines and of what may be picked: what a report may show cases
        of."""
        found = self._decided()
        likely = {*found.order[:KEPT_CANDIDATES], *([found.featured] if found.featured else [])}
        return {*self._baselines, *(member.digest for member in self._members), *likely}

    def text(self) -> str | None:
        """The pick with its objectives. Without one, that none is shown, and what comes nearest, named as that; None while
        nothing meets the limits."""
        decided = self._decided()
        found = self._held.get(decided.featured or "")
        if found is None:
            return None
        values = ", ".join(
            f"{goal.metric} {human(found.item.metrics[goal.metric], self._metrics[goal.metric].unit)}"
            for goal in self._objectives
        )
        named = f"{found.item.variant.label} ({values})"
        if decided.order:
            return named
        if decided.nearest:
            return f"none is shown fit to ship yet; nearest: {named}"
        return f"none is shown fit to ship: {nothing_text(decided, {})}; first on the front: {named}"

    def _hold(self, item: Measurement) -> Held:
        return hold(item, self._reference, self._rules, self._resampler)

    def _decided(self) -> Decision:
        if self._decision is None:
            members = {member.digest for member in self._members}
            held = [self._held[digest] for digest in sorted(self._held)]
            self._decision = decide(held, members, self._reference, self._objectives, self._rules)
        return self._decision

    def _dominates(self, ours: Measurement, theirs: Measurement) -> bool:
        one, other = (Candidate(item.digest, item.provenance, item.metrics) for item in (ours, theirs))
        return dominates(one, other, self._objectives)


def outcome_text(outcome: Outcome, objectives: Sequence[str], metrics: Mapping[str, MetricInfo]) -> str:
    """For a log: the objectives (names of metrics) with their units and the limits that are missed, or why there is none."""
    if not isinstance(outcome, Scored):
        return f"no number: {outcome.kind}: {outcome.message}"
    values = zip(objectives, outcome.values, strict=True)
    text = ", ".join(f"{name} {human(value, metrics[name].unit)}" for name, value in values)
    violated = [name.partition(" ")[2] for name, value in outcome.constraints.items() if value > 0]
    return f"{text} (misses {', '.join(violated)})" if violated else text
