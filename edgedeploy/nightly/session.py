"""One session: a subject and its frozen baseline, interleaved in new processes on one board, and what came of it."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.errors import CommandFailed, EdgeDeployError, MeasurementError
from edgedeploy.evidence.conditions import cooled_c
from edgedeploy.evidence.interleaved import run_of_baseline
from edgedeploy.evidence.metrics import read
from edgedeploy.evidence.samples import Sample
from edgedeploy.evidence.series import Run
from edgedeploy.evidence.statistics import StabilityLimits, block_medians, cpu_per_query, pair_ratios, stability
from edgedeploy.files import read_arrays
from edgedeploy.interfaces.task import Array
from edgedeploy.nightly.states import board_state
from edgedeploy.nightly.subject import Subject
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.job import Job, MeasurePlan, RawRun, RawSide
from edgedeploy.records.metric_table import BOARD_METRICS, RUN_METRICS
from edgedeploy.records.metrics import Metric
from edgedeploy.records.night import GoldenCheck, Session
from edgedeploy.runtime.bundle.golden import distance
from edgedeploy.spec.measuring import MeasureTable
from edgedeploy.study.executed import require_executed
from edgedeploy.study.limits import stability_limits
from edgedeploy.study.runner import Runner, in_order
from edgedeploy.study.store import utc_now

PAIRED: Final[Mapping[str, str]] = {"latency_p50_ns": "latency_ratio", "cpu_time_ns": "cpu_time_ratio"}
"""Metrics whose loss is of neighbouring blocks: both sides of a pair saw the same moments."""

NOT_OF_A_SESSION: Final = (
    "no session gives it: scenarios are of studies, and other bytes are told as a changed artifact"
)

NO_ANSWER: Final = 1e9
"""Stands for the distance of an answer that has another shape, or values that are no numbers."""

_MEDIAN_SE: Final = math.sqrt(math.pi / 2)
"""The standard error of a median over that of a mean, for normal values."""

_KEPT: Final = ("background_cpu_share", "stolen_cpu_share", "power_mode_asked", "cool_down")
_SNAPSHOT: Final = ("governor", "power_mode", "temperatures_c", "throttle_events", "cpu_mhz", "gpu_mhz", "load_1m")
"""Of a run's conditions, and of the snapshots before and after it: a lab keeps them for every session of a year."""

MOST_ANSWERS: Final = 16
"""Cases of a study whose answers are kept, its golden ones first; the others are scored."""


@dataclass(frozen=True)
class SessionPlan:
    """How a session is measured. ``limits`` say when its conditions allow no numbers; it is then repeated, at most
    ``retries`` times, after the board had ``cool_down_s`` to become as cool as before."""

    plan: MeasurePlan
    limits: StabilityLimits
    retries: int = 0
    cool_down_s: float = 0.0

    @classmethod
    def of(cls, table: MeasureTable) -> SessionPlan:
        """By ``[measure]``; scenarios are for studies."""
        plan = MeasurePlan(
            queries=table.queries,
            warmup=table.warmup,
            block=table.block,
            cold_starts=table.cold_starts,
            time_limit_s=table.time_limit,
        )
        return cls(plan, stability_limits(table), table.retries, table.cool_down)


def measure_session(
    subject: Subject, board: str, run: Runner, plan: SessionPlan, *, night: str, number: int = 1
) -> Session:
    """Measure a subject on a board by ``run``. Where a task scores the outputs, the baseline's are taken in a second run.

    A failure of the board, the artifact or this host is a session with its ``error``; one whose conditions drifted, to the
    last repeat, has a ``cause``. Neither counts. Only a bug is raised.
    """
    started_s, started_utc = time.monotonic(), utc_now()
    try:
        found = _until_stable(subject, board, run, plan)
    except EdgeDeployError as exc:
        found = {"error": type(exc).__name__, "cause": str(exc)}
    return Session(
        entry=subject.entry,
        board=board,
        night=night,
        number=number,
        started_utc=started_utc,
        spent_s=time.monotonic() - started_s,
        artifact=subject.state,
        baseline_digest=subject.baseline.artifact.digest,
        **found,
    )


def _until_stable(subject: Subject, board: str, run: Runner, plan: SessionPlan) -> dict[str, Any]:
    """The fields of a session that hang on the run. A board that is known keeps its state where a later run fails."""
    cool_to_c, known = None, dict[str, Any]()
    for _ in range(plan.retries + 1):
        with tempfile.TemporaryDirectory(prefix="edgedeploy-") as folder:
            job = Job(subject.candidate, subject.baseline, _cooled(subject, plan, cool_to_c))
            info, raw = run(job, Path(folder))
            known = _known(subject, info, raw)
            try:
                found = {**known, **_numbers(subject, info, raw, run, Path(folder), plan)}
            except EdgeDeployError as exc:
                return {**known, "error": type(exc).__name__, "cause": str(exc)}
        if not found["cause"]:
            return found
        cool_to_c = cool_to_c or cooled_c(raw.environment)
    return found


def _cooled(subject: Subject, plan: SessionPlan, cool_to_c: float | None) -> MeasurePlan:
    more_s = 0.0 if cool_to_c is None else plan.cool_down_s
    return replace(
        plan.plan,
        cool_to_c=cool_to_c,
        cool_down_s=more_s,
        time_limit_s=plan.plan.time_limit_s + more_s,
        power_mode=subject.power_mode or plan.plan.power_mode,
    )


def _known(subject: Subject, info: BoardInfo, raw: RawRun) -> dict[str, Any]:
    sides = {subject.candidate.artifact.target: raw.candidate}
    if raw.baseline is not None:
        sides.setdefault(subject.baseline.artifact.target, raw.baseline)
    runtimes = {name: side.runtime_version or info.runtimes.get(name, "") for name, side in sides.items()}
    return {"info": info, "state": board_state(info, raw.environment, runtimes), "environment": _kept(raw.environment)}


def _kept(environment: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: environment[name] for name in _KEPT if name in environment}
    for when in ("before", "after"):
        table = environment.get(when)
        if isinstance(table, Mapping):
            found[when] = {name: table[name] for name in _SNAPSHOT if table.get(name) is not None}
    return found


def _numbers(
    subject: Subject, info: BoardInfo, raw: RawRun, run: Runner, folder: Path, plan: SessionPlan
) -> dict[str, Any]:
    if subject.precisions:
        require_executed(subject.precisions, raw.candidate.executed, info.name)
    if raw.baseline is None:
        raise CommandFailed(f"board {info.name!r}: baseline of {subject.entry}", "it sent none", "Run it again")
    cause = _void(raw.baseline, raw, plan.limits) if info.clock == "wall" else None
    outputs = _outputs(raw, info)
    golden = golden_check(subject, outputs)
    if golden is None and not cause:
        first = {name: values[:MOST_ANSWERS] for name, values in outputs.items()}
        subject.keep_answers(first, f"board {info.name}, {utc_now()}")
        golden = golden_check(subject, outputs)
    losses = dict(_board_losses(subject, info, raw, plan.plan.queries))
    missing = {name: text for name, text in losses.items() if isinstance(text, str)}
    numbers = {name: item for name, item in losses.items() if not isinstance(item, str)}
    if subject.scorer is not None and not cause:
        more, why = _accuracy(subject, info, outputs, run, folder, plan)
        numbers, missing = {**numbers, **more}, {**missing, **why}
    return {
        "losses": {name: item.loss for name, item in numbers.items()},
        "loss_errors": {name: item.error for name, item in numbers.items() if item.error is not None},
        "values": {name: (item.candidate, item.baseline) for name, item in numbers.items()},
        "missing": missing,
        "golden": golden,
        "cause": cause or "",
    }


def _void(baseline: RawSide, raw: RawRun, limits: StabilityLimits) -> str | None:
    """Why the run's conditions allow no numbers. A clock that gives impossible times is the board's, not the artifact's."""
    try:
        return stability(baseline, raw.environment, limits)
    except MeasurementError as exc:
        return str(exc)


# -- numbers


@dataclass(frozen=True)
class _Number:
    """A loss with what it is made of. ``error`` is its standard error by the run's own repetitions."""

    loss: float
    candidate: float
    baseline: float
    error: float | None = None


def _board_losses(subject: Subject, info: BoardInfo, raw: RawRun, queries: int) -> Iterator[tuple[str, _Number | str]]:
    """Each metric of boards that is judged, or why there is none. What a board cannot have is left out unless the lab file
    names it. Values that no clock and no sensor can give are told: they say nothing of what is shipped."""
    assert raw.baseline is not None
    ours = Run(raw.candidate, raw.baseline, power=raw.environment.get("energy"))
    theirs = run_of_baseline(raw.baseline, raw.environment)
    for name in subject.metrics:
        row = RUN_METRICS.get(name)
        if name not in BOARD_METRICS:
            continue
        if row is None or name == "size_bytes":
            yield name, NOT_OF_A_SESSION
            continue
        too_few = f"it needs {row.queries} queries, and [measure] asks for {queries}"
        try:
            number = too_few if row.queries > queries else _number(row, ours, theirs, info)
        except MeasurementError as exc:
            yield name, str(exc)
            continue
        if subject.named or not isinstance(number, str):
            yield name, number


def _number(row: Metric, ours: Run, theirs: Run, info: BoardInfo) -> _Number | str:
    if info.clock in row.not_by_clock:
        return row.not_by_clock[info.clock]
    one = read(row, ours)
    if isinstance(one, str):
        return one
    if row.relative:
        return _Number(math.log(one.value), one.value, 1.0, _pair_error(row.name, ours))
    other = read(row, theirs)
    if isinstance(other, str):
        return f"the baseline has none: {other}"
    if row.name in PAIRED:
        ratio = read(RUN_METRICS[PAIRED[row.name]], ours)
        if isinstance(ratio, Sample):
            return _Number(math.log(ratio.value), one.value, other.value, _pair_error(PAIRED[row.name], ours))
    return _number_of(one.value, other.value)


def _number_of(candidate: float, baseline: float) -> _Number | str:
    if not (candidate > 0 and baseline > 0):
        return f"it is {candidate:g}, and the baseline's {baseline:g}: there is no ratio of that"
    return _Number(math.log(candidate) - math.log(baseline), candidate, baseline)


def _pair_error(name: str, run: Run) -> float | None:
    """Of the logarithm of the median ratio of neighbouring blocks."""
    assert run.baseline is not None
    of = block_medians if name == "latency_ratio" else cpu_per_query
    ratios = np.log(pair_ratios(of(run.candidate), of(run.baseline)))
    return _MEDIAN_SE * float(ratios.std(ddof=1)) / math.sqrt(ratios.size) if ratios.size > 1 else None


# -- answers


def _outputs(raw: RawRun, info: BoardInfo) -> dict[str, Array]:
    if raw.outputs is None:
        raise CommandFailed(f"board {info.name!r}: outputs of the run", "it sent none", "Run it again")
    try:
        return read_arrays(raw.outputs)
    except ValueError as exc:
        raise CommandFailed(f"board {info.name!r}: outputs of the run", str(exc), "Run it again") from None


def golden_check(subject: Subject, outputs: Mapping[str, Array]) -> GoldenCheck | None:
    """The answers against the accepted ones, each case by itself; None before there are any. Raises ``DamagedFile``."""
    accepted = subject.answers()
    if accepted is None:
        return None
    told = {name: values for name, values in accepted.items() if name in subject.frozen.tolerance}
    worst = {name: _worst(outputs.get(name), values) for name, values in told.items()}
    tolerance = {name: subject.frozen.tolerance[name] for name in told}
    changed = tuple(name for name in told if not worst[name] <= tolerance[name])
    return GoldenCheck(max((len(values) for values in told.values()), default=0), worst, tolerance, changed)


def _worst(found: Array | None, accepted: Array) -> float:
    rows = len(accepted)
    if found is None or found[:rows].shape != accepted.shape:
        return NO_ANSWER
    each = [distance(ours, theirs)[0] for ours, theirs in zip(found[:rows], accepted, strict=True)]
    return min(NO_ANSWER, max(each, default=0.0))


def _accuracy(
    subject: Subject, info: BoardInfo, outputs: Mapping[str, Array], run: Runner, folder: Path, plan: SessionPlan
) -> tuple[dict[str, _Number], dict[str, str]]:
    """The task's metrics of both sides on the same cases."""
    assert subject.scorer is not None
    names = [name for name in subject.metrics if name in subject.scorer.metrics]
    if not names:
        return {}, {}
    if not subject.same_cases:
        return {}, dict.fromkeys(names, "the baseline that the lab names answers other cases")
    ours, missing = subject.scorer.means(in_order(outputs, subject.candidate.artifact))
    alone = replace(_cooled(subject, plan, None), queries=0, cold_starts=0)
    place = folder / "baseline"
    place.mkdir()
    try:
        _, raw = run(Job(subject.baseline, None, alone), place)
    except MeasurementError as exc:  # it ran beside the candidate a moment ago: this says nothing of what is shipped
        raise CommandFailed(f"board {info.name!r}: the baseline alone", str(exc), "Run it again") from None
    theirs, why = subject.scorer.means(in_order(_outputs(raw, info), subject.baseline.artifact))
    found = {}
    for name in names:
        if name in ours and name in theirs:
            sign = 1 if subject.scorer.metrics[name].direction == "maximize" else -1
            found[name] = _Number(sign * (theirs[name] - ours[name]), ours[name], theirs[name])
    return found, {name: (missing | why).get(name, "undefined") for name in names if name not in found}
