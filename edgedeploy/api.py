"""The front door: load a study, hold every part of it against what is here, run it."""

from __future__ import annotations

import platform
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from edgedeploy._version import __version__
from edgedeploy.boards.care.quarantine import Quarantine
from edgedeploy.boards.open import open_board
from edgedeploy.errors import SpecError, TargetUnavailable
from edgedeploy.evidence.front import FrontReport
from edgedeploy.interfaces.ability import abilities, runnable, sums_int8_exactly
from edgedeploy.interfaces.board import Board
from edgedeploy.interfaces.session import PackedSession
from edgedeploy.interfaces.target import (
    BoardBound,
    Calibrating,
    FitsBoard,
    HasSevenBitWeights,
    PerLayer,
    TakesQuantized,
    Target,
)
from edgedeploy.interfaces.task import ReadyMade, Task, Trainable
from edgedeploy.lab.cluster import Cluster
from edgedeploy.lab.kinds import require_alike, require_comparable, require_unchanged
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.variant import Choices, digest_of
from edgedeploy.records.weightbits import SATURATES
from edgedeploy.report.make import make_report
from edgedeploy.search.history import Server, server_at
from edgedeploy.search.space import Space
from edgedeploy.spec.boards import BoardTable
from edgedeploy.spec.source import SpecSource
from edgedeploy.spec.study import StudySpec, load_spec
from edgedeploy.study.front import read_front
from edgedeploy.study.preflight import Ready
from edgedeploy.study.run import Observer, StudyRun, ignore
from edgedeploy.study.store import Store
from edgedeploy.targets.common import CALIBRATION_LIMIT
from edgedeploy.targets.registry import Plugin, demands_of, find_targets, sessions_of
from edgedeploy.tasks.load import load_task

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
class StudyResult:
    """Where a study is, why it ended, and its front. ``evaluated`` of ``wanted`` variants have an outcome; ``cut`` says
    which training the end of the time fell into, if into one: it is kept, and a resumed run goes on with it."""

    folder: Path
    reason: str
    evaluated: int
    front: FrontReport
    wanted: int = 0
    cut: str = ""

    @property
    def partial(self) -> bool:
        """There is no front because the time was over before there could be one."""
        early = bool(self.cut) or not self.front.rows
        return not self.front.members and self.reason == "wall_clock" and early

    def report(self, to: str | Path | None = None) -> Path:
        """Write the HTML report; returns its path."""
        return make_report(self.folder, to)


def load_study(path: str | Path) -> Study:
    """Read a study file. Raises ``SpecError`` for anything the file by itself gets wrong."""
    spec, source = load_spec(Path(path))
    return Study(spec, source)


class Study:
    """A study that may be checked and run. Constructing it touches neither boards nor data."""

    def __init__(self, spec: StudySpec, source: SpecSource) -> None:
        self.spec = spec
        self._source = source

    def run(
        self,
        out: str | Path | None = None,
        *,
        trials: int | None = None,
        resume: bool = False,
        board: str | None = None,
        boards: Sequence[str] = (),
        storage: str | None = None,
        dask: str | None = None,
        confirm: bool = True,
        observer: Observer = ignore,
    ) -> StudyResult:
        """Search until the budget is spent, then open the confirmation split for the front (unless ``confirm`` is False).

        ``out`` defaults to ``studies/NAME``. Everything is checked before anything is written. An interrupted run
        leaves a folder that ``resume=True`` goes on with. ``boards`` names several boards of one kind that share the work:
        each variant is measured on one of them, beside the baseline on the same one. ``storage`` is the
        URL of a PostgreSQL database for the history of proposals, ``dask`` the address of a scheduler whose workers have the
        boards (``edgedeploy work``). Raises ``SpecError``, ``TargetUnavailable``, ``DataError``, ``BoardError``.
        """
        tables = tuple(self.spec.board(name) for name in boards) if boards else (self.spec.board(board),)
        store = Store(Path(out) if out is not None else Path("studies") / self.spec.study.name)
        with ExitStack() as stack:
            cluster = None if dask is None else stack.enter_context(closing(Cluster(dask)))
            self._check_folder(store, [board.name for board in (cluster.boards if cluster else tables)], resume)
            ready = self._prepare(tables, cluster)
            measured = sorted(store.measurements(), key=lambda item: item.created_utc)
            changed = require_unchanged([item.board for item in measured], [info for _, info in ready.boards])
            stack.enter_context(store.own())
            if not store.exists():
                store.create(self._source.text, self._resolved(ready))
            history = self._history(store, storage or self.spec.study.storage)
            wanted = trials or self.spec.budget.trials
            ready = replace(ready, notes=(*ready.notes, *changed))
            finished = StudyRun(self.spec, ready, store, history, wanted, observer).go(confirm)
            front = read_front(store.root)
            return StudyResult(store.root, finished.reason, finished.evaluated, front, wanted, finished.cut)

    def _history(self, store: Store, url: str | None) -> Path | Server:
        """Where Optuna remembers: on a server under a name that only this folder has."""
        if url is None:
            return store.optimiser_path
        return server_at(url, f"{self.spec.study.name} {store.study().get('id', self.digest)}")

    def check(self, board: str | None = None) -> BoardInfo:
        """Everything :meth:`run` would check before it starts."""
        return self._prepare((self.spec.board(board),)).boards[0][1]

    def _prepare(self, tables: Sequence[BoardTable], cluster: Cluster | None = None) -> Ready:
        names = {plugin.name: plugin for plugin in find_targets()}
        known = {name: plugin.target.precisions for name, plugin in names.items() if plugin.target is not None}
        for name in self.spec.study.targets:
            plugin = names.get(name)
            if plugin is not None and plugin.target is None:
                raise TargetUnavailable(
                    f"target {name!r}", f"its plugin is broken: {plugin.broken}", "Update or uninstall its package"
                )
        task = load_task(self.spec.task.model_dump(), self._source.path.resolve().parent)
        self.spec.check(self._source, architecture=task.architecture, task_metrics=task.metrics, known_targets=known)
        self._check_model(task, names)
        protocols = self.spec.measure.plans(self._source.path.resolve().parent)
        targets: dict[str, Target] = {}
        for name in self.spec.study.targets:
            target = names[name].load()
            readiness = target.probe()
            if not readiness.ready:
                raise TargetUnavailable(f"target {name!r}", readiness.found, readiness.remedy)
            targets[name] = target
        boards: tuple[tuple[Board | None, BoardInfo], ...]
        if cluster is None:
            boards = tuple(_open_and_probe(table, sessions_of(targets)) for table in tables)
        else:
            boards = tuple((None, info) for info in cluster.boards)
        named = {table.name: table for table in tables}
        for _, info in boards:
            self.spec.check_clock(self._source, info.name, info.clock)
            self.spec.check_power_modes(self._source, info.name, named.get(info.name), info.power_modes)
            _require_runtimes(info, targets)
        info = boards[0][1]
        require_alike([found for _, found in boards])
        targets = {
            name: target.for_board(info) if isinstance(target, FitsBoard) else target
            for name, target in targets.items()
        }
        if len(boards) > 1:
            require_comparable([objective.metric for objective in self.spec.objectives])
        space = Space(
            targets=self.spec.study.targets,
            parameters=dict(self.spec.space),
            arch_defaults={name: values[0] for name, values in task.architecture.items()},
            target_precisions={
                name: runnable(info, target.precisions, demands_of(target)) for name, target in targets.items()
            },
            default_threads=max(1, min(info.cores, 4)),
            choices=_choices(self.spec, task, targets, info),
        )
        left_out, notes = self._left_out(targets, info), self._saturation(targets, info)
        return Ready(task, targets, boards, cluster, space, left_out, notes, protocols)

    def _left_out(self, targets: Mapping[str, Target], info: BoardInfo) -> tuple[str, ...]:
        """Precisions of the space, and of single layers in its plans, that a target has and the board cannot run: told
        before anything is built."""
        wanted = self.spec.space.get("precision", ())
        plans = self.spec.precision_plans()
        chosen = [plans[str(name)] for name in self.spec.space.get("plan", ()) if name in plans]
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

    def _saturation(self, targets: Mapping[str, Target], info: BoardInfo) -> tuple[str, ...]:
        """What int8 variants are in for on a board whose int8 sums saturate."""
        names = [
            name
            for name, target in targets.items()
            if isinstance(target, HasSevenBitWeights)
            and any(precision in target.seven_bit_precisions for precision in self.spec.space.get("precision", ()))
        ]
        if sums_int8_exactly(info.arch, info.isa) or "weight_bits" in self.spec.space or not names:
            return ()
        rule = "artifacts are built with 7-bit weights too, and the board keeps the nearer to the float model"
        return (f"board {info.name}: {SATURATES}; int8 {rule} ({', '.join(names)})",)

    def _check_model(self, task: Task, names: Mapping[str, Plugin]) -> None:
        """What depends on the abilities of the task and the targets that are theirs to have or not."""
        if isinstance(task, ReadyMade) and "width" in self.spec.space:
            raise self._source.error(
                "space.width", "a ready-made model cannot be pruned: it has no training", "Remove it from the space"
            )
        chosen = [names[name].load() for name in self.spec.study.targets]
        self._check_training(task, chosen)
        layers = {
            precision for target in chosen if isinstance(target, PerLayer) for precision in target.layer_precisions
        }
        ways = {way for target in chosen if isinstance(target, Calibrating) for way in target.calibrations}
        narrow = {
            name for target in chosen if isinstance(target, HasSevenBitWeights) for name in target.seven_bit_precisions
        }
        self.spec.check_choices(self._source, layer_precisions=layers, calibrations=ways, seven_bit_precisions=narrow)

    def _check_training(self, task: Task, chosen: Sequence[Target]) -> None:
        if "qat" not in self.spec.space.get("training", ()):
            return
        if not isinstance(task, Trainable):
            found = "a ready-made model has" if isinstance(task, ReadyMade) else f"task {task.name!r} has"
            remedy = "Remove it from the space: int8 then comes from calibration"
            raise self._source.error("space.training", f'"qat" trains the model, but {found} no training', remedy)
        if not any(isinstance(target, TakesQuantized) and target.takes_quantized for target in chosen):
            found = '"qat" gives quantized ONNX, and every target of this study quantizes by itself only'
            raise self._source.error("space.training", found, "Remove it, or add the target onnxruntime or openvino")

    def _resolved(self, ready: Ready) -> dict[str, Any]:
        baselines = [ready.space.baseline_variant(target) for target in ready.space.targets]
        return {
            "name": self.spec.study.name,
            "spec_digest": self.digest,
            "spec_path": str(self._source.path.name),
            "spec_folder": str(self._source.path.resolve().parent),
            "board": " + ".join(info.name for _, info in ready.boards),
            "board_identity": ready.boards[0][1].identity,
            "boards": {info.name: info.identity for _, info in ready.boards},
            "baselines": [variant.as_json() for variant in baselines],
            "task_metrics": {name: asdict(info) for name, info in ready.task.metrics.items()},
            "left_out": list(ready.left_out),
            "versions": versions(),
            "id": uuid.uuid4().hex,
        }

    @property
    def digest(self) -> str:
        """Names what the study asks, its budget and storage left out: a resumed study may be given others."""
        return digest_of(self.spec.model_dump(mode="json", exclude={"budget": True, "study": {"storage"}}))[:16]

    def _check_folder(self, store: Store, boards: Sequence[str], resume: bool) -> None:
        store.check_place()
        if not store.exists():
            occupied = store.root.is_file() or (store.root.is_dir() and any(store.root.iterdir()))
            if occupied and not (store.root / ".lock").exists():
                raise SpecError(f"--out {store.root}", "it exists and is not a study's folder", "Choose another one")
            return
        if not resume:
            raise SpecError(f"--out {store.root}", "it holds a study already", "Add --resume, or choose another one")
        kept = store.study()
        if kept["spec_digest"] != self.digest:
            raise SpecError(
                f"--resume {store.root}",
                "it holds another study: more than the budget differs from this study file",
                "Use the study file it was made with (study.toml in it), or choose another --out",
            )
        if not set(boards) <= set(kept.get("boards", (kept["board"],))):
            raise SpecError(
                f"--resume {store.root}",
                f"it was measured on board {kept['board']!r}",
                "One folder holds the numbers of the boards it began with",
            )


def _open_and_probe(table: BoardTable, sessions: Sequence[PackedSession]) -> tuple[Board, BoardInfo]:
    """A board that answers and is not set aside."""
    device = open_board(table.model_dump(), sessions)
    info = device.probe()
    Quarantine().check(info)
    return device, info


def _require_runtimes(info: BoardInfo, targets: Mapping[str, Target]) -> None:
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
        seven_bits={
            name: target.seven_bit_precisions
            for name, target in targets.items()
            if isinstance(target, HasSevenBitWeights)
        },
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
