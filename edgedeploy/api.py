"""The front door: load a study, run it, read what it found. The only place, with the CLI, that wires the floors together."""

from __future__ import annotations

import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

from edgedeploy import __version__
from edgedeploy.ability import abilities, runnable
from edgedeploy.account import Account
from edgedeploy.boards.opening import open_board
from edgedeploy.boards.quarantine import Quarantine
from edgedeploy.cluster import Cluster
from edgedeploy.errors import BoardError, EdgeDeployError, SpecError, TargetUnavailable
from edgedeploy.evidence.frontier import FrontReport
from edgedeploy.lab import Crew, Machines, Post, health_check, require_alike, require_comparable
from edgedeploy.measurement import BoardInfo, ProtocolPlan
from edgedeploy.plugins import Plugin, demands_of, find_targets
from edgedeploy.protocols import (
    Board,
    BoardBound,
    Calibrating,
    PerLayer,
    ReadyMade,
    TakesQuantized,
    Target,
    Task,
    Trainable,
)
from edgedeploy.reporting import make_report, read_front
from edgedeploy.runtime.probe import RUNTIME_PACKAGES, probe
from edgedeploy.search.history import Server, server_at
from edgedeploy.search.space import Space
from edgedeploy.search.study import Failed, Finished, Outcome, Scored, Search
from edgedeploy.spec import BoardTable, SpecSource, StudySpec, load_spec
from edgedeploy.store import Store
from edgedeploy.targets import BUILTIN_TARGETS
from edgedeploy.targets.common import CALIBRATION_LIMIT
from edgedeploy.tasks.catalog import load_task
from edgedeploy.trial import Runner, Trials, runner_on
from edgedeploy.units import human
from edgedeploy.variant import Choices, Variant, digest_of
from edgedeploy.workbench import Workbench

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


QUICK_RESAMPLES: Final = 200


@dataclass(frozen=True)
class Event:
    """Something an observer may show. ``done`` of ``total`` variants have an outcome; ``eta_s`` is None when unknown."""

    kind: Literal["phase", "trial", "note"]
    text: str
    done: int
    total: int
    eta_s: float | None = None
    best: str | None = None


Observer = Callable[[Event], None]


def _ignore(event: Event) -> None:
    """The observer of who does not look."""


@dataclass(frozen=True)
class StudyResult:
    """Where a study is, why it ended, and its front."""

    folder: Path
    reason: str
    evaluated: int
    front: FrontReport

    def report(self, to: str | Path | None = None) -> Path:
        """Write the HTML report; returns its path."""
        return make_report(self.folder, to)


@dataclass(frozen=True)
class _Ready:
    """A study whose every part was found to work."""

    task: Task
    targets: Mapping[str, Target]
    boards: tuple[tuple[Board | None, BoardInfo], ...]
    """Several, or one; a board of the cluster is behind its worker."""
    cluster: Cluster | None
    space: Space
    left_out: tuple[str, ...]
    protocols: tuple[ProtocolPlan, ...]


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
        observer: Observer = _ignore,
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
            stack.enter_context(store.own())
            if not store.exists():
                store.create(self._source.text, self._resolved(ready))
            history = self._history(store, storage or self.spec.study.storage)
            return _Run(self.spec, ready, store, history, trials or self.spec.budget.trials, observer).go(confirm)

    def _history(self, store: Store, url: str | None) -> Path | Server:
        """Where Optuna remembers: on a server under a name that only this folder has."""
        if url is None:
            return store.optimiser_path
        return server_at(url, f"{self.spec.study.name} {store.study().get('id', self.digest)}")

    def check(self, board: str | None = None) -> BoardInfo:
        """Everything :meth:`run` would check before it starts."""
        return self._prepare((self.spec.board(board),)).boards[0][1]

    def _prepare(self, tables: Sequence[BoardTable], cluster: Cluster | None = None) -> _Ready:
        names = {plugin.name: plugin for plugin in find_targets(BUILTIN_TARGETS)}
        known = {name: plugin.target.precisions for name, plugin in names.items() if plugin.target is not None}
        for name in self.spec.study.targets:
            plugin = names.get(name)
            if plugin is not None and plugin.target is None:
                raise TargetUnavailable(
                    f"target {name!r}", f"its plugin is broken: {plugin.broken}", "Mend or remove it"
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
            boards = tuple(_open_and_probe(table) for table in tables)
        else:
            boards = tuple((None, info) for info in cluster.boards)
        named = {table.name: table for table in tables}
        for _, info in boards:
            self.spec.check_clock(self._source, info.name, info.clock)
            self.spec.check_power_modes(self._source, info.name, named.get(info.name), info.power_modes)
            _require_runtimes(info, targets)
        info = boards[0][1]
        require_alike([found for _, found in boards])
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
        return _Ready(task, targets, boards, cluster, space, self._left_out(targets, info), protocols)

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
        self.spec.check_choices(self._source, layer_precisions=layers, calibrations=ways)

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

    def _resolved(self, ready: _Ready) -> dict[str, Any]:
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


def _open_and_probe(table: BoardTable) -> tuple[Board, BoardInfo]:
    """A board that answers and is not set aside."""
    device = open_board(table.model_dump())
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


class _Run:
    """One run of a study: its search, its progress, and the confirmation at its end."""

    def __init__(
        self, spec: StudySpec, ready: _Ready, store: Store, history: Path | Server, trials: int, observer: Observer
    ) -> None:
        self._spec = spec
        self._ready = ready
        self._store = store
        self._history = history
        self._total = trials
        self._observer = observer
        self._account = Account(store)
        self._started_s = time.monotonic()
        self._outcomes = 0
        self._already = len(store.measurements()) + len(store.failures())
        self._bench = Workbench(ready.task, ready.targets, store, self._account, self._training)
        self._machines = Machines()
        here = probe()["identity"]
        self._host = self._machines.of(here)
        self._at_home = any(info.identity == here for _, info in ready.boards)
        self._counting = threading.Lock()
        self._crew: Crew | None = None
        self._trials = {info.name: self._trials_on(board, info) for board, info in ready.boards}

    def _place(self, info: BoardInfo) -> AbstractContextManager[object]:
        """What is held while a board runs: its machine. Which board of a cluster takes a job is not known before."""
        if self._ready.cluster is None:
            return self._machines.of(info.identity)
        return self._host if self._at_home else nullcontext()

    def _trials_on(self, board: Board | None, info: BoardInfo) -> Trials:
        def tell(line: str) -> None:
            self._say("note", line)

        def alive(variant: Variant) -> None:
            if self._crew is not None:
                self._crew.check(info.name)
            self._say("phase", variant.label)

        return Trials(
            spec=self._spec,
            run=self._runner(board, info, tell),
            provenance=info.provenance,
            bench=self._bench,
            store=self._store,
            account=self._account,
            reference_baseline=self._ready.space.baseline_variant(self._ready.space.targets[0]),
            metrics=self._spec.metric_table(self._ready.task.metrics),
            tell=tell,
            alive=alive,
            protocols=self._ready.protocols,
            power_modes=info.power_modes,
            host=self._host,
            place=self._place(info),
        )

    def _runner(self, board: Board | None, info: BoardInfo, tell: Callable[[str], None]) -> Runner:
        if self._ready.cluster is not None:
            return self._ready.cluster.run
        assert board is not None
        return runner_on(board, tell, health_check(info))

    def go(self, confirm: bool) -> StudyResult:
        for line in self._ready.left_out:
            self._say("note", line)
        first = next(iter(self._trials.values()))
        try:
            search = Search(
                storage=self._history,
                space=self._ready.space,
                directions=[first.metrics[o.metric].direction for o in self._spec.objectives],
                seed=self._spec.study.seed,
                lookup=first.lookup,
                evaluate=partial(self._evaluate, first),
                clock=self._searching,
                evidence=self._store.variants,
            )
            deadline_s = self._started_s + self._spec.budget.wall_clock
            if len(self._trials) == 1:
                finished = search.run(trials=self._total, deadline_s=deadline_s)
            else:
                with self._crewed(self._evaluate) as crew:
                    finished = search.run_on(crew, trials=self._total, deadline_s=deadline_s)
            if confirm:
                self._confirm()
            return self._result(finished)
        finally:
            self._account.close()

    def _searching(self) -> AbstractContextManager[None]:
        return self._account.phase("search")

    def _result(self, finished: Finished) -> StudyResult:
        return StudyResult(self._store.root, finished.reason, finished.evaluated, read_front(self._store.root))

    @contextmanager
    def _crewed(self, work: Callable[[Trials, Variant], Outcome]) -> Iterator[Crew]:
        """All boards at ``work``."""
        infos = {info.name: info for _, info in self._ready.boards}
        cluster = self._ready.cluster
        posts = [
            Post(name, partial(work, trials), cluster.set_aside if cluster else partial(Quarantine().put, infos[name]))
            for name, trials in self._trials.items()
        ]
        crew = Crew(posts, tell=lambda line: self._say("note", line), waiting=self._account.stopped)
        self._crew = crew
        with crew:
            yield crew

    def _evaluate(self, trials: Trials, variant: Variant) -> Outcome:
        self._say("phase", variant.label)
        outcome = trials.evaluate(variant)
        with self._counting, self._host:
            self._outcomes += 1
            self._say("trial", f"{variant.label}: {_outcome_text(outcome, self._spec)}")
        return outcome

    def _training(self, what: str, state: Any) -> None:
        self._say("phase", f"training {what}: epoch {state.epoch} of {state.epochs}, loss {state.loss:.3f}")

    def _say(self, kind: Literal["phase", "trial", "note"], text: str) -> None:
        done = min(self._already + self._outcomes, self._total)
        self._observer(
            Event(kind, text, done, self._total, self._eta_s(done), self._best() if kind == "trial" else None)
        )

    def _eta_s(self, done: int) -> float | None:
        if not self._outcomes:
            return None
        spent_s = time.monotonic() - self._started_s
        left_s = spent_s / self._outcomes * (self._total - done)
        return max(0.0, min(left_s, self._spec.budget.wall_clock - spent_s))

    def _best(self) -> str | None:
        """The pick of what is measured so far, with its objectives: a quick look, the front at the end takes its time."""
        with self._account.phase("bookkeeping"):
            front = read_front(self._store.root, resamples=QUICK_RESAMPLES)
        row = front.row(front.pick.digest) if front.pick else None
        if row is None:
            return None
        values = (f"{o.metric} {human(row.estimates[o.metric].value, front.unit(o.metric))}" for o in front.objectives)
        return f"{row.variant.label} ({', '.join(values)})"

    def _confirm(self) -> None:
        """Run the baselines, the front, and what is not shown to be worse than it on the confirmation split, once each; the
        opening is logged. Nothing is chosen by it: it says how far the choice carries."""
        front = read_front(self._store.root)
        done = {measurement.digest for measurement in self._store.confirmations()}
        baselines = [self._ready.space.baseline_variant(target) for target in self._ready.space.targets]
        measured = {measurement.digest: measurement.variant for measurement in self._store.measurements()}
        wanted = [v.digest for v in baselines if v.digest in measured] + [member.digest for member in front.members]
        wanted += [row.digest for row in front.excluded if row.confidence == "indistinguishable"]
        missing = [digest for digest in dict.fromkeys(wanted) if digest not in done]
        if not missing:
            return
        self._store.log_opening(
            "end of the search: baselines, front, and what is indistinguishable from it", tuple(missing)
        )
        variants = [measured[digest] for digest in missing]
        first = next(iter(self._trials.values()))
        if len(self._trials) == 1:
            for variant in variants:
                self._confirm_one(first, variant)
            return
        with self._crewed(self._confirm_one) as crew:
            for future in [crew.submit(variant) for variant in variants]:
                future.result()

    def _confirm_one(self, trials: Trials, variant: Variant) -> Outcome:
        self._say("phase", f"confirmation: {variant.label}")
        try:
            trials.measure(variant, "confirmation")
            return Scored((), {})
        except (BoardError, KeyboardInterrupt):
            raise
        except EdgeDeployError as exc:
            self._say("note", f"confirmation of {variant.label}: {exc}")
            return Failed(type(exc).__name__, str(exc))


def _board_remedy(target: Target) -> str:
    if isinstance(target, BoardBound):
        return target.board_remedy
    return f"On the board: pip install {RUNTIME_PACKAGES.get(target.name, (target.name,))[0]}"


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
    )


def _outcome_text(outcome: Outcome, spec: StudySpec) -> str:
    if isinstance(outcome, Scored):
        pairs = zip(spec.objectives, outcome.values, strict=True)
        text = ", ".join(f"{objective.metric} {value:.4g}" for objective, value in pairs)
        violated = [name.partition(" ")[2] for name, value in outcome.constraints.items() if value > 0]
        return f"{text} (misses {', '.join(violated)})" if violated else text
    return f"no number: {outcome.kind}"


def versions() -> dict[str, str]:
    """Versions of everything that could change a number."""
    found = {"edgedeploy": __version__, "python": platform.python_version(), "system": platform.platform()}
    for name in RECORDED_PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
