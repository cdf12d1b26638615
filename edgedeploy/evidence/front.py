"""The front with its uncertainty, and the reason why every other variant is not on it.

Recomputed from stored measurements alone: the same measurements, in any order, give the same bytes of JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, get_args

from edgedeploy.evidence.bootstrap import LEVEL, RESAMPLES, TIME_LEVEL, Resampler, confirms_dominance
from edgedeploy.evidence.chances import chances_on_front
from edgedeploy.evidence.comparable import require_comparable
from edgedeploy.evidence.confirmation import Confirmation
from edgedeploy.evidence.derived import Derived, derive
from edgedeploy.evidence.html import table_html
from edgedeploy.evidence.pareto import (
    Candidate,
    Impossible,
    dominates,
    explain_infeasible,
    non_dominated,
    shortfalls,
)
from edgedeploy.evidence.pick import NOTHING, Decision, Pick, accuracy_objective, decide, hold
from edgedeploy.evidence.proofs import Proof
from edgedeploy.evidence.quantities import heading, with_span
from edgedeploy.evidence.reasons import picked
from edgedeploy.evidence.standing import Confidence, Invalid, Processor, Row, Status
from edgedeploy.records.board import Provenance
from edgedeploy.records.goals import Constraint, Margin, Objective, Rules
from edgedeploy.records.measurement import Failure, Measurement
from edgedeploy.records.metric_table import BOARD_METRICS
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.weights import BaselineWeights

__all__ = ["Front", "Row", "build_front", "rank"]

SIGNIFICANT_DIGITS = 9


@dataclass(frozen=True)
class Front:
    """Everything that may be concluded from a study's measurements on one board, or on several of one kind.

    ``pick`` is the variant to ship, None when none is shown fit; ``decision`` says why, and what came nearest.
    ``confirmation`` is what the confirmation split says of it, None where that was not looked at.
    ``rows`` are all valid variants: members first, best on the first objective first. ``reference`` is the digest of
    the baseline that ratios and the pick refer to, None when it was not validly measured. ``processors`` are by board.
    ``failures`` are variants that cannot give a number, ``passing`` those that gave none in a run and are tried again
    by the next; ``ended`` says why the last run ended early.
    ``weights`` says where that baseline's weights come from, as far as the folder does; ``left_out`` what lies among
    the evidence and is none, a line each; ``clusters_named`` whether the task knows which cases belong together, None for
    older folders. ``proofs`` are limits that no variant can meet, as was certain before anything was measured.
    ``board`` is where the rows were measured, None without any; ``study_boards`` are those that the study names.
    """

    provenance: Provenance | None
    board: str | None
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    min_effect: Mapping[str, float]
    reference: str | None
    rows: tuple[Row, ...]
    invalid: tuple[Invalid, ...]
    pick: Pick | None
    impossible: Impossible | None
    metrics: Mapping[str, MetricInfo]
    seed: int
    decision: Decision = NOTHING
    confirmation: Confirmation | None = None
    resamples: int = RESAMPLES
    processors: Mapping[str, Processor] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()
    passing: tuple[Failure, ...] = ()
    ended: str | None = None
    weights: BaselineWeights | None = None
    left_out: tuple[str, ...] = ()
    clusters_named: bool | None = None
    proofs: tuple[Proof, ...] = ()
    study_boards: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The boards, those of the study where none of them gave a number, and what the numbers are."""
        boards = self.board or " + ".join(self.study_boards) or "no board"
        return f"Front: {boards}, {self.provenance or 'nothing measured'}"

    @property
    def members(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.status == "front")

    @property
    def excluded(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.status != "front")

    @property
    def baselines(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.baseline)

    @property
    def shown(self) -> tuple[Row, ...]:
        """Members, then the pick where it is none, and the baselines that are not: plain ones, and one that was trained
        further."""
        picked = self.pick.digest if self.pick else None
        others = sorted(self.excluded, key=lambda row: row.digest != picked)
        return (*self.members, *(row for row in others if row.role or row.digest == picked))

    @cached_property
    def labels(self) -> dict[str, str]:
        return {row.digest: row.variant.label for row in self.rows}

    @property
    def file(self) -> str | None:
        """The pick's artifact, relative to the study's folder."""
        row = self.row(self.pick.digest) if self.pick else None
        return row.file if row else None

    def _repr_html_(self) -> str:
        """The members and the pick with their objectives, for notebooks; the pick has a star."""
        goals = [goal.metric for goal in self.objectives]
        rows = [
            (
                "*" if self.pick and row.digest == self.pick.digest else "",
                row.variant.label,
                *(with_span(row.estimates[name], name, self.unit(name)) for name in goals),
                row.file,
            )
            for row in self.shown
            if row.status == "front" or (self.pick and row.digest == self.pick.digest)
        ]
        lost = len(self.failures) + len(self.passing)
        counts = f"<p>{len(self.rows)} variants measured, {lost} without a number</p>"
        return table_html(("", "Variant", *map(heading, goals), "File"), rows, self.title) + counts

    @property
    def featured(self) -> str | None:
        """What is shown in detail: the pick, else what comes nearest, else the front's best on accuracy."""
        return self.decision.featured

    @property
    def fit_to_ship(self) -> bool:
        """Something is picked, and the confirmation split does not speak against it."""
        against = ("not confirmed", "another was first")
        return self.pick is not None and not (self.confirmation and self.confirmation.outcome in against)

    def row(self, digest: str | None) -> Row | None:
        return self._by_digest.get(digest)

    @cached_property
    def _by_digest(self) -> dict[str | None, Row]:
        return {row.digest: row for row in reversed(self.rows)}

    def _judged(self, digest: str) -> dict[str, Any] | None:
        found = self.decision.judged.get(digest)
        return found.as_json() if found else None

    def unit(self, metric: str) -> str:
        return self.metrics[metric].unit if metric in self.metrics else "1"

    def explanation(self) -> list[str]:
        """Why no variant meets the limits, in sentences; empty when some variant does."""
        proved = [proof.line for proof in self.proofs]
        if self.impossible is None or (proved and not self.rows):
            return proved
        return [*proved, *self.impossible.lines(self.metrics, self.labels)]

    def as_json(self) -> dict[str, Any]:
        """Plain data; floats rounded to 9 significant digits, so that no platform's last bit shows."""
        data = {
            "schema": 1,
            "provenance": self.provenance,
            "board": self.board,
            "processors": {name: asdict(item) for name, item in self.processors.items()},
            "objectives": [item.as_json() for item in self.objectives],
            "constraints": [item.as_json() for item in self.constraints],
            "min_effect": dict(self.min_effect),
            "reference": self.reference,
            "baseline_weights": self.weights.as_json() if self.weights else None,
            "members": [row.digest for row in self.members],
            "rows": [{**row.as_json(), "against_baseline": self._judged(row.digest)} for row in self.rows],
            "invalid": [item.as_json() for item in self.invalid],
            "failures": [_told(item, again=False) for item in self.failures]
            + [_told(item, again=True) for item in self.passing],
            "ended_early": self.ended,
            "left_out": list(self.left_out),
            "clusters_named": self.clusters_named,
            "pick": {**self.pick.as_json(), "file": self.file} if self.pick else None,
            "decision": self.decision.as_json(),
            "confirmation": self.confirmation.as_json() if self.confirmation else None,
            "impossible": self.impossible.as_json() if self.impossible else None,
            "proofs": [proof.as_json() for proof in self.proofs],
            "seed": self.seed,
            "resamples": self.resamples,
            "level": LEVEL,
            "time_level": TIME_LEVEL,
        }
        rounded: dict[str, Any] = _rounded(data)
        return rounded


def build_front(
    measurements: Sequence[Measurement],
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint] = (),
    *,
    baseline_digests: Sequence[str] = (),
    seed: int = 0,
    min_effect: Mapping[str, float] | None = None,
    margin: float | None,
    rules: Rules | None = None,
    metrics: Mapping[str, MetricInfo] | None = None,
    resamples: int = RESAMPLES,
    several_boards: bool = False,
    derived: Mapping[str, Derived] | None = None,
) -> Front:
    """The front of ``measurements`` of one split on one board; invalid ones are named and not used. ``several_boards``
    allows several of one kind, as long as every objective compares across boards.

    ``baseline_digests`` names the float models as they are, the reference target's first. ``min_effect`` is the
    smallest difference that matters, by metric in its base unit. ``rules`` say what has to be shown of a pick; in their
    place ``margin`` is what it may lose on the first task objective. Without either nothing is picked. ``metrics``
    describes the task's metrics (units), ``resamples`` is the number of bootstrap draws. ``derived`` is by digest what
    was made of a measurement's raw series before, with the same seed and resamples: such a measurement needs no series.
    Raises ``SpecError`` when boards, splits or provenances are mixed, and ``ValueError`` when a variant was given
    twice.
    """
    if not objectives:
        raise ValueError("a front needs at least one objective")
    valid = sorted((item for item in measurements if item.valid), key=lambda item: item.digest)
    require_comparable(valid, [goal.metric for goal in objectives] if several_boards else None)
    effects = {goal.metric: float((min_effect or {}).get(goal.metric, 0.0)) for goal in objectives}
    table = {**BOARD_METRICS, **(metrics or {})}
    known = derived or {}
    resampler = Resampler(seed, resamples, {digest: item.samples for digest, item in known.items()})
    standings = _Standings(valid, objectives, constraints, effects, resampler, baseline_digests)
    made = {item.digest: known.get(item.digest) or derive(item, resampler) for item in valid}
    asked = _rules(rules, margin, objectives)
    reference = standings.reference
    decision = decide(
        [hold(item, reference, asked, resampler) for item in standings.feasible],
        {item.digest for item in standings.members},
        reference,
        objectives,
        asked,
    )
    return Front(
        provenance=valid[0].provenance if valid else None,
        board=" + ".join(sorted({item.board.name for item in valid})) or None,
        processors=dict(sorted({item.board.name: Processor.of(item.board) for item in valid}.items())),
        objectives=tuple(objectives),
        constraints=tuple(constraints),
        min_effect=effects,
        reference=reference.digest if reference else None,
        rows=standings.rows(made),
        invalid=_invalid(measurements),
        pick=picked(decision, objectives, table),
        decision=decision,
        impossible=explain_infeasible([_candidate(item) for item in standings.complete], constraints),
        metrics=table,
        seed=seed,
        resamples=resamples,
    )


def _rules(rules: Rules | None, margin: float | None, objectives: Sequence[Objective]) -> Rules:
    goal = accuracy_objective(objectives)
    if rules is not None or margin is None or goal is None:
        return rules or Rules()
    return Rules.of((Margin(goal, margin),))


@dataclass(frozen=True)
class _Standings:
    """The valid variants of a front: which of them can be on it, who is, and who dominates whom."""

    valid: Sequence[Measurement]
    objectives: Sequence[Objective]
    constraints: Sequence[Constraint]
    effects: Mapping[str, float]
    resampler: Resampler
    baseline_digests: Sequence[str]

    @cached_property
    def complete(self) -> list[Measurement]:
        return [item for item in self.valid if all(goal.metric in item.metrics for goal in self.objectives)]

    @cached_property
    def feasible(self) -> list[Measurement]:
        return [item for item in self.complete if not shortfalls(item.metrics, self.constraints)]

    @cached_property
    def by_digest(self) -> dict[str, Measurement]:
        return {item.digest: item for item in self.valid}

    @cached_property
    def members(self) -> list[Measurement]:
        """Whom no values beat, best on the first objective first."""
        winners = non_dominated([_candidate(item) for item in self.feasible], self.objectives)
        return sorted((self.by_digest[item.digest] for item in winners), key=lambda item: rank(item, self.objectives))

    @property
    def reference(self) -> Measurement | None:
        return self.by_digest.get(self.baseline_digests[0]) if self.baseline_digests else None

    def rows(self, made: Mapping[str, Derived]) -> tuple[Row, ...]:
        """One of each valid variant, in the order of a front; ``made`` is by digest."""
        rows = [self._row(item, made[item.digest]) for item in self.valid]
        unsure = {row.digest for row in rows if row.status in ("front", "indistinguishable")}
        chances = chances_on_front(self.feasible, unsure, self.objectives, self.resampler)
        places = {status: place for place, status in enumerate(get_args(Status))}
        rows.sort(key=lambda row: (places[row.status], rank(self.by_digest[row.digest], self.objectives)))
        return tuple(replace(row, p_on_front=chances.get(row.digest)) for row in rows)

    def _row(self, item: Measurement, made: Derived) -> Row:
        missed = shortfalls(item.metrics, self.constraints)
        status: Status = "front"
        dominated_by: str | None = None
        confidence: Confidence | None = None
        if any(goal.metric not in item.metrics for goal in self.objectives):
            status = "incomplete"
        elif missed:
            status = "infeasible"
        elif verdict := self.verdict(item):
            dominated_by, confidence = verdict
            status = "dominated" if confidence == "confirmed" else "indistinguishable"
        else:
            dominated_by = self.overshadows(item)
        return Row(
            variant=item.variant,
            baseline=item.digest in self.baseline_digests,
            status=status,
            estimates=made.estimates,
            missing=dict(sorted(item.missing.items())),
            executed=dict(sorted(item.candidate.executed.items())),
            shortfalls=missed,
            dominated_by=dominated_by,
            confidence=confidence,
            verdict=made.verdict,
            board=item.board.name,
            beside=made.beside,
            file=item.file,
            notes=item.notes,
            reference=item.digest in self.baseline_digests[:1],
        )

    def verdict(self, item: Measurement) -> tuple[str, Confidence] | None:
        """None for a variant that no member dominates by its values."""
        ours = _candidate(item)
        above = [member for member in self.members if dominates(_candidate(member), ours, self.objectives)]
        for member in above:
            if self._confirmed(member, item):
                return member.digest, "confirmed"
        return (above[0].digest, "indistinguishable") if above else None

    def overshadows(self, item: Measurement) -> str | None:
        """The member that confirmedly beats this member where it matters, and loses to it nowhere by what matters."""
        others = (member for member in self.members if member is not item)
        return next((member.digest for member in others if self._confirmed(member, item)), None)

    def _confirmed(self, ours: Measurement, theirs: Measurement) -> bool:
        compared = [self.resampler.compare(ours, theirs, goal) for goal in self.objectives]
        return confirms_dominance(compared, [self.effects[goal.metric] for goal in self.objectives])


def _candidate(item: Measurement) -> Candidate:
    return Candidate(item.digest, item.provenance, item.metrics)


def rank(item: Measurement, objectives: Sequence[Objective]) -> tuple[float | str, ...]:
    """Best on the first objective first; without a value, last; the digest makes the order total."""
    values = (item.metrics.get(goal.metric) for goal in objectives)
    losses = (
        float("inf") if value is None else -goal.gain(value, 0.0)
        for goal, value in zip(objectives, values, strict=True)
    )
    return (*losses, item.digest)


def _invalid(measurements: Sequence[Measurement]) -> tuple[Invalid, ...]:
    found = [
        Invalid(item.variant, item.cause or "no cause was recorded", item.created_utc)
        for item in measurements
        if not item.valid
    ]
    return tuple(sorted(found, key=lambda item: (item.variant.digest, item.created_utc, item.cause)))


def _told(failure: Failure, *, again: bool) -> dict[str, Any]:
    """A failure for machines; ``tried_again``: it is no evidence, and the next run tries the variant again."""
    return {
        "digest": failure.variant.digest,
        "label": failure.variant.label,
        "kind": failure.kind,
        "phase": failure.phase,
        "message": failure.message,
        "created_utc": failure.created_utc,
        "tried_again": again,
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value
