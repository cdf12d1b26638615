"""The front door: load a study, hold every part of it against what is here, run it."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgedeploy.errors import EdgeDeployError, SpecError
from edgedeploy.evidence.front import Front
from edgedeploy.lab.cluster import Cluster
from edgedeploy.lab.kinds import require_unchanged
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.metric_table import BOARD_METRICS
from edgedeploy.records.variant import digest_of
from edgedeploy.report.make import make_report
from edgedeploy.report.notebook import facts_html, front_frame, front_html
from edgedeploy.report.tracking import Tracker
from edgedeploy.search.history import Server, server_at
from edgedeploy.spec.boards import BoardTable
from edgedeploy.spec.evidence import EvidenceTable
from edgedeploy.spec.objectives import ConstraintTable
from edgedeploy.spec.public import hide_in, private_words, secret_words, without
from edgedeploy.spec.recovery import RecoveryTable
from edgedeploy.spec.source import SpecSource
from edgedeploy.spec.study import StudySpec, load_spec
from edgedeploy.study.baseline import recovered_baseline, require_same_weights
from edgedeploy.study.changed_keys import changed_keys
from edgedeploy.study.clusters import clusters_of
from edgedeploy.study.events import Event, EventLog, Observer, ignore
from edgedeploy.study.front import open_index, read_front, stored_spec
from edgedeploy.study.kept_cases import names_of, record_of, require_same_cases
from edgedeploy.study.known import Known
from edgedeploy.study.layer_times import kept_times
from edgedeploy.study.limits import changed_limits, first_limits, limits_of, with_limits
from edgedeploy.study.options import RunOptions
from edgedeploy.study.origin import Origin
from edgedeploy.study.outlook import Outlook, default_folder, outlook
from edgedeploy.study.preflight import FROM_WIDER, LITERT_TRAINED, Ready, prepare, versions
from edgedeploy.study.ranges import RANGES_SHA256, ranges_sha256, require_same_ranges
from edgedeploy.study.retry import set_failures_aside
from edgedeploy.study.run import StudyRun
from edgedeploy.study.sources import changed_sources, task_sources
from edgedeploy.study.store import Store
from edgedeploy.study.warmstart import origin_of, take_over


@dataclass(frozen=True)
class StudyResult:
    """Where a study is, why it ended, and its front. ``evaluated`` of ``wanted`` variants have an outcome; ``cut`` says
    which training the end of the time fell into, if into one: it is kept, and a resumed run goes on with it."""

    folder: Path
    reason: str
    evaluated: int
    front: Front
    wanted: int = 0
    cut: str = ""

    @property
    def partial(self) -> bool:
        """There is no front because the time was over before there could be one."""
        early = bool(self.cut) or not self.front.rows
        return not self.front.members and self.reason == "wall_clock" and early

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` with a line per variant, failed ones included, in base units (see the guide's page on
        results). Raises ``TargetUnavailable`` when pandas is not installed."""
        return front_frame(self.front)

    def _repr_html_(self) -> str:
        said = {
            "Folder": self.folder,
            "Variants": f"{self.evaluated} of {self.wanted}",
            "Ended because of": self.reason,
        }
        return facts_html("Result of a study", said) + front_html(self.front)

    def report(self, to: str | Path | None = None) -> Path:
        """Write the HTML report; returns its path."""
        return make_report(self.folder, to)


def load_study(path: str | Path) -> Study:
    """Read a study file. Raises ``SpecError`` for anything the file by itself gets wrong."""
    path = Path(path)
    spec, source = load_spec(path, kept=path.name == "study.toml" and Store(path.parent).exists())
    return Study(spec, source)


class Study:
    """A study that may be checked and run. Constructing it touches neither boards nor data."""

    def __init__(self, spec: StudySpec, source: SpecSource) -> None:
        self.spec = spec
        self._source = source

    def _repr_html_(self) -> str:
        spec = self.spec
        limits = [f"{limit.metric} {_limit(limit)}" for limit in spec.constraints]
        said = {
            "File": self._source.path,
            "Task": spec.task.kind,
            "Boards": ", ".join(board.name for board in spec.boards),
            "Targets": ", ".join(spec.study.targets),
            "Space": "; ".join(f"{name}: {', '.join(map(str, values))}" for name, values in spec.space.items()),
            "Objectives": ", ".join(goal.metric for goal in spec.objectives),
            "Limits": "; ".join(limits) or "none",
            "Budget": f"{spec.budget.trials} variants, {spec.budget.wall_clock / 60:g} min",
        }
        return facts_html(f"Study {spec.study.name}", said)

    def run(
        self, options: RunOptions | str | Path | None = None, *, observer: Observer = ignore, **older: Any
    ) -> StudyResult:
        """Search until the budget is spent, then open the confirmation split for the front.

        Everything is checked before anything is written. An interrupted run leaves a folder that ``resume`` goes on with.
        ``observer`` hears of each event; the folder's ``events.jsonl`` keeps them. A folder's path, or the options as
        keywords of their own, still work and warn. Raises ``SpecError``, ``TargetUnavailable``, ``DataError``,
        ``BoardError``.
        """
        if not callable(observer):
            found = f"something to call with each event is expected, but got {observer!r}"
            raise SpecError("observer", found, "Give a function of one argument, or leave it out")
        if not isinstance(options, RunOptions):
            options = _older_options(options, older)
        elif older:
            raise TypeError(f"run() takes RunOptions, or keywords, not both: {', '.join(older)}")
        with self._told_without_secrets(options.storage):
            return self._run(options, observer)

    @contextmanager
    def _told_without_secrets(self, storage: str | None = None) -> Iterator[None]:
        """Errors are printed where others look on, logged and copied into questions."""
        try:
            yield
        except EdgeDeployError as exc:
            hide_in(exc, secret_words({**self._as_written(), "study": {"storage": [self.spec.study.storage, storage]}}))
            raise

    def _as_written(self) -> dict[str, Any]:
        return self.spec.model_dump(mode="json", exclude_unset=True, by_alias=True)

    def _private(self, tables: Sequence[BoardTable], storage: str | None) -> tuple[str, ...]:
        """What must not get into anything that is kept, or handed on."""
        written = self._as_written()
        boards = [*written["boards"], *(table.model_dump(mode="json", exclude_unset=True) for table in tables)]
        study = {**written["study"], **({"storage": storage} if storage else {})}
        return private_words({**written, "boards": boards, "study": study})

    def _storage(self, options: RunOptions) -> tuple[str | None, Server | None]:
        """The database for the history, as it is written and as it is used. Both URLs are checked: the folder has a copy of
        the file's."""
        urls = [url for url in (self.spec.study.storage, options.storage) if url is not None]
        servers = [server_at(url, self.spec.study.name) for url in urls]
        return (urls[-1], servers[-1]) if servers else (None, None)

    def _run(self, options: RunOptions, observer: Observer) -> StudyResult:
        tables = tuple(self.spec.board(name) for name in options.boards or (options.board,))
        url, server = self._storage(options)
        store = Store(Path(options.out) if options.out is not None else default_folder(self.spec))
        with ExitStack() as stack:
            store.private = private = self._private(tables, url)
            tracker = None if options.mlflow is None else Tracker(options.mlflow, private)
            cluster = None if options.dask is None else stack.enter_context(closing(Cluster(options.dask)))
            boards = [board.name for board in (cluster.boards if cluster else tables)]
            sources = task_sources(self.spec.task.model_dump(), self._source.path.resolve().parent)
            notes = self._check_folder(store, boards, options.resume)
            limits, limits_told = changed_limits(store, self._begun_with(store) or self.spec, self.spec)
            task_change, told = changed_sources(store, sources, allowed=options.task_changed)
            wanted = options.trials or self.spec.budget.trials
            began = store.study().get("boards", {}) if store.exists() else {}
            ready = prepare(
                self.spec,
                self._source,
                tables,
                cluster,
                partial(_note, observer, wanted),
                {name for name in began if began[name]},
            )
            known = Known(store, open_index(store))
            measured = sorted(known.measurements(), key=lambda item: item.created_utc)
            if store.exists():
                require_same_weights(store.study(), ready.baseline.weights, store.root)
                require_same_ranges(store.study(), ready.targets, store.root)
                told = (*told, *require_same_cases(store, ready.task, measured))
            origin = origin_of(self.spec, self._source, ready.task, sources, store, measured=bool(measured))
            ready = _as_begun(ready, store, origin)
            changed = require_unchanged([item.board for item in measured], [info for _, info in ready.boards], began)
            stack.enter_context(store.own())
            self._mend(store)
            if not store.exists():
                names = names_of(ready.task)
                store.keep_case_names(names)
                kept = {"task_sources": sources, "cases": record_of(ready.task, names), "limits": limits_of(self.spec)}
                store.create(self._source.text, {**self._resolved(ready), **kept})
            known.keep_index(open_index)
            told = (
                *told,
                *take_over(origin, store, self.spec, ready.targets, ready.boards[0][1], versions(), ready.space),
            )
            if options.retry_failed:
                told = (*told, set_failures_aside(store))
            task_change.keep(store, sources)
            if limits:
                store.keep_limit_change(limits)
            history = self._history(store, server)
            ready = replace(
                ready,
                notes=(*ready.notes, *self._margin_note(), *notes, *limits_told, *told, *changed, *store.left_out()),
            )
            log = stack.enter_context(EventLog(store.root, private=private))
            log.start(self.spec.study.name, options.shown())

            def tell(event: Event) -> None:
                log(event)
                observer(replace(event, text=without(event.text, private)))

            finished = StudyRun(self.spec, ready, store, history, wanted, tell, known).go(options.confirm)
            log.finish(finished.reason, finished.evaluated, wanted)
            if tracker is not None:
                tell(_logged(tracker, store, len(store.measurements()) + len(store.failures()), wanted))
            front = replace(read_front(store.root), ended=None)  # the end is written when the log is left
            return StudyResult(store.root, finished.reason, finished.evaluated, front, wanted, finished.cut)

    def _mend(self, store: Store) -> None:
        """Put the study file back where the folder's own is gone or no text, and this is shown to be that file."""
        if store.exists() and self._begun_with(store) is None and store.study().get("spec_digest") == self.digest:
            store.keep_study_text(self._source.text)

    def _margin_note(self) -> tuple[str, ...]:
        """That nobody said what may be lost, or said it twice, where it can be said."""
        goal = next((item.metric for item in self.spec.objectives if item.metric not in BOARD_METRICS), None)
        stated, older = self.spec.evidence.margin, self.spec.pick.non_inferiority_margin
        if goal is None or (stated is None) != (older is None):
            return ()
        if stated is None:
            what = f"nothing says how much of {goal} may be lost"
            return (f"[evidence] margin is not in the study file: {what}, so there will be no verdict and no pick",)
        return (
            "[evidence] margin is what counts; [pick] non_inferiority_margin is an older place of it, and not read",
        )

    def _history(self, store: Store, server: Server | None) -> Path | Server:
        """Where Optuna remembers: on a server under a name that only this folder has."""
        if server is None:
            return store.optimiser_path
        kept = store.study()
        return replace(server, study=f"{self.spec.study.name} {kept.get('id', kept['spec_digest'])}")

    def check(self, board: str | None = None) -> BoardInfo:
        """Everything :meth:`run` would check before it starts."""
        with self._told_without_secrets():
            return prepare(self.spec, self._source, (self.spec.board(board),)).boards[0][1]

    def plan(self, out: str | Path | None = None, *, board: str | None = None, trials: int | None = None) -> Outlook:
        """What the study is going to be: which margins its splits can prove, what it tries, how long it takes as far as
        that is known. ``out`` is the folder that it was begun in, if it was. Writes nothing. Raises as :meth:`check`, except
        for a board that cannot be reached."""
        store = Store(Path(out) if out is not None else default_folder(self.spec))
        with self._told_without_secrets():
            table = self.spec.board(board)
            if store.exists():
                self._check_folder(store, [table.name], resume=True, asked="--out")
            return outlook(self.spec, self._source, table, store, trials)

    def _resolved(self, ready: Ready) -> dict[str, Any]:
        baselines = [ready.space.baseline_variant(target) for target in ready.space.targets]
        return {
            "name": self.spec.study.name,
            "spec_digest": self.digest,
            "spec_path": str(self._source.path.name),
            "spec_folder": str(self._source.path.resolve().parent),
            "board": " + ".join([*(info.name for _, info in ready.boards), *(table.name for table in ready.away)]),
            "board_identity": ready.boards[0][1].identity,
            "boards": {
                **{info.name: info.identity for _, info in ready.boards},
                **{table.name: "" for table in ready.away},  # told when it joins
            },
            "baselines": [variant.as_json() for variant in baselines],
            "baseline_weights": ready.baseline.weights.as_json() if ready.baseline.weights else None,
            "recovered_baseline": recovered_baseline(ready.space, ready.task) is not None,
            "task_metrics": {name: asdict(info) for name, info in ready.task_metrics.items()},
            "clusters": clusters_of(ready.task).as_json(),
            "left_out": list(ready.left_out),
            RANGES_SHA256: ranges_sha256(ready.targets),
            FROM_WIDER: ready.space.choices.from_wider,
            LITERT_TRAINED: ready.litert_takes_trained,
            "versions": versions(),
            "id": uuid.uuid4().hex,
        }

    @property
    def digest(self) -> str:
        """Names what the study asks, its budget and storage left out: a resumed study may be given others."""
        return _digest_of_spec(self.spec)

    def _check_folder(
        self, store: Store, boards: Sequence[str], resume: bool, asked: str = "--resume"
    ) -> tuple[str, ...]:
        """Refuse a folder that this study cannot be run in; what is worth knowing of one that it can be."""
        store.check_place()
        if not store.exists():
            occupied = store.root.is_file() or (store.root.is_dir() and any(store.root.iterdir()))
            if occupied and not (store.root / ".lock").exists():
                raise SpecError(f"--out {store.root}", "it exists and is not a study's folder", "Choose another one")
            return ()
        if not resume:
            raise SpecError(f"--out {store.root}", "it holds a study already", "Add --resume, or choose another one")
        kept = store.study()
        begun = self._begun_with(store)
        first = with_limits(self.spec, first_limits(store, begun or self.spec))
        unchanged = kept["spec_digest"] == _digest_of_spec(first)
        if not unchanged and (
            begun is None or _digest_of_spec(with_limits(begun, limits_of(self.spec))) != self.digest
        ):
            raise SpecError(
                f"{asked} {store.root}",
                "it holds another study: more than the budget and the limits in [measure] differs from this study file"
                f"{self._changed_since(begun)}",
                "Use the study file it was made with (study.toml in it), or choose another --out",
            )
        if not set(boards) <= set(kept.get("boards", (kept["board"],))):
            raise SpecError(
                f"{asked} {store.root}",
                f"it was measured on board {kept['board']!r}",
                "One folder holds the numbers of the boards it began with",
            )
        if unchanged:
            return ()
        began = f"edgedeploy {kept.get('versions', {}).get('edgedeploy', 'of another version')}"
        return (
            f"study files had other keys or defaults when this folder was begun ({began}): it goes on with today's",
        )

    def _changed_since(self, begun: StudySpec | None) -> str:
        """The keys that differ, in parentheses."""
        if begun is None:
            return ""
        before = asked_of(with_limits(begun, limits_of(self.spec)))
        return f" ({', '.join(changed_keys(before, asked_of(self.spec)))})"

    def _begun_with(self, store: Store) -> StudySpec | None:
        """The study file in the folder, read with today's keys and defaults; None where there is none to read."""
        try:
            return stored_spec(store)
        except (EdgeDeployError, OSError, UnicodeDecodeError):
            return None


def _note(observer: Observer, wanted: int, line: str) -> None:
    observer(Event("note", line, 0, wanted))


def _limit(limit: ConstraintTable) -> str:
    return f"at most {limit.at_most}" if limit.at_most is not None else f"at least {limit.at_least}"


def _logged(tracker: Tracker, store: Store, done: int, wanted: int) -> Event:
    """The variants are in MLflow, or why they are not: that ends no study."""
    try:
        text = f"variants in MLflow: {tracker.log(store, read_front(store.root))}"
    except EdgeDeployError as exc:
        text = f"not logged: {exc}"
    return Event("note", text, done, wanted)


def _as_begun(ready: Ready, store: Store, origin: Origin | None) -> Ready:
    """The study as its folder began, or the one that it takes over from."""
    if store.exists():
        return ready.as_begun(store.study(), kept_times(store.root))
    return ready.as_begun(origin.study, origin.layer_times) if origin else ready


def _digest_of_spec(spec: StudySpec) -> str:
    return digest_of(asked_of(spec))[:16]


def asked_of(spec: StudySpec) -> dict[str, Any]:
    """What the evidence depends on: not how the search goes about it."""
    how: dict[str, Any] = dict.fromkeys(("budget", "search", "tries", "never", "only"), True)
    for name, table in (("recovery", RecoveryTable()), ("evidence", EvidenceTable())):
        if getattr(spec, name) == table:  # the digests of studies without it stay what they are
            how[name] = True
    if spec.recovery.from_wider:
        how.setdefault("recovery", {"from_wider"})
    return spec.model_dump(mode="json", exclude={**how, "study": {"storage"}, "boards": {"__all__": {"away"}}})


def _older_options(out: str | Path | None, older: Mapping[str, Any]) -> RunOptions:
    """What ``run`` was given before there were :class:`RunOptions`."""
    if out is None and not older:
        return RunOptions()
    options = RunOptions(**({"out": out, **older} if out is not None else older))
    said = ", ".join(f"{name}={value!r}" for name, value in options.shown().items())
    warnings.warn(f"Study.run takes RunOptions now: run(RunOptions({said}))", FutureWarning, stacklevel=3)
    return options
