"""How far a search had come after each evaluation: the hypervolume of what was measured until then. From stored measurements
alone, so that it can be computed of any folder, whoever proposed what in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import numpy as np

from edgedeploy.evidence.front import Front
from edgedeploy.evidence.pareto import Candidate, require_one_provenance, shortfalls
from edgedeploy.evidence.quantities import phrase
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metric_table import BOARD_METRICS
from edgedeploy.search.improvement import Floats, hypervolume

OBJECTIVES: Final = (2, 3)
"""Numbers of objectives that hypervolume is computed for."""


@dataclass(frozen=True)
class Step:
    """What one more valid measurement brought. ``volume``: share of the box between the reference and the best values of
    all that is dominated by then, 0 to 1. ``elapsed_s``: since the study began, pauses included; None when not known."""

    label: str
    volume: float
    elapsed_s: float | None


@dataclass(frozen=True)
class Progress:
    """``reference`` and ``best`` are the box's corners by metric, in base units. ``missing`` says why there are no steps."""

    steps: tuple[Step, ...] = ()
    reference: Mapping[str, float] = field(default_factory=dict)
    best: Mapping[str, float] = field(default_factory=dict)
    missing: str = ""


def progress_of(front: Front, measurements: Sequence[Measurement], began_utc: str = "") -> Progress:
    """The hypervolume after each valid measurement, in the order of ``created_utc``. What misses a limit of the study, or
    has no value for an objective, counts as an evaluation and adds nothing.

    The reference is the float baseline's value for an objective of boards, and the worst feasible value for one of the task,
    where smaller networks mostly lose; the worst feasible value for all when there is no such baseline. Raises ``SpecError``
    when provenances are mixed.
    """
    goals = [goal.metric for goal in front.objectives]
    if len(goals) not in OBJECTIVES:
        return Progress(missing=f"Hypervolume is drawn for two or three objectives; this study has {len(goals)}.")
    valid = sorted((item for item in measurements if item.valid), key=_place)
    require_one_provenance([Candidate(item.digest, item.provenance, item.metrics) for item in valid])
    feasible = [_counts(item, front) for item in valid]
    if not any(feasible):
        return Progress(
            missing="No hypervolume is drawn: no variant meets the limits with a value for every objective."
        )
    costs = np.array(
        [[-goal.sign * item.metrics.get(goal.metric, np.nan) for goal in front.objectives] for item in valid]
    )
    inside = costs[np.array(feasible)]
    reference, best = _reference(front, valid, inside), inside.min(axis=0)
    flat = [phrase(name) for name, worst, least in zip(goals, reference, best, strict=True) if worst <= least]
    if flat:
        return Progress(
            missing=f"No hypervolume is drawn: no variant is better than the reference in {', '.join(flat)}."
        )
    with np.errstate(over="ignore", invalid="ignore"):  # a damaged file may hold absurd values
        scaled = np.where(np.array(feasible)[:, None], (costs - best) / (reference - best), np.inf)
    volumes, times = _volumes(scaled), _elapsed_s(valid, began_utc)
    signs = [-goal.sign for goal in front.objectives]
    return Progress(
        tuple(Step(*step) for step in zip([item.variant.label for item in valid], volumes, times, strict=True)),
        {name: float(sign * value) for name, sign, value in zip(goals, signs, reference, strict=True)},
        {name: float(sign * value) for name, sign, value in zip(goals, signs, best, strict=True)},
    )


def _counts(item: Measurement, front: Front) -> bool:
    complete = all(goal.metric in item.metrics for goal in front.objectives)
    return complete and not shortfalls(item.metrics, front.constraints)


def _reference(front: Front, valid: Sequence[Measurement], inside: Floats) -> Floats:
    """As costs: less is better. ``inside``: those of the feasible, shape (n, objectives)."""
    baseline = next((item.metrics for item in valid if item.digest == front.reference), {})
    worst: Floats = inside.max(axis=0)
    for index, goal in enumerate(front.objectives):
        if goal.metric in BOARD_METRICS and goal.metric in baseline:
            worst[index] = -goal.sign * baseline[goal.metric]
    return worst


def _volumes(points: Floats) -> Iterator[float]:
    """The hypervolume below 1 in each objective after every point. A new point adds its own box, less what the points
    before it dominate of that box: far less work than the whole volume each time."""
    size = points.shape[1]
    corner, found, volume = np.ones(size), np.empty((0, size)), 0.0
    for point in points:
        if np.all(point < corner) and not np.any(np.all(found <= point, axis=1)):
            volume += float(np.prod(corner - point)) - hypervolume(np.maximum(found, point), corner)
            found = np.vstack([found[~np.all(point <= found, axis=1)], point])
        yield volume


def _place(item: Measurement) -> tuple[bool, float, str]:
    """Times of one second, and those that cannot be read (last), stand in the order of digests: the same every time."""
    moment = _moment_s(item.created_utc)
    return (moment is None, moment or 0.0, item.digest)


def _moment_s(utc: str) -> float | None:
    try:
        moment = datetime.fromisoformat(utc)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (OverflowError, ValueError):
        return None


def _elapsed_s(valid: Sequence[Measurement], began_utc: str) -> list[float | None]:
    """Since the study began, or since the first measurement where that was earlier."""
    moments = [_moment_s(item.created_utc) for item in valid]
    known = [moment for moment in (*moments, _moment_s(began_utc)) if moment is not None]
    return [None if moment is None else moment - min(known) for moment in moments]
