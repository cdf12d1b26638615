"""What a study is going to be, before it is run: what it can prove, what it tries, how long it takes. It writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import BoardError
from edgedeploy.interfaces.scores import metrics_of
from edgedeploy.interfaces.task import ReadyMade, Task, baseline_arch, can_recover, is_trained
from edgedeploy.records.metrics import Direction
from edgedeploy.records.variant import Variant
from edgedeploy.reference.program import FromProgram
from edgedeploy.search.warmstart import WarmStart
from edgedeploy.spec.boards import BoardTable
from edgedeploy.spec.source import SpecSource
from edgedeploy.spec.study import StudySpec
from edgedeploy.study.account import EVALUATION_PHASES, summarise
from edgedeploy.study.adoption import models_to_take
from edgedeploy.study.clusters import UNKNOWN, Clusters, clusters_of
from edgedeploy.study.layer_times import kept_times
from edgedeploy.study.models import RECORD
from edgedeploy.study.origin import Origin
from edgedeploy.study.power import Power, lost_share_line, powers_of
from edgedeploy.study.preflight import Ready, prepare
from edgedeploy.study.sources import task_sources
from edgedeploy.study.store import Store
from edgedeploy.study.tried import Tried, tried_by
from edgedeploy.study.warmstart import begins_from, origin_of, warm_start
from edgedeploy.study.whole import flaw_of
from edgedeploy.tasks.load import load_task


@dataclass(frozen=True)
class PhaseTime:
    """``times`` times ``each_s`` seconds; None for what is not known, whose reason is ``why``. ``at_most``: it may be fewer
    times."""

    phase: str
    each_s: float | None
    times: int | None
    why: str = ""
    at_most: bool = False

    @property
    def seconds(self) -> float | None:
        if self.times == 0:
            return 0.0
        return None if self.each_s is None or self.times is None else self.each_s * self.times

    def as_json(self) -> dict[str, Any]:
        return {
            "phase": self.phase,
            "each_s": self.each_s,
            "times": self.times,
            "seconds": self.seconds,
            "at_most": self.at_most,
            "why": self.why,
        }


@dataclass(frozen=True)
class Taken:
    """What a new study takes over from the one of that ``name``: the ``baseline``, and ``models`` by their digests."""

    name: str = ""
    baseline: bool = False
    models: frozenset[str] = frozenset()


NOTHING_TAKEN: Final = Taken()


@dataclass(frozen=True)
class Outlook:
    """``tried`` is None when the board was not reached, which ``unreached`` says then."""

    study: str
    clusters: Clusters
    powers: tuple[Power, ...]
    tried: Tried | None
    times: tuple[PhaseTime, ...]
    wall_clock_s: float
    folder: str = ""
    unreached: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def seconds(self) -> float | None:
        """Of all phases that are known; None where nothing but the confirmation takes any time that is known."""
        total = sum(item.seconds or 0.0 for item in self.times)
        return total if total or set(self.unknown) <= {"confirmation"} else None

    @property
    def unknown(self) -> tuple[str, ...]:
        """Phases whose time is not known."""
        return tuple(item.phase for item in self.times if item.seconds is None)

    def as_json(self) -> dict[str, Any]:
        return {
            "study": self.study,
            "folder": self.folder or None,
            "clusters": self.clusters.as_json(),
            "power": [
                {"metric": item.metric, "margin": item.margin, "reaches": [reach.as_json() for reach in item.reaches]}
                for item in self.powers
            ],
            "tried": self.tried.as_json() if self.tried else None,
            "times": [item.as_json() for item in self.times],
            "seconds": self.seconds,
            "times_unknown": list(self.unknown),
            "wall_clock_s": self.wall_clock_s,
            "unreached": self.unreached or None,
            "notes": list(self.notes),
        }


def outlook(
    spec: StudySpec, source: SpecSource, table: BoardTable, store: Store | None = None, trials: int | None = None
) -> Outlook:
    """Of a study on this board; ``store`` is the folder that it was begun in. Raises what
    :func:`edgedeploy.study.preflight.prepare` raises, except for a board that cannot be reached."""
    begun = store if store is not None and store.exists() else None
    measured = begun.measurements() if begun else ()
    wanted = trials or spec.budget.trials
    times = kept_times(begun.root) if begun else None
    try:
        ready: Ready | None = prepare(spec, source, (table,)).as_begun(begun.study() if begun else None, times)
        unreached = ""
    except BoardError as exc:
        ready, unreached = None, f"{exc.asked}: {exc.found}"
    task = ready.task if ready else load_task(spec.task.model_dump(), source.path.resolve().parent)
    sources = task_sources(spec.task.model_dump(), source.path.resolve().parent)
    origin = origin_of(spec, source, task, sources, store or Store(default_folder(spec)), measured=bool(measured))
    if ready and origin and not begun:
        ready = ready.as_begun(origin.study, origin.layer_times)
    clusters = clusters_of(task)
    baselines = _baselines(spec, task, ready)
    metrics = spec.metric_table(metrics_of(task))
    powers = powers_of(spec, clusters, metrics, baselines, measured)
    directions = [metrics[objective.metric].direction for objective in spec.objectives]
    warm, first, taken = _warm(spec, ready, origin, begun, directions) if ready else (None, (), NOTHING_TAKEN)
    tried = tried_by(spec, ready, wanted, begun.variants() if begun else (), warm) if ready else None
    share = lost_share_line(spec, clusters, metrics)
    unknown = () if clusters.named or not powers else (UNKNOWN,)
    notes = (*((share,) if share else ()), *unknown, *first, *(ready.notes if ready else ()))
    return Outlook(
        spec.study.name,
        clusters,
        powers,
        tried,
        _times(task, begun, tried, spec.task.checkpoint is not None, taken),
        spec.budget.wall_clock,
        str(begun.root) if begun else "",
        unreached,
        notes,
    )


def _warm(
    spec: StudySpec, ready: Ready, origin: Origin | None, begun: Store | None, directions: Sequence[Direction]
) -> tuple[WarmStart | None, tuple[str, ...], Taken]:
    """What another study's trials leave of the first ones here, what is worth knowing of it, and what is not trained again.
    Raises ``DataError`` for a damaged record of a study that was begun."""
    if origin is None:
        record = warm_start(begun, spec, ready.space, directions, lambda variant: {}) if begun else None
        return record, (), NOTHING_TAKEN
    programs = any(isinstance(target, FromProgram) for target in ready.targets.values())
    models = models_to_take(origin, all(origin.sums_as(info) for _, info in ready.boards), programs)
    warm, line = begins_from(origin, spec, ready.space, directions, models)
    return warm, (line,), Taken(origin.name, flaw_of(origin.store.baseline_weights) == "", models)


def _baselines(spec: StudySpec, task: Task, ready: Ready | None) -> list[Variant]:
    if ready is not None:
        return [ready.space.baseline_variant(target) for target in ready.space.targets]
    arch = tuple(sorted(baseline_arch(task).items()))
    return [Variant(target, "float32", 1.0, arch, 1) for target in spec.study.targets]


def _times(task: Task, begun: Store | None, tried: Tried | None, given: bool, taken: Taken) -> tuple[PhaseTime, ...]:
    """By the account of the folder: the mean of each phase over what has an outcome there. ``given``: a file has the
    baseline's weights."""
    to_do = tried.to_do if tried else None
    evaluation: Mapping[str, float | None] = dict.fromkeys((*EVALUATION_PHASES, "search"))
    why = "nothing was measured in a folder of this study (--out names it)"
    if begun is not None:
        outcomes = len(begun.variants())
        spent = summarise(begun.times()).seconds
        if outcomes:
            evaluation = {name: spent[name] / outcomes for name in evaluation}
            why = ""
    phases = [PhaseTime(name, each_s, to_do) for name, each_s in evaluation.items()]
    if why:
        phases = [PhaseTime("build and measurement", None, to_do, why)]
    confirmed = PhaseTime("confirmation", _confirming_s(evaluation), None, "the front decides how many are confirmed")
    return (*_training(task, begun, tried, given, taken), *phases, confirmed)


def _confirming_s(evaluation: Mapping[str, float | None]) -> float | None:
    parts = [evaluation[name] for name in ("upload", "measure", "evaluate")]
    return None if None in parts else sum(part for part in parts if part is not None)


def _training(task: Task, begun: Store | None, tried: Tried | None, given: bool, taken: Taken) -> tuple[PhaseTime, ...]:
    baseline = PhaseTime("training of the baseline", None, 1, "it was not trained yet")
    if isinstance(task, ReadyMade) or is_trained(task) or given:
        baseline = PhaseTime("training of the baseline", None, 0, "its weights are there")
    elif begun is not None and begun.baseline_weights.exists():
        baseline = PhaseTime("training of the baseline", None, 0, "its weights are in the folder")
    elif taken.baseline:
        baseline = PhaseTime("training of the baseline", None, 0, f"its weights are taken over from {taken.name}")
    if isinstance(task, ReadyMade):
        return (baseline,)
    if tried is None:
        return (baseline, PhaseTime("training of variants", None, None, "the board was not reached"))
    if not can_recover(task):
        return (baseline, PhaseTime("training of variants", None, 0, "the task has no training that recovers them"))
    new = [digest for digest in tried.models if digest not in taken.models]
    left = [digest for digest in new if begun is None or not (begun.model_folder(digest) / RECORD).is_file()]
    each = [float(item["wall_s"]) for item in begun.model_trainings()] if begun is not None else []
    each_s = sum(each) / len(each) if each else None
    why = "" if each or not left else "no variant was trained yet"
    return (baseline, PhaseTime("training of variants", each_s, min(len(left), tried.to_do), why, at_most=bool(left)))


def default_folder(spec: StudySpec) -> Path:
    """Where a study is run when no folder is named."""
    return Path("studies") / spec.study.name
