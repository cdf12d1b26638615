"""One trial: build the variant, hold a board, measure, compare with the reference, score per case, keep the evidence."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgedeploy.account import Account
from edgedeploy.artifact import Artifact
from edgedeploy.boards.attempts import Attempts
from edgedeploy.errors import BuildError, MeasurementError
from edgedeploy.evidence.conditions import cooled_c
from edgedeploy.evidence.protocols import protocol_metrics
from edgedeploy.evidence.statistics import StabilityLimits, board_metrics, stability, summarise_cases
from edgedeploy.goals import constraints_of
from edgedeploy.measurement import Failure, Job, Measurement, MeasurePlan, MetricInfo, ProtocolPlan, RawRun
from edgedeploy.protocols import Array, Board, BoardSession, Split
from edgedeploy.search.study import Failed, Outcome, Scored
from edgedeploy.spec import StudySpec
from edgedeploy.store import Store, utc_now
from edgedeploy.targets.parity import check_executed, check_parity
from edgedeploy.variant import Variant
from edgedeploy.workbench import InputSet, Workbench


@dataclass(frozen=True)
class Trials:
    """Evaluates variants of one study on one board. ``tell`` hears one line per thing worth knowing; ``alive`` is
    asked before a failure is kept and raises where the study was interrupted; ``protocols`` are run wherever time is
    measured."""

    spec: StudySpec
    board: Board
    bench: Workbench
    store: Store
    account: Account
    reference_baseline: Variant
    metrics: Mapping[str, MetricInfo]
    tell: Callable[[str], None] = lambda line: None
    alive: Callable[[Variant], None] = lambda variant: None
    protocols: tuple[ProtocolPlan, ...] = ()

    def lookup(self, variant: Variant) -> Outcome | None:
        """The outcome that the stored evidence stands for; None when there is none yet."""
        measurement = self.store.measurement(variant.digest)
        if measurement is not None:
            return self.outcome(measurement)
        failure = self.store.failure(variant.digest)
        return Failed(failure.kind, failure.message) if failure else None

    def evaluate(self, variant: Variant) -> Outcome:
        """Make the evidence. A failure that is the variant's own is kept; a board's failure is raised."""
        phase = "build"
        try:
            self.bench.artifact(self.reference_baseline)
            self.bench.artifact(variant)
            phase = "measure"
            return self.outcome(self.measure(variant, "selection"))
        except (BuildError, MeasurementError) as exc:
            kind = type(exc).__name__
            self.alive(
                variant
            )  # an interrupt that a toolchain took for an error of its own is no failure of the variant
            with self.account.phase("bookkeeping"):
                self.store.keep_failure(Failure(variant, kind, phase, str(exc), utc_now()))
            return Failed(kind, str(exc))

    def outcome(self, measurement: Measurement) -> Outcome:
        """Objectives and constraints of a measurement, in the order of the spec."""
        if not measurement.valid:
            return Failed("Unstable", measurement.cause or "conditions drifted")
        wanted = [objective.metric for objective in self.spec.objectives]
        wanted += [constraint.metric for constraint in self.spec.constraints]
        for name in wanted:
            if name not in measurement.metrics:
                reason = measurement.missing.get(name, "the task left it undefined in every case")
                return Failed("MissingMetric", f"{name}: {reason}")
        values = tuple(measurement.metrics[objective.metric] for objective in self.spec.objectives)
        constraints = {
            f"{index} {limit.metric}": limit.violation(measurement.metrics[limit.metric]) / (abs(limit.bound) or 1.0)
            for index, limit in enumerate(constraints_of(self.spec, self.metrics))
        }
        return Scored(values, constraints)

    def measure(self, variant: Variant, split: Split) -> Measurement:
        """Measure until the conditions hold, at most ``retries`` times more; the last one is returned as it is.

        Before a repeat the board may become as cool as it was before the first run.
        """
        cool_to_c = None
        for attempt in range(self.spec.measure.retries + 1):
            measurement = self._attempt(variant, split, cool_to_c)
            with self.account.phase("bookkeeping"):
                self.store.keep(measurement)
            if measurement.valid:
                break
            self.tell(f"{variant.label}: run {attempt + 1} is invalid: {measurement.cause}")
            cool_to_c = cool_to_c or cooled_c(measurement.environment)
        return measurement

    def _attempt(self, variant: Variant, split: Split, cool_to_c: float | None) -> Measurement:
        timed = split != "confirmation"
        candidate = self.bench.payload(variant, split)
        baseline = self.bench.payload(self.reference_baseline, split) if timed else None
        job = Job(candidate, baseline, self._plan(timed, cool_to_c))
        with tempfile.TemporaryDirectory(prefix="edgedeploy-") as folder:
            with self.account.phase("measure"):
                session, raw = self._on_board(job, Path(folder))
            with self.account.phase("evaluate"):
                outputs = _load_outputs(raw)
                return self._measurement(
                    variant, split, artifact=candidate.artifact, session=session, raw=raw, outputs=outputs
                )

    def _on_board(self, job: Job, folder: Path) -> tuple[BoardSession, RawRun]:
        """One exclusive run, by the rules of :mod:`edgedeploy.boards.attempts`."""
        started_ns = time.monotonic_ns()
        session, raw = Attempts(self.board, self.tell).run(job, folder)
        spent_ns = time.monotonic_ns() - started_ns
        self.account.move("upload", max(0, spent_ns - raw.phases_ns.get("run", 0)))
        return session, raw

    def _plan(self, timed: bool, cool_to_c: float | None) -> MeasurePlan:
        table = self.spec.measure
        protocols = self.protocols if timed else ()
        cool_down_s = 0.0 if cool_to_c is None else table.cool_down
        return MeasurePlan(
            queries=table.timed_queries if timed else 0,
            warmup=table.warmup,
            block=table.block,
            cold_starts=table.cold_starts if timed else 0,
            time_limit_s=table.time_limit + cool_down_s + sum(protocol.limit_s for protocol in protocols),
            protocols=protocols,
            cool_to_c=cool_to_c,
            cool_down_s=cool_down_s,
        )

    def _measurement(
        self,
        variant: Variant,
        split: Split,
        *,
        artifact: Artifact,
        session: BoardSession,
        raw: RawRun,
        outputs: Mapping[str, Array],
    ) -> Measurement:
        inputs = self.bench.inputs(split, variant.arch_kwargs)
        check_executed(variant.precision, raw.candidate.executed, variant.plan.precisions)
        golden = self.bench.golden_outputs(variant)
        parity = check_parity(
            {name: np.concatenate([row[name] for row in golden]) for name in golden[0]},
            {name: _unstack(rows[: len(golden)]) for name, rows in outputs.items()},
            *variant.precisions,
        )
        cases = self._score(inputs, outputs)
        metrics: dict[str, float] = {}
        missing: dict[str, str] = {}
        cause = None
        if raw.baseline is not None:
            metrics, missing = board_metrics(raw.candidate, raw.baseline, artifact, raw.environment.get("energy"))
            table = self.spec.measure
            more, why = protocol_metrics(table.protocols, raw.candidate.blocks_ns, raw.protocols)
            metrics, missing = {**metrics, **more}, {**missing, **why}
            limits = StabilityLimits(
                table.max_drift,
                table.max_background_cores,
                table.max_spread,
                table.max_heating_c,
                table.max_clock_drift,
            )
            cause = stability(raw.baseline, raw.environment, limits)
        for name in self.bench.task.metrics:
            summary = summarise_cases(cases, name)
            if summary is None:
                missing[name] = "undefined in every case"
            else:
                metrics[name] = summary.mean
        with self.account.phase("bookkeeping"):
            self._keep_outputs(variant, split, inputs, outputs)
        return Measurement(
            variant=variant,
            artifact=artifact,
            board=session.info,
            provenance=self.board.provenance,
            split=split,
            valid=cause is None,
            cause=cause,
            metrics=metrics,
            missing=missing,
            cases=cases,
            candidate=raw.candidate,
            baseline=raw.baseline,
            baseline_variant=self.reference_baseline.digest if raw.baseline else None,
            environment=raw.environment,
            parity=parity,
            phases_ns=raw.phases_ns,
            protocols=raw.protocols,
            created_utc=utc_now(),
        )

    def _score(self, inputs: InputSet, outputs: Mapping[str, Array]) -> dict[str, dict[str, float | None]]:
        """The task's metrics of every case, from the rows after the golden ones."""
        scores: dict[str, dict[str, float | None]] = {}
        for row, case in enumerate(inputs.cases, start=inputs.golden):
            found = self.bench.task.evaluate({name: rows[row] for name, rows in outputs.items()}, case)
            scores[case.id] = {name: None if value is None else float(value) for name, value in found.items()}
        return scores

    def _keep_outputs(self, variant: Variant, split: Split, inputs: InputSet, outputs: Mapping[str, Array]) -> None:
        """Outputs for the report's pictures, rounded to float16; every metric came from the full ones."""
        path = self.store.outputs_path(variant.digest, split)
        small = {name: rows[inputs.golden :].astype(np.float16) for name, rows in outputs.items()}
        self.store.save_arrays(path, small)


def _load_outputs(raw: RawRun) -> dict[str, Array]:
    if raw.outputs is None:
        raise MeasurementError("outputs of the run", "the board sent none", "Run it again; keep the agent's log")
    with np.load(raw.outputs, allow_pickle=False) as data:
        return {name: data[name] for name in data.files}


def _unstack(rows: Array) -> Array:
    """(cases, 1, ...) to (cases, ...): every row was one batch-1 inference."""
    return rows.reshape(-1, *rows.shape[2:])
