"""One run of a study whose every part was found to work: its search, its progress, and the confirmation at its end."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, Literal

from edgedeploy.boards.care.absence import Absence, reached
from edgedeploy.boards.care.attempts import Patience
from edgedeploy.boards.care.quarantine import Quarantine
from edgedeploy.compress.oversight import TrainProgress
from edgedeploy.errors import OutOfTime
from edgedeploy.interfaces.ability import sums_int8_exactly
from edgedeploy.interfaces.board import Board
from edgedeploy.lab.crew import Crew, Machines, Post
from edgedeploy.lab.kinds import health_check, require_unchanged
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.measurement import Failure
from edgedeploy.records.variant import Variant
from edgedeploy.runtime.sensors.probe import probe
from edgedeploy.search.history import Server
from edgedeploy.search.loop import Failed, Finished, Outcome, Scored
from edgedeploy.search.rungs import Rungs
from edgedeploy.spec.boards import BoardTable
from edgedeploy.spec.study import StudySpec
from edgedeploy.study.account import Account
from edgedeploy.study.ahead import ahead_of
from edgedeploy.study.baseline import recovered_baseline
from edgedeploy.study.best import Best, outcome_text
from edgedeploy.study.confirming import Confirming, failure_of
from edgedeploy.study.eta import Eta, Pace, eta
from edgedeploy.study.events import Event, Observer
from edgedeploy.study.known import Known
from edgedeploy.study.limits import limit_marks
from edgedeploy.study.modeller import BASELINE
from edgedeploy.study.outputs import prune_outputs
from edgedeploy.study.power import PowerTold
from edgedeploy.study.preflight import Ready
from edgedeploy.study.runner import Runner, runner_on
from edgedeploy.study.searching import Searching
from edgedeploy.study.settling import Settling
from edgedeploy.study.sources import task_marks
from edgedeploy.study.steadiness import Steadiness
from edgedeploy.study.store import Store
from edgedeploy.study.trial import Trials
from edgedeploy.study.workbench import Workbench, build_here

_NOT_COMPARED: Final = "the baseline after further training is not measured yet"


class StudyRun:
    """One run of a study: its search, its progress, and the confirmation at its end."""

    def __init__(
        self,
        spec: StudySpec,
        ready: Ready,
        store: Store,
        history: Path | Server,
        trials: int,
        observer: Observer,
        known: Known,
    ) -> None:
        self._spec = spec
        self._ready = ready
        self._store = store
        self._history = history
        self._total = trials
        self._observer = observer
        self._account = Account(store)
        self._started_s = time.monotonic()
        self._kept_s = spec.search.remeasure * spec.budget.wall_clock
        self._deadline_s = self._started_s + spec.budget.wall_clock - self._kept_s
        self._outcomes = 0
        self._under_way: TrainProgress | None = None
        self._once_s = 0.0
        self._known = known
        variants = known.variants()
        self._already = sum(not variant.recovered for variant in variants)
        self._further = self._further_baseline(variants)
        measured = known.measurements()
        self._steadiness = Steadiness(measured=bool(measured))
        self._best = Best(store.study(), spec, measured)
        self._recovered = [variant for variant in variants if variant.recovered]
        baselines = [ready.space.baseline_variant(target) for target in ready.space.targets]
        self._metrics = spec.metric_table(ready.task_metrics)
        self._power = PowerTold(spec, ready.task, self._metrics, baselines)
        build = ready.cluster.build if ready.cluster else build_here
        self._rungs = Rungs.of(ready.space.parameters.get("recovery_epochs", ()))
        self._bench = Workbench(
            ready.task,
            ready.targets,
            store,
            self._account,
            self._training,
            build,
            self._say,
            out_of_time=lambda: self._leaving or time.monotonic() >= self._deadline_s,
            exact_sums=all(sums_int8_exactly(info.arch, info.isa) for _, info in ready.boards),
            weights_file=ready.baseline.file,
            rungs=self._rungs,
            memory_limit_bytes=spec.memory_limit_bytes,
            codecs="image_codec" in spec.space,
        )
        self._machines = Machines()
        here = (found := probe())["boot_id"] or found["identity"]
        self._host = self._machines.of(here)
        self._here = here
        self._at_home = any(map(self._is_home, (info for _, info in ready.boards)))
        self._counting = threading.Lock()
        self._several = len(ready.boards) + len(ready.away) > 1
        self._boards = {info.name: (board, info) for board, info in ready.boards}
        self._stage: Callable[[Trials, Variant], Outcome] = self._evaluate
        self._leaving = False
        self._thread = threading.current_thread()
        self._trials = {info.name: self._trials_on(board, info) for board, info in ready.boards}
        self._crew = self._enlist()

    def _is_home(self, info: BoardInfo) -> bool:
        """Whether a board is this host: what trains here would be timed with what it measures. A board that has other cores
        of this machine than this process is none."""
        return info.kernel == self._here and not (
            info.leased_cores and os.sched_getaffinity(0).isdisjoint(info.leased_cores)
        )

    def _place(self, info: BoardInfo) -> AbstractContextManager[object]:
        """What is held while a board runs: its machine. Which board of a cluster takes a job is not known before."""
        if self._ready.cluster is None:
            return self._host if self._is_home(info) else self._machines.of(info.seat)
        return self._host if self._at_home else nullcontext()

    def _trials_on(self, board: Board | None, info: BoardInfo) -> Trials:
        def tell(line: str) -> None:
            self._say("note", line)

        def alive(variant: Variant) -> None:
            self._crew.check(info.name)
            self._say("phase", f"{variant.label}: a run is over")

        return Trials(
            spec=self._spec,
            run=self._runner(board, info, tell),
            provenance=info.provenance,
            bench=self._bench,
            store=self._store,
            known=self._known,
            account=self._account,
            reference_baseline=self._ready.space.baseline_variant(self._ready.space.targets[0]),
            metrics=self._metrics,
            tell=tell,
            alive=alive,
            scenarios=self._ready.scenarios,
            power_modes=info.power_modes,
            marks=(*task_marks(self._store.study()), *limit_marks(self._store.study())),
            host=self._host,
            place=self._place(info),
        )

    def _runner(self, board: Board | None, info: BoardInfo, tell: Callable[[str], None]) -> Runner:
        if self._ready.cluster is not None:
            return self._ready.cluster.run
        assert board is not None
        patience = Patience(away_s=self._spec.board(info.name).away, away_at_first=not self._several)
        return runner_on(board, tell, health_check(info), patience)

    def go(self, confirm: bool) -> Finished:
        power = self._power.at_first(self._known.measurements())
        for line in (*power, *self._ready.left_out, *self._ready.notes):
            self._say("note", line)
        try:
            with self._crew, self._left_at_once():
                finished = self._searching().run(self._total)
                self._compare_at_the_end()
                if finished.reason != "impossible":
                    self._settle()
                if confirm:
                    self._confirming().run()
            prune_outputs(self._store, self._picturable())
            return finished
        finally:
            self._account.close()

    def _searching(self) -> Searching:
        return Searching(
            spec=self._spec,
            ready=self._ready,
            store=self._store,
            history=self._history,
            known=self._known,
            account=self._account,
            bench=self._bench,
            first=next(iter(self._trials.values())),
            crew=self._crew,
            rungs=self._rungs,
            host=self._host,
            say=self._say,
            deadline_s=self._deadline_s,
        )

    def _confirming(self) -> Confirming:
        return Confirming(self._ready, self._store, self._known, self._say, self._all_at)

    def _enlist(self) -> Crew:
        """All boards at the stage at hand, also those that were away when the study began. Time in which the only board has
        no job is the search's, not the board's."""
        posts = [self._post(name) for name in self._trials]
        posts += [
            replace(self._post(table.name), come=partial(self._join, table), absent=True) for table in self._ready.away
        ]
        return Crew(
            posts,
            tell=lambda line: self._say("note", line),
            waiting=self._account.stopped,
            resting=self._account.stopped if len(posts) == 1 else nullcontext,
            ahead=None if self._at_home else ahead_of(self._ready, self._bench, self._host),
        )

    def _post(self, name: str) -> Post:
        cluster = self._ready.cluster
        if cluster is not None:
            return Post(name, partial(self._work, name), cluster.set_aside)
        return Post(
            name,
            partial(self._work, name),
            set_aside=lambda cause: Quarantine().put(self._boards[name][1], cause),
            come=partial(self._come_back, name) if self._several else None,  # an only board is waited for with its job
        )

    def _work(self, board: str, variant: Variant) -> Outcome:
        return self._stage(self._trials[board], variant)

    @contextmanager
    def _left_at_once(self) -> Iterator[None]:
        """When an error or Ctrl-C ends the study, a training that is under way ends too: it keeps its checkpoint."""
        try:
            yield
        except BaseException:
            self._leaving = True
            raise

    def _all_at(self, stage: Callable[[Trials, Variant], Outcome], variants: Sequence[Variant]) -> None:
        self._stage = stage
        futures = [self._crew.submit(variant) for variant in variants]
        with self._account.stopped():
            for future in futures:
                future.result()

    def _absence(self, name: str) -> Absence:
        return Absence(name, self._spec.board(name).away, lambda line: self._say("note", line))

    def _come_back(self, name: str, pause: Callable[[float], None]) -> bool:
        board, _ = self._boards[name]
        assert board is not None
        return reached(board.probe, self._absence(name), pause)[1]

    def _join(self, table: BoardTable, pause: Callable[[float], None]) -> bool:
        """A board that was away when the study began. Raises ``EdgeDeployError`` for one that may not take part."""
        assert self._ready.admit is not None
        admit = partial(self._ready.admit, table)
        (board, info), _ = reached(admit, self._absence(table.name), pause)
        measured = sorted(self._known.measurements(), key=lambda item: item.created_utc)
        told = require_unchanged([item.board for item in measured], [info], self._store.study().get("boards", {}))
        with self._host:
            self._store.keep_board(info.name, info.identity)
            self._boards[info.name] = (board, info)
            self._trials[info.name] = self._trials_on(board, info)
        for line in (f"board {info.name} joins the study", *told):
            self._say("note", line)
        return True

    def _evaluate(self, trials: Trials, variant: Variant) -> Outcome:
        self._say("phase", f"{variant.label}: build and measure")
        outcome = trials.evaluate(variant)
        with self._counting, self._host:
            self._outcomes += 1
            self._account.outcomes += 1
            self._under_way = None  # also of a training that failed
            failed = failure_of(variant, outcome) if isinstance(outcome, Failed) else None
            self._take_in(variant)
            told = outcome_text(outcome, [goal.metric for goal in self._spec.objectives], self._metrics)
            self._say("trial", f"{variant.label}: {told}", failed)
            for line in self._power.now(variant, self._known.measurements):
                self._say("note", line)
            self._steadiness.note(outcome, (time.monotonic() - self._started_s) / self._spec.budget.wall_clock)
        if isinstance(outcome, Scored) and self._is_recovered(variant):
            self._compare(trials)
        return outcome

    def _take_in(self, variant: Variant) -> None:
        with self._account.phase("bookkeeping"):
            found = self._known.measurement(variant.digest)
            if found is not None:
                self._best.add(found)
                prune_outputs(self._store, self._picturable(), self._best.taken)  # others may be at work on theirs

    def _picturable(self) -> set[str]:
        """Whose outputs are kept. A baseline that was trained further counts as one."""
        return self._best.shown | {variant.digest for variant in self._recovered}

    def _further_baseline(self, known: Sequence[Variant]) -> Variant | None:
        """The baseline to be trained as much further as recovered variants are. None when it has an outcome, when nothing
        is recovered or the study file leaves it out, and for folders that were begun before there was this row."""
        if not self._spec.budget.recovered_baseline or not self._store.study().get("recovered_baseline"):
            return None
        further = recovered_baseline(self._ready.space, self._ready.task)
        return None if further in known else further

    def _is_recovered(self, variant: Variant) -> bool:
        changed = not variant.whole or variant.arch_kwargs != dict(self._ready.space.arch_defaults)
        return changed and variant.recovery_epochs != 0

    def _compare_at_the_end(self) -> None:
        """An earlier run may have measured recovered variants and been cut off before the comparison."""
        if self._further is None or not any(self._is_recovered(item.variant) for item in self._known.measurements()):
            return
        if time.monotonic() >= self._deadline_s:
            self._say("note", f"{_NOT_COMPARED}: the time is over. A resumed study measures it")
            return
        self._all_at(self._compare_on, [self._further])

    def _settle(self) -> None:
        if self._kept_s and (self._several or self._ready.cluster is not None):
            self._say("note", "nothing is measured again: with several boards it might come to another one")
        elif self._kept_s:
            settling = Settling(
                self._spec, self._store, self._say, lambda stage, variant: self._all_at(stage, [variant]), self._take_in
            )
            settling.run(min(self._deadline_s, time.monotonic()) + self._kept_s)

    def _compare_on(self, trials: Trials, variant: Variant) -> Outcome:
        self._compare(trials)
        return Scored((), {})

    def _compare(self, trials: Trials) -> None:
        """Measure the baseline that was trained further, once a recovered variant has a number to be compared with. It is
        beyond the number of trials, and within the study's time: cut off, the next run does it."""
        with self._counting:
            further, self._further = self._further, None
        if further is None:
            return
        started_s = time.monotonic()
        try:
            self._say("phase", f"{further.label} (baseline, recovered)")
            outcome = trials.evaluate(further)
        except OutOfTime as exc:
            self._further = further
            self._say("note", f"{_NOT_COMPARED}: {exc}")
            return
        except BaseException:
            self._further = further
            raise
        with self._counting, self._host:
            self._once_s += time.monotonic() - started_s
            self._under_way = None
            failed = failure_of(further, outcome) if isinstance(outcome, Failed) else None
            self._recovered.append(further)
            self._take_in(further)
            told = outcome_text(outcome, [goal.metric for goal in self._spec.objectives], self._metrics)
            self._say("trial", f"{further.label} (baseline, recovered): {told}", failed)

    def _training(self, what: str, state: TrainProgress) -> None:
        """Hears of the one training that may be under way."""
        over = state.epoch == state.epochs
        self._under_way = state
        if over and what == BASELINE:
            self._once_s += state.spent_s
        loss = "" if math.isnan(state.loss) else f", loss {state.loss:.3f}"
        self._say("phase", f"training {what}: epoch {state.epoch} of {state.epochs}{loss}")
        if over:
            self._under_way = None

    def _say(self, kind: Literal["phase", "trial", "note"], text: str, failed: Failure | None = None) -> None:
        if self._leaving and threading.current_thread() is not self._thread:
            return  # of a board that was left behind: the study's log has ended
        done = min(self._already + self._outcomes, self._total)
        left = self._eta(self._total - done + (self._further is not None))
        best = None
        if kind == "trial":
            with self._account.phase("bookkeeping"):
                best = self._best.text()
        if left is None:
            self._observer(Event(kind, text, done, self._total, best=best, failed=failed))
        else:
            self._observer(Event(kind, text, done, self._total, left.seconds, best, left.at_least, failed))

    def _eta(self, to_do: int) -> Eta | None:
        now_s, training = time.monotonic(), self._under_way
        pace = Pace(
            outcomes=self._outcomes,
            spent_s=now_s - self._started_s,
            once_s=self._once_s,
            current_s=training.spent_s if training else 0.0,
            training_left_s=training.left_s if training else None,
        )
        return eta(pace, to_do=to_do, budget_left_s=self._deadline_s - now_s)
