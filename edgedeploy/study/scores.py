"""What a task says of the outputs that came back from a board: by case, and over the whole split."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from edgedeploy.errors import SpecError
from edgedeploy.evidence.auroc import placements
from edgedeploy.evidence.split import SPLIT_RESAMPLES, numbered, split_draws, split_score
from edgedeploy.evidence.statistics import summarise_cases
from edgedeploy.interfaces.scores import FixedOnBaseline, Grouped, RanksCases, ScoresSplit
from edgedeploy.interfaces.task import Array, Case, Task
from edgedeploy.interfaces.their_code import their_code
from edgedeploy.records.draws import SplitDraws
from edgedeploy.records.placements import Placements
from edgedeploy.records.variant import Scalar
from edgedeploy.reference.export import Reference, reference_outputs
from edgedeploy.reference.parity import require_finite
from edgedeploy.study.cases import checked_scores, inputs_of, scores_of

FEWEST_RESAMPLES: Final = 100
"""Below this a one-sided bound at 95 % hangs on five draws."""


@dataclass(frozen=True)
class Scores:
    """Values by metric, why others are missing, and what they were made of: see ``records.measurement.Measurement``."""

    metrics: Mapping[str, float]
    missing: Mapping[str, str]
    cases: Mapping[str, Mapping[str, float | None]]
    groups: Mapping[str, int] = field(default_factory=dict)
    draws: Mapping[str, SplitDraws] = field(default_factory=dict)
    placements: Mapping[str, Placements] = field(default_factory=dict)


def score(task: Task, cases: Sequence[Case], outputs: Sequence[Mapping[str, Array]]) -> Scores:
    """Every metric of the task on ``cases`` with the ``outputs`` for them."""
    by_case: dict[str, dict[str, float | None]] = {}
    if cases:
        _check_case(task, cases[0], outputs[0])
    for case, found in zip(cases, outputs, strict=True):
        require_finite(found, case.id)
        by_case[case.id] = scores_of(task, found, case)
    metrics: dict[str, float] = {}
    missing: dict[str, str] = {}
    for name in task.metrics:
        summary = summarise_cases(by_case, name)
        if summary is None:
            missing[name] = "undefined in every case"
        else:
            metrics[name] = summary.mean
    groups = numbered({case.id: str(task.group_of(case)) for case in cases}) if isinstance(task, Grouped) else {}
    if len(set(groups.values())) == len(cases):  # one case each: nothing is drawn together
        groups = {}
    if not isinstance(task, ScoresSplit) or not task.split_metrics:
        return Scores(metrics, missing, by_case, groups)
    names, of_places = tuple(task.split_metrics), _score_of_places(task, cases, outputs)
    every = range(len(cases))
    _require_repeated(f"score() of {len(cases)} cases", of_places(every), of_places(every))
    more, why = split_score(of_places, names, len(cases))
    draws = split_draws(of_places, tuple(more), [case.id for case in cases], groups, _resamples(task))
    ranks = _placements(task, cases, outputs, tuple(more)) if isinstance(task, RanksCases) else {}
    return Scores({**metrics, **more}, {**missing, **why}, by_case, groups, draws, ranks)


def fix_on(task: Task, reference: Reference, arch: Mapping[str, Scalar], cases: Sequence[Case]) -> None:
    """Let the task set what it sets once, by what the float ``reference`` answers on ``cases``, the selection split.
    ``arch`` is the architecture that it was made for."""
    if not isinstance(task, FixedOnBaseline):
        return
    outputs = list(reference_outputs(reference, [inputs_of(task, case, arch) for case in cases]))
    with their_code(task, f"fix() of {len(cases)} cases"):
        task.fix(cases, outputs)


def _score_of_places(
    task: ScoresSplit, cases: Sequence[Case], outputs: Sequence[Mapping[str, Array]]
) -> Callable[[Sequence[int]], Mapping[str, float | None]]:
    names = tuple(task.split_metrics)

    def of_places(places: Sequence[int]) -> Mapping[str, float | None]:
        asked = f"score() of {len(places)} cases"
        with their_code(task, asked):
            found = task.score([cases[place] for place in places], [outputs[place] for place in places])
        return checked_scores(asked, found, names, "split_metrics")

    return of_places


def _placements(
    task: RanksCases, cases: Sequence[Case], outputs: Sequence[Mapping[str, Array]], names: Sequence[str]
) -> dict[str, Placements]:
    """Of the metrics that the task ranks cases by. Raises ``SpecError`` for another number
    of cases."""
    asked = f"ranked() of {len(cases)} cases"
    with their_code(task, asked):
        told = dict(task.ranked(cases, outputs))
    found = {}
    for name, (sides, scores) in told.items():
        if len(sides) != len(cases) or len(scores) != len(cases):
            what = f"{name} has {len(sides)} sides and {len(scores)} scores"
            raise SpecError(asked, what, "Give one of each for every case, in their order")
        placed = placements(sides, scores, [case.id for case in cases])
        if name in names and placed is not None:
            found[name] = placed
    return found


def _check_case(task: Task, case: Case, outputs: Mapping[str, Array]) -> None:
    """Raises ``SpecError`` when ``evaluate`` changes the outputs that it gets, or is random: no number of such a task says
    anything of a variant."""
    asked = f"evaluate() of case {case.id!r}"
    before = {name: np.array(value) for name, value in outputs.items()}
    require_finite(outputs, case.id)
    first = scores_of(task, outputs, case)
    changed = [name for name, value in before.items() if not np.array_equal(value, outputs[name])]
    if changed:
        remedy = "Work on a copy: what is scored next gets the same array"
        raise SpecError(asked, f"it changed the output {changed[0]!r} that it was given", remedy)
    _require_repeated(asked, first, scores_of(task, outputs, case))


def _require_repeated(asked: str, first: Mapping[str, float | None], again: Mapping[str, float | None]) -> None:
    for name, value in first.items():
        other = again[name]
        if value == other or (value is not None and other is not None and math.isclose(value, other, rel_tol=1e-6)):
            continue
        found = f"{name} is {value} and then {other} for the same outputs"
        raise SpecError(
            asked, found, "It has to depend on cases and outputs alone: seed what is random, change neither"
        )


def _resamples(task: ScoresSplit) -> int:
    wanted = getattr(task, "split_resamples", SPLIT_RESAMPLES)
    if type(wanted) is not int or wanted < FEWEST_RESAMPLES:
        raise SpecError(
            "split_resamples of the task", f"got {wanted!r}", f"A whole number of at least {FEWEST_RESAMPLES}"
        )
    return wanted
