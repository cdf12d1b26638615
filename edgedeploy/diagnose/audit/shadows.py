"""Shadow models of a study's task, for the attack of :mod:`edgedeploy.diagnose.audit.membership`.

A shadow is the study's baseline, trained once more on a random half of the pool: training and selection cases. It
becomes an artifact as the audited one did. The task's own ``batches`` have to follow its ``cases``; that they do is
counted.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from edgedeploy.compress.model import train_baseline
from edgedeploy.diagnose.audit.membership import FEWEST_SHADOWS, Attack, Bools, Floats, attack, confidence
from edgedeploy.errors import SpecError
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.interfaces.task import Case, Split, Task, Trainable
from edgedeploy.records.variant import Scalar, Variant
from edgedeploy.reference.export import export_reference
from edgedeploy.runtime.sessions.open import Session, open_session
from edgedeploy.study.cases import inputs_of, scores_of
from edgedeploy.study.preflight import ready_targets
from edgedeploy.targets.registry import find_targets

LOG_LOSS: Final = "log_loss"
ASKED: Final = "membership inference"


@dataclass(frozen=True)
class Membership:
    """``attacks`` on each artifact alone, then on all of them. ``signal`` is what they read; ``why_not`` is why
    nothing was measured."""

    attacks: tuple[Attack, ...] = ()
    signal: str = ""
    why_not: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "attacks": [item.as_json() for item in self.attacks],
            "signal": self.signal,
            "not_measured": self.why_not,
        }


def measure_membership(
    task: Task,
    variant: Variant,
    sessions: Mapping[str, Session],
    count: int,
    *,
    seed: int = 0,
    deadline: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = lambda text: None,
) -> Membership:
    """Train ``count`` shadows and attack each of ``sessions``: ``float`` is the float model, any other name the
    artifact. The members are the task's training cases, the outsiders its selection cases."""
    reason = _why_not(task, variant, count)
    if reason:
        return Membership(why_not=reason)
    pool = (*task.cases("train"), *task.cases("selection"))
    members = np.array([case.split == "train" for case in pool])
    metric, signal = _signal(task)
    audited = {name: _asked(task, variant, session, pool, metric) for name, session in sessions.items()}
    trained_on = np.zeros((count, len(pool)), bool)
    shadows: dict[str, list[Floats]] = {name: [] for name in sessions}
    rng = np.random.default_rng(seed)
    for number in range(count):
        if deadline():
            return Membership(why_not=f"the time was over after {number} of {count} shadows")
        tell(f"shadow {number + 1} of {count}")
        rows = np.sort(rng.permutation(len(pool))[: len(pool) // 2])
        trained_on[number, rows] = True
        with TemporaryDirectory(prefix="edgedeploy-shadow-") as place:
            made = _shadow(task, variant, [pool[row] for row in rows], Path(place))
            for name, found in shadows.items():
                session = made["float" if name == "float" else "artifact"]
                found.append(_asked(task, variant, session, pool, metric))
    signals = {name: (audited[name][None], np.stack(shadows[name])) for name in sessions}
    try:
        return Membership(tuple(attacks(signals, members[None], trained_on, seed)), signal)
    except ValueError as exc:  # a signal that some model does not define takes a case away, all of them may go
        return Membership(why_not=str(exc))


def attacks(
    signals: Mapping[str, tuple[Floats, Floats]], audited_on: Bools, trained_on: Bools, seed: int = 0
) -> list[Attack]:
    """On each artifact alone, and on all of them together where there are several."""
    alone = [attack({name: signals[name]}, audited_on, trained_on, seed) for name in signals]
    return [*alone, attack(signals, audited_on, trained_on, seed)] if len(signals) > 1 else alone


def _why_not(task: Task, variant: Variant, count: int) -> str:
    further = variant.training or variant.recovered or variant.shrink or variant.width != 1.0
    known = (
        (count == 0, "no shadows were asked for: each is a training of its own (--shadows 8)"),
        (count < FEWEST_SHADOWS, f"{count} shadows are too few: {FEWEST_SHADOWS} are needed (--shadows 8)"),
        (
            not isinstance(task, Trainable),
            f"task {task.name!r} is not trained by edgedeploy's own loop: shadows need one",
        ),
        (bool(further), "the variant was trained after its baseline (pruned, or as int8): shadows are baselines"),
        (count > 0 and not task.cases("train"), "the task has no training cases here"),
    )
    reason = next((text for holds, text in known if holds), "")
    return reason or _why_not_halved(task, variant)


def _why_not_halved(task: Task, variant: Variant) -> str:
    train = task.cases("train")
    half = train[: max(2, len(train) // 2)]
    if _rows(restricted(task, half), variant) < _rows(task, variant):
        return ""
    return "the task's batches do not follow its cases(): no half of its training cases can be trained on alone"


def _rows(task: Any, variant: Variant) -> int:
    """Cases in one epoch."""
    import torch

    count = 0
    for inputs, _ in task.batches(0, task.baseline_recipe.batch_size, **variant.arch_kwargs):
        first = (
            inputs if isinstance(inputs, torch.Tensor) else next(iter(getattr(inputs, "values", lambda x=inputs: x)()))
        )
        count += len(first)
    return count


def restricted(task: Task, train: Sequence[Case]) -> Task:
    """A copy of the task whose training cases are these."""

    def cases(self: Task, split: Split) -> Sequence[Case]:
        return tuple(train) if split == "train" else task.cases(split)

    other = copy.copy(task)
    other.__class__ = type(type(task).__name__, (type(task),), {"cases": cases})
    return other


def _shadow(task: Task, variant: Variant, train: Sequence[Case], place: Path) -> dict[str, Session]:
    """Train one, export it and build its artifact, with the ranges of the task's calibration cases."""
    arch: dict[str, Scalar] = variant.arch_kwargs
    model = train_baseline(restricted(task, train), arch)
    reference = export_reference(model, task.input_specs(**arch), place / "reference.onnx")
    plugin = next((each for each in find_targets() if each.name == variant.target), None)
    if plugin is None:
        raise SpecError(ASKED, f"target {variant.target!r} is not installed", "Install it, or leave the shadows out")
    calibration = [inputs_of(task, case, arch) for case in task.cases("calibration")]
    request = BuildRequest(
        place / "reference.onnx",
        reference.inputs,
        reference.outputs,
        variant.precision,
        lambda: iter(calibration),
        calibrator=variant.calibration,
        quantizer=variant.quantizer,
    )
    artifact = ready_targets([plugin])[variant.target].build(request, place / "artifact")
    own = open_session(variant.target, place / "artifact", artifact.entry, dict(artifact.settings), 1)
    return {"float": open_session("onnxruntime", place, "reference.onnx", {}, 1), "artifact": own}


def _signal(task: Task) -> tuple[str, str]:
    """The metric of a case that is read, and what it is called."""
    if LOG_LOSS in task.metrics:
        return LOG_LOSS, "log(p / (1 - p)) of the probability of the true class"
    name = next(iter(task.metrics))
    return name, f"{name} of each case"


def _asked(task: Task, variant: Variant, session: Session, pool: Sequence[Case], metric: str) -> Floats:
    values = []
    for case in pool:
        found = scores_of(task, session.run(inputs_of(task, case, variant.arch_kwargs)), case)[metric]
        values.append(np.nan if found is None else float(found))
    scores = np.array(values, np.float64)
    return confidence(np.exp(-scores)) if metric == LOG_LOSS else scores
