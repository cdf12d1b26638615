"""What a study needs before it starts, every part held against what is here."""

from __future__ import annotations

import logging
import platform
import time
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any, Final

from edgedeploy._version import __version__
from edgedeploy.boards.care.quarantine import Quarantine
from edgedeploy.boards.open import open_board
from edgedeploy.errors import TargetUnavailable
from edgedeploy.interfaces.ability import abilities, runnable, sums_int8_exactly
from edgedeploy.interfaces.board import Board
from edgedeploy.interfaces.scores import metrics_of
from edgedeploy.interfaces.session import PackedSession
from edgedeploy.interfaces.target import (
    BoardBound,
    Calibrating,
    FitsBoard,
    HasSevenBitWeights,
    PerLayer,
    TakesBatches,
    TakesQuantized,
    Target,
)
from edgedeploy.interfaces.task import ReadyMade, Recoverable, TakenAsGiven, Task, baseline_arch
from edgedeploy.lab.cluster import Cluster
from edgedeploy.lab.kinds import require_alike, require_comparable
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.canonical import Choices
from edgedeploy.records.job import ScenarioPlan
from edgedeploy.records.layer_times import LayerTimes
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.precision import AS_GIVEN
from edgedeploy.records.variant import UNIFORM, Scalar
from edgedeploy.records.weightbits import SATURATES
from edgedeploy.search.space import Space
from edgedeploy.spec.boards import BoardTable
from edgedeploy.spec.conditions import check_tries, conditions_of
from edgedeploy.spec.recovery import elastic_of
from edgedeploy.spec.search import combinations_of, points_of
from edgedeploy.spec.source import SpecSource
from edgedeploy.spec.space import check_quantizers
from edgedeploy.spec.study import StudySpec
from edgedeploy.study.as_given import check_given, check_given_space
from edgedeploy.study.baseline import RECOVERY_MEMBERS, TRAINS_HERE, Baseline, find_baseline
from edgedeploy.study.cases import check_cases
from edgedeploy.study.clusters import check_groups
from edgedeploy.study.codecs_here import check_codecs_here, require_codecs
from edgedeploy.study.gathering import Found, gather
from edgedeploy.study.layer_times import with_times
from edgedeploy.study.ranges import ranged
from edgedeploy.study.shrinking import check_network
from edgedeploy.study.tiles_here import check_tiles_here
from edgedeploy.targets.common import CALIBRATION_LIMIT
from edgedeploy.targets.registry import Plugin, demands_of, find_targets, quantizers_of, sessions_of
from edgedeploy.tasks.load import load_task

LOG: Final = logging.getLogger(__name__)
FROM_WIDER: Final = "from_wider"
"""Key of ``study.json``: whether trainings start from wider models."""

LITERT: Final = "litert"
LITERT_TRAINED: Final = "litert_takes_trained"
"""Key of ``study.json``: whether LiteRT takes models that are trained to be int8, as it does in folders of today."""

CALIBRATED_THERE: Final = (
    "on LiteRT int8 is calibrated here, also where training is qat: this folder, or the one that it starts from, was "
    "begun before LiteRT took models that are trained to be int8; a study in a new --out that starts from none has them"
)

RECORDED_PACKAGES: Final = (
    "torch",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
    "ai-edge-litert",
    "ai-edge-quantizer",
    "litert-torch",
    "optuna",
    "torch-pruning",
    "monai",
    "numpy",
)


@dataclass(frozen=True)
class Ready:
    """A study whose every part was found to work."""

    task: Task
    targets: Mapping[str, Target]
    boards: tuple[tuple[Board | None, BoardInfo], ...]
    """Several, or one; a board of the cluster is behind its worker."""
    cluster: Cluster | None
    space: Space
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    """What is worth knowing of the study file and the boards before the study begins."""
    scenarios: tuple[ScenarioPlan, ...]
    baseline: Baseline = TRAINS_HERE
    away: tuple[BoardTable, ...] = ()
    """Boards that did not answer, and may join while the study runs."""
    admit: Callable[[BoardTable], Found] | None = None
    """Opens one of them, and holds it against the study. Raises as :func:`prepare`."""

    @property
    def task_metrics(self) -> dict[str, MetricInfo]:
        return metrics_of(self.task)

    def as_begun(self, study: Mapping[str, Any] | None, times: LayerTimes | None = None) -> Ready:
        """As a folder goes on that was begun with this ``study.json``, or starts from one; None for a new one. In older
        folders no training started from a wider model, and LiteRT had calibrated int8 where others had trained int8:
        variants keep the digests that they have there. ``times`` are the layer times in that folder."""
        space = with_times(self.space, times)
        if study is None:
            return replace(self, space=space)
        choices, notes = space.choices, self.notes
        if not study.get(FROM_WIDER):
            choices = replace(choices, from_wider=False)
        if not study.get(LITERT_TRAINED) and LITERT in choices.trained:
            choices = replace(choices, trained=tuple(name for name in choices.trained if name != LITERT))
            if "qat" in self.space.parameters.get("training", ()):
                notes = (*notes, CALIBRATED_THERE)
        return replace(self, space=replace(space, choices=choices), notes=notes)

    @property
    def litert_takes_trained(self) -> bool:
        """What :data:`LITERT_TRAINED` is of a folder that begins with this."""
        return LITERT not in self.space.targets or LITERT in self.space.choices.trained


def prepare(
    spec: StudySpec,
    source: SpecSource,
    tables: Sequence[BoardTable],
    cluster: Cluster | None = None,
    waiting: Callable[[str], None] | None = None,
    reached: Collection[str] = (),
) -> Ready:
    """Hold the study against its task, its targets and its boards. Writes nothing. ``waiting`` gets a line when a board is
    away; without it no board is waited for. ``reached`` are boards that answered this study before.

    Raises ``SpecError``, ``TargetUnavailable``, ``DataError``, ``BoardError``.
    """
    names = {plugin.name: plugin for plugin in find_targets()}
    task = load_task(spec.task.model_dump(), source.path.resolve().parent)
    given = task.as_given if isinstance(task, TakenAsGiven) else ""
    _check_model(spec, source, task, names, given)
    check_cases(task, spec.space)
    check_groups(task)
    check_codecs_here(source, spec, task)
    baseline = find_baseline(spec, source, task)
    cannot_be_cut = check_tiles_here(source, spec.space, task)
    scenarios = spec.measure.plans(source.path.resolve().parent)
    targets = ready_targets([names[name] for name in spec.study.targets])
    if spec.study.ranges is not None:
        targets = ranged(spec, source, away=cluster is not None)
    if given and isinstance(task, ReadyMade):
        check_given(task.reference_model(), given, targets)
    boards: tuple[tuple[Board | None, BoardInfo], ...]
    away: tuple[BoardTable, ...] = ()
    sessions = sessions_of(targets)
    if cluster is not None:
        boards = tuple((None, info) for info in cluster.boards)
    elif waiting is None:
        boards = tuple(open_and_probe(table, sessions) for table in tables)
    else:
        gathered = gather(tables, lambda table: open_and_probe(table, sessions), waiting, reached)
        boards, away = gathered.here, gathered.away
    _check_boards(spec, source, tables, [info for _, info in boards], targets)
    info, asked = boards[0][1], dict(targets)

    def admit(table: BoardTable) -> Found:
        device, found = open_and_probe(table, sessions)
        _check_boards(spec, source, tables, [info, found], asked)
        return device, found

    targets = {
        name: target.for_board(info) if isinstance(target, FitsBoard) else target for name, target in targets.items()
    }
    space = Space(
        targets=spec.study.targets,
        parameters=dict(spec.space),
        arch_defaults=baseline_arch(task),
        target_precisions={
            name: (AS_GIVEN,) if given else runnable(info, target.precisions, demands_of(target))
            for name, target in targets.items()
        },
        default_threads=max(1, min(info.cores, 4)),
        choices=_choices(spec, task, targets, info),
        tries=points_of(spec.tries, spec.space),
        never=combinations_of(spec.never, spec.space),
        only=conditions_of(spec.only, {"target": spec.study.targets, **spec.space}),
    )
    check_tries(source, space.only, space.tries, space.baseline(space.targets[0]))
    told = tuple(map(str, getattr(task, "notes", ())))
    notes = (*older_keys(source), *baseline.notes, *_saturation(spec, targets, info), *cannot_be_cut, *told)
    left_out = _left_out(spec, targets, info)
    return Ready(task, targets, boards, cluster, space, left_out, notes, scenarios, baseline, away, admit)


def ready_targets(plugins: Sequence[Plugin]) -> dict[str, Target]:
    """The targets by name, each with a toolchain that works here. Raises ``TargetUnavailable``."""
    targets = {}
    for plugin in plugins:
        readiness = plugin.readiness()
        if not readiness.ready:
            raise TargetUnavailable(f"target {plugin.name!r}", readiness.found, readiness.remedy)
        LOG.debug("target %s is ready: %s", plugin.name, readiness.found)
        targets[plugin.name] = plugin.load()
    return targets


def _check_boards(
    spec: StudySpec,
    source: SpecSource,
    tables: Sequence[BoardTable],
    infos: Sequence[BoardInfo],
    targets: Mapping[str, Target],
) -> None:
    """Each board can give what the study asks for, and several boards are of one kind."""
    named = {table.name: table for table in tables}
    for info in infos:
        spec.check_clock(source, info.name, info.clock)
        spec.check_power_modes(source, info.name, named.get(info.name), info.power_modes)
        require_runtimes(info, targets)
        require_codecs(spec, info)
    require_alike(infos)
    if max(len(infos), len(tables)) > 1:
        require_comparable([objective.metric for objective in spec.objectives])


def older_keys(source: SpecSource) -> tuple[str, ...]:
    """Keys of the study file that have a newer name, as notes."""
    if "protocols" not in tomllib.loads(source.text).get("measure", {}):
        return ()
    return (f"{source.path.name}: `protocols` in [measure] is called `scenarios` now; the older name still works",)


def _left_out(spec: StudySpec, targets: Mapping[str, Target], info: BoardInfo) -> tuple[str, ...]:
    """Precisions of the space, and of single layers in its plans, that a target has and the board cannot run: told
    before anything is built."""
    wanted = spec.space.get("precision", ())
    plans = spec.precision_plans()
    chosen = [plans[str(name)] for name in spec.space.get("plan", ()) if name in plans]
    in_layers = {precision for plan in chosen for precision in plan.precisions}
    lines = []
    for name, target in targets.items():
        asked = [("", target.precisions, wanted)]
        if isinstance(target, PerLayer):
            asked.append((" for single layers", target.layer_precisions, tuple(in_layers)))
        lines += [
            f"{name} {ability.precision}{where} is left out on board {info.name}: {ability.reason}"
            for where, offered, named in asked
            for ability in abilities(info, offered, demands_of(target))
            if not ability.runs and ability.precision in named
        ]
    return tuple(lines)


def _saturation(spec: StudySpec, targets: Mapping[str, Target], info: BoardInfo) -> tuple[str, ...]:
    """What int8 variants are in for on a board whose int8 sums saturate."""
    plans = spec.precision_plans()
    chosen = [plans[str(name)] for name in spec.space.get("plan", ()) if name in plans]
    wanted = {*spec.space.get("precision", ()), *(precision for plan in chosen for precision in plan.precisions)}
    names = [
        name
        for name, target in targets.items()
        if isinstance(target, HasSevenBitWeights) and not wanted.isdisjoint(target.seven_bit_precisions)
    ]
    if sums_int8_exactly(info.arch, info.isa) or "weight_bits" in spec.space or not names:
        return ()
    rule = "artifacts are built with 7-bit weights too, and the board keeps the nearer to the float model"
    return (f"board {info.name}: {SATURATES}; int8 {rule} ({', '.join(names)})",)


def _check_model(spec: StudySpec, source: SpecSource, task: Task, names: Mapping[str, Plugin], given: str) -> None:
    """Hold the study against its task and its targets, and what each of them is able to do."""
    for name in spec.study.targets:
        if name in names:
            names[name].load()  # a broken one says so, which is more than that there is no such target
    known = {name: plugin.target.precisions for name, plugin in names.items() if plugin.target is not None}
    if given:
        check_given_space(spec, source, given)
        known = dict.fromkeys(known, (AS_GIVEN,))
    spec.check(source, architecture=task.architecture, task_metrics=metrics_of(task), known_targets=known)
    if isinstance(task, ReadyMade) and "width" in spec.space:
        raise source.error(
            "space.width", "a ready-made model cannot be pruned: it has no training", "Remove it from the space"
        )
    chosen = [names[name].load() for name in spec.study.targets]
    _check_training(spec, source, task, chosen)
    layers = {precision for target in chosen if isinstance(target, PerLayer) for precision in target.layer_precisions}
    asked = spec.space.get("quantizer", ())
    ways = {way for target in chosen for way in _ways(target, asked)}
    narrow = {
        name for target in chosen if isinstance(target, HasSevenBitWeights) for name in target.seven_bit_precisions
    }
    spec.check_choices(source, layer_precisions=layers, calibrations=ways, seven_bit_precisions=narrow)
    wanted = {
        *map(str, spec.space.get("precision", ())),
        *(name for plan in spec.plans.values() for name in plan.values()),
    }
    check_quantizers(source, spec.space, wanted, (name for target in chosen for name in quantizers_of(target)))


def _ways(target: Target, asked: Sequence[Scalar]) -> Iterator[str]:
    """The calibration methods of a target with the quantizers that the space asks it for."""
    tools = quantizers_of(target)
    own = [name for name in asked if name in tuple(tools)[1:]]
    for name in own:
        yield from tools[str(name)]
    if isinstance(target, Calibrating) and len(own) < max(1, len(asked)):  # the others are its default
        yield from target.calibrations


def _check_training(spec: StudySpec, source: SpecSource, task: Task, chosen: Sequence[Target]) -> None:
    if "recovery_epochs" in spec.space and not isinstance(task, Recoverable):
        found = f"it says how long models are trained, but task {task.name!r} has no {', '.join(RECOVERY_MEMBERS)}"
        raise source.error("space.recovery_epochs", found, "Remove it from the space")
    if spec.recovery.elastic_epochs and not isinstance(task, Recoverable):
        found = f"it trains all cuts of a network at once, but task {task.name!r} has no {', '.join(RECOVERY_MEMBERS)}"
        raise source.error("recovery.elastic_epochs", found, "Remove it, or give the task these members")
    if {*spec.space.get("allocation", ())} - {UNIFORM} and not isinstance(task, Recoverable):
        found = f"layers are weighed by the loss of training batches, but task {task.name!r} has none"
        remedy = f"Remove it from the space, or give the task {', '.join(RECOVERY_MEMBERS)}"
        raise source.error("space.allocation", found, remedy)
    check_network(source, spec.space, task)
    if "qat" not in spec.space.get("training", ()):
        return
    if not isinstance(task, Recoverable):
        found = "a ready-made model has" if isinstance(task, ReadyMade) else f"task {task.name!r} has"
        remedy = "Remove it from the space: int8 then comes from calibration"
        if not isinstance(task, ReadyMade):
            remedy += f". Or give the task {', '.join(RECOVERY_MEMBERS)}: its own fit cannot train with quantizers"
        raise source.error("space.training", f'"qat" trains the model, but {found} no training', remedy)
    if not any(isinstance(target, TakesQuantized) and target.takes_quantized for target in chosen):
        found = '"qat" gives a quantized model, and every target of this study quantizes by itself only'
        raise source.error("space.training", found, "Remove it, or add the target onnxruntime, openvino or litert")


def open_and_probe(table: BoardTable, sessions: Sequence[PackedSession]) -> tuple[Board, BoardInfo]:
    """A board that answers and is not set aside."""
    started_s = time.monotonic()
    device = open_board(table.model_dump(), sessions)
    info = device.probe()
    found = f"{info.cpu}, {info.cores} cores, runtimes: {', '.join(info.runtimes) or 'none'}"
    LOG.debug("board %s answered after %.1f s: %s", info.name, time.monotonic() - started_s, found)
    Quarantine().check(info)
    return device, info


def require_runtimes(info: BoardInfo, targets: Mapping[str, Target]) -> None:
    missing = [name for name in targets if name not in info.runtimes]
    if missing:
        found = [*info.runtimes, *info.notes]
        raise TargetUnavailable(
            f"board {info.name!r}",
            f"it has no runtime for {', '.join(missing)} (found: {'; '.join(found) or 'none'})",
            ". ".join(_board_remedy(targets[name]) for name in missing),
        )


def _board_remedy(target: Target) -> str:
    if isinstance(target, BoardBound):
        return target.board_remedy
    return f"On the board: pip install {target.session.packages[0]}"


def _choices(spec: StudySpec, task: Task, targets: Mapping[str, Target], info: BoardInfo) -> Choices:
    """What the study may choose from, as far as its targets can do it and the board can run it."""
    return Choices(
        plans=spec.precision_plans(),
        layers={
            name: runnable(info, target.layer_precisions, demands_of(target))
            for name, target in targets.items()
            if isinstance(target, PerLayer)
        },
        calibrations={name: target.calibrations for name, target in targets.items() if isinstance(target, Calibrating)},
        cases=min(len(task.cases("calibration")), CALIBRATION_LIMIT),
        trained=tuple(
            name for name, target in targets.items() if isinstance(target, TakesQuantized) and target.takes_quantized
        ),
        quantizers={name: quantizers_of(target) for name, target in targets.items()},
        seven_bits={
            name: target.seven_bit_precisions
            for name, target in targets.items()
            if isinstance(target, HasSevenBitWeights)
        },
        elastic=elastic_of(spec.space, spec.recovery.elastic_epochs, task.architecture),
        from_wider=spec.recovery.from_wider and isinstance(task, Recoverable),
        batched=tuple(
            name for name, target in targets.items() if isinstance(target, TakesBatches) and target.takes_batches
        ),
    )


def versions() -> dict[str, str]:
    """Versions of everything that could change a number."""
    found = {"edgedeploy": __version__, "python": platform.python_version(), "system": platform.platform()}
    for name in RECORDED_PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
