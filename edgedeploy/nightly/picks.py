"""The pick of a study in a lab: its artifact, the selection cases that it runs on, its float baseline, its task's scorer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from edgedeploy.errors import GoalNotMet, SpecError
from edgedeploy.interfaces.scores import metrics_of
from edgedeploy.interfaces.task import Array, Case
from edgedeploy.nightly.shipped import SCORING, Scorer, Shipped, state_of
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.units import parse_quantity
from edgedeploy.spec.goals import rules_of
from edgedeploy.study.bundle.choice import chosen
from edgedeploy.study.bundle.golden import tolerance_of
from edgedeploy.study.bundle.material import Material, float_baseline, gather
from edgedeploy.study.cases import inputs_of
from edgedeploy.study.front import read_front
from edgedeploy.study.modeller import GOLDEN_CASES
from edgedeploy.study.scores import fix_on
from edgedeploy.study.store import Store

DEFAULT_MARGIN: Final = 0.01
"""What a task's metric may lose, in its own unit, where neither the lab nor the study says it. On one board one artifact
answers the same each night, so that this is no question of noise."""


def of_study(folder: Path, pick: str, margin: float | str | None = None) -> Shipped:
    """A measured variant of a study. Raises what :func:`edgedeploy.study.bundle.material.gather` raises."""
    with pick_told():
        material = gather(folder, pick)
    baseline, place, reference = float_baseline(material)
    golden = tuple(material.task.cases("calibration")[:GOLDEN_CASES])
    cases = tuple(material.task.cases("selection"))
    with SCORING:
        fix_on(material.task, reference, baseline.variant.arch_kwargs, cases)
    metrics = metrics_of(material.task)
    scorer = Scorer(material.task, cases, len(golden), metrics, _margins(material, metrics, margin))
    every = (*golden, *cases)
    beside = _of_measurement(baseline, place, reference.states, every, scorer, _no_other)
    return _of_measurement(
        material.measurement, material.artifact_folder, material.reference.states, every, scorer, lambda: beside
    )


def check_pick(folder: Path, pick: str) -> None:
    """Raises ``GoalNotMet`` for a study without a pick of its own, ``SpecError`` for a digest that is not one variant's."""
    store = Store(folder)
    with pick_told():
        chosen(store, read_front(store.root), pick)


@contextmanager
def pick_told() -> Iterator[None]:
    """A study without a pick is told in the words of a lab file."""
    try:
        yield
    except GoalNotMet as exc:
        remedy = 'Name the variant that is shipped: pick = "DIGEST", of `edgedeploy front --json`'
        raise GoalNotMet(exc.asked, exc.found, remedy) from None


def _no_other() -> Shipped:
    raise SpecError("the baseline of a float baseline", "there is none", "Name another one: baseline = BUNDLE")


def _margins(material: Material, metrics: Mapping[str, MetricInfo], margin: float | str | None) -> Mapping[str, float]:
    """The lab's margin of every metric that has its unit, else the study's own. Raises ``SpecError``."""
    stated = {item.objective.metric: item.allowed for item in rules_of(material.spec, material.front.metrics).margins}
    found = {name: stated.get(name, DEFAULT_MARGIN) for name in metrics}
    if margin is None:
        return found
    if not isinstance(margin, str):
        return dict.fromkeys(metrics, float(margin))
    own = {name: value for name, info in metrics.items() if (value := _in_unit(margin, info.unit)) is not None}
    if not own:
        units = ", ".join(sorted({info.unit for info in metrics.values()}))
        raise SpecError(
            f"accuracy_margin = {margin!r}", f"the task's metrics are in {units}", "Write it in one of them"
        )
    return {**found, **own}


def _in_unit(margin: str, unit: str) -> float | None:
    try:
        return parse_quantity(margin, unit)
    except ValueError:
        return None


def _of_measurement(
    found: Measurement,
    folder: Path,
    states: Mapping[str, str],
    cases: Sequence[Case],
    scorer: Scorer,
    reference: Callable[[], Shipped],
) -> Shipped:
    variant = found.variant

    def inputs() -> dict[str, Array]:
        rows = [inputs_of(scorer.task, case, variant.arch_kwargs) for case in cases]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    mode = variant.power_mode
    return Shipped(
        artifact=found.artifact,
        source=folder,
        threads=variant.threads,
        states=dict(states),
        state=state_of(found.artifact, None, variant.threads),
        inputs=inputs,
        answers=None,
        answers_of="",
        tolerance=tolerance_of(found, states),
        precisions=variant.precisions,
        reference=reference,
        scorer=scorer,
        power_mode=((found.board.power_modes.get(mode, "nvpmodel"), mode),) if mode else (),
    )
