"""What a study tells its search of variants beforehand: how large they are, and what cannot change a metric."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from edgedeploy.compress.sizes import shapes_of, widths_of
from edgedeploy.interfaces.task import Task
from edgedeploy.records.goals import Constraint
from edgedeploy.records.metric_table import BOARD_METRICS
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.shrink import Shrink
from edgedeploy.records.variant import Variant
from edgedeploy.search.knowledge import Knowledge
from edgedeploy.search.ladder import Ladder
from edgedeploy.search.mending import Mending
from edgedeploy.search.outcomes import NETWORK, Failed, Outcome
from edgedeploy.search.rungs import Rungs
from edgedeploy.spec.goals import named_constraints
from edgedeploy.spec.study import StudySpec
from edgedeploy.study.account import Account
from edgedeploy.study.paces import Paces
from edgedeploy.study.sizes import Sizes
from edgedeploy.study.store import Store
from edgedeploy.study.twins import WIDTH, Arch, Twins

if TYPE_CHECKING:
    from edgedeploy.search.space import Space

FAR_OFF: Final = 0.5
"""Share of a limit by which a time or a memory that is measured once misses it, whatever the noise."""

NO_NETWORK: Final = "its network cannot be made"
NOT_FOR_ACCURACY: Final = frozenset({"threads", "power_mode", "instances"})
OF_WEIGHTS_ALONE: Final = frozenset({"recovery_epochs"})
NOT_FOR_SIZE: Final = NOT_FOR_ACCURACY | {"calibration", "calibration_cases", "image_codec"} | OF_WEIGHTS_ALONE


def knowledge_of(
    spec: StudySpec,
    task: Task,
    space: Space,
    metrics: Mapping[str, MetricInfo],
    rungs: Rungs,
    store: Store,
    account: Account,
    left_s: Callable[[], float],
    channels_of: Callable[[Variant], Hashable],
) -> Knowledge:
    """Of the study file and the task; with rungs of recovery, of what its folder says trainings took too. ``channels_of``
    is that of :class:`edgedeploy.study.twins.Twins`."""
    sizes = Sizes(task, space)
    plain = _of_the_file(spec, metrics, sizes)
    answers = [index for index, goal in enumerate(spec.objectives) if goal.metric not in BOARD_METRICS]
    directions = [metrics[goal.metric].direction for goal in spec.objectives]
    mending = Mending(directions, answers, lambda target, precision: _begun_with(space, target, precision))
    refused = Refused(rungs)
    has_rules = bool(space.never or space.only)  # else every share goes with everything
    twins = Twins(partial(_left_of, task), channels_of, space.offers if has_rules else lambda variant: True)

    def told_anyway(variant: Variant, outcome: Outcome) -> None:
        mending.told(variant, outcome)
        refused.told(variant, outcome)
        twins.told(variant, outcome)

    def left_out(variant: Variant) -> str:
        return refused.left_out(variant) or twins.left_out(variant)

    if not rungs.epochs:
        return replace(plain, left_out=left_out, explores=mending.explores, told=told_anyway)
    paces = Paces(store, account, lambda variant: sizes.of(variant).get("macs", 0.0))
    ladder = Ladder(
        rungs,
        fixed=[index for index, objective in enumerate(spec.objectives) if objective.metric in BOARD_METRICS],
        macs=paces.macs,
        parameters=lambda variant: sizes.of(variant).get("parameters", 0.0),
        made=paces.is_trained,
        pace=paces.now,
        left_s=left_s,
        limits={
            name: 0.0 if limit.metric == "size_bytes" else FAR_OFF
            for name, limit in named_constraints(spec, metrics).items()
            if name not in plain.of_weights
        },
    )

    def told(variant: Variant, outcome: Outcome) -> None:
        paces.take_in(variant)
        ladder.told(variant, outcome)
        told_anyway(variant, outcome)

    return replace(
        plain,
        before=ladder.before,
        left_out=lambda variant: left_out(variant) or ladder.left_out(variant),
        exact=ladder.exact,
        cost_s=ladder.cost_s,
        explores=lambda variant: ladder.explores(variant) or mending.explores(variant),
        trains=lambda variant: rungs.below(variant) is not None,
        told=told,
    )


def _left_of(task: Task, arch: Arch, name: str, share: float) -> Hashable:
    """See :class:`edgedeploy.study.twins.Twins`."""
    if name == WIDTH:
        return widths_of(task, dict(arch), share)
    return shapes_of(task, dict(arch), Shrink.of({name: share}, ()))


def _of_the_file(spec: StudySpec, metrics: Mapping[str, MetricInfo], sizes: Sizes) -> Knowledge:
    """What is known before anything has happened, whatever the study has in its folder."""
    limits = _limits(spec, metrics)
    return Knowledge(
        statics=sizes.of,
        without_effect=tuple(without_effect(objective.metric) for objective in spec.objectives),
        limits={index: limit.bound for index, limit in limits.values()},
        limited=frozenset(limits),
        of_weights=frozenset(
            name for name, limit in named_constraints(spec, metrics).items() if limit.metric not in BOARD_METRICS
        ),
        bounds=_bounds(spec, metrics),
        linear=frozenset(index for index, goal in enumerate(spec.objectives) if goal.scale == "linear"),
    )


def _begun_with(space: Space, target: str, precision: str) -> Variant | None:
    """The baseline in another precision that is searched."""
    if precision not in space.parameters.get("precision", ()):
        return None
    return space.variant({**space.baseline(target), "precision": precision})


class Refused:
    """The networks that turned out to be none, such as one with fewer channels than a layer needs: no target and no
    precision of them is proposed again, nor a higher rung."""

    def __init__(self, rungs: Rungs) -> None:
        self._rungs = rungs
        self._models: set[str] = set()

    def told(self, variant: Variant, outcome: Outcome) -> None:
        if isinstance(outcome, Failed) and outcome.phase == NETWORK:
            self._models.add(variant.model_digest)

    def left_out(self, variant: Variant) -> str:
        lowest = self._rungs.lowest(variant) if self._rungs.epochs else variant
        return NO_NETWORK if self._models & {variant.model_digest, lowest.model_digest} else ""


def _limits(spec: StudySpec, metrics: Mapping[str, MetricInfo]) -> dict[str, tuple[int, Constraint]]:
    """The constraints on objectives themselves, by name, each with the index of its objective."""
    places = {goal.metric: index for index, goal in enumerate(spec.objectives)}
    return {
        name: (places[limit.metric], limit)
        for name, limit in named_constraints(spec, metrics).items()
        if limit.metric in places and (limit.at_least is not None) == (metrics[limit.metric].direction == "maximize")
    }


def _bounds(spec: StudySpec, metrics: Mapping[str, MetricInfo]) -> dict[int, float]:
    bounds = ((index, metrics[goal.metric].best) for index, goal in enumerate(spec.objectives))
    return {index: bound for index, bound in bounds if bound is not None}


def without_effect(metric: str) -> frozenset[str]:
    """Parameters that cannot change the metric."""
    if metric not in BOARD_METRICS:
        return NOT_FOR_ACCURACY
    return NOT_FOR_SIZE if metric == "size_bytes" else OF_WEIGHTS_ALONE
