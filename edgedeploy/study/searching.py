"""The search of one run: over the study's space, with the plans of its budgets once these can be made."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from edgedeploy.errors import OutOfTime, Unsupported
from edgedeploy.lab.crew import Crew
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Variant
from edgedeploy.search.beliefs import Belief
from edgedeploy.search.history import Server
from edgedeploy.search.loop import Finished, Search
from edgedeploy.search.rungs import Rungs
from edgedeploy.search.space import Space
from edgedeploy.spec.goals import named_constraints
from edgedeploy.spec.study import StudySpec
from edgedeploy.study.account import Account
from edgedeploy.study.impossible import keep_proofs, proofs
from edgedeploy.study.knowledge import knowledge_of
from edgedeploy.study.known import Known
from edgedeploy.study.layer_times import keep_times, kept_times, wants_times, with_times
from edgedeploy.study.layout import NOT_TRIED
from edgedeploy.study.left import keep_left, keep_promotion, left_out_line
from edgedeploy.study.plans import PlanMaker, seeds_in
from edgedeploy.study.preflight import Ready
from edgedeploy.study.store import Store
from edgedeploy.study.trial import Trials
from edgedeploy.study.warmstart import keep_predictions, warm_start
from edgedeploy.study.workbench import Workbench


@dataclass(frozen=True)
class Searching:
    """What a search is made of. ``first`` answers from the evidence, ``host`` is locked while this host works."""

    spec: StudySpec
    ready: Ready
    store: Store
    history: Path | Server
    known: Known
    account: Account
    bench: Workbench
    first: Trials
    crew: Crew
    rungs: Rungs
    host: AbstractContextManager[object]
    say: Callable[[Literal["phase", "note"], str], None]
    deadline_s: float

    def run(self, trials: int) -> Finished:
        """Nothing is trained or measured for goals that are shown to be impossible beforehand. Raises what
        :meth:`edgedeploy.search.loop.Search.run` raises."""
        with self.account.phase("search"):
            found = proofs(self.spec, self.ready.task, self.ready.space, self.first.metrics)
            keep_proofs(self.store, found)
        if found:
            for proof in found:
                self.say("note", proof.line)
            return Finished("impossible", len(self.known.variants()))
        return self._search(self._planned_space(self._timed_space(trials), trials), trials)

    def _search(self, space: Space, trials: int) -> Finished:
        directions = [self.first.metrics[goal.metric].direction for goal in self.spec.objectives]
        knowledge = knowledge_of(
            self.spec,
            self.ready.task,
            space,
            self.first.metrics,
            self.rungs,
            self.store,
            self.account,
            lambda: self.deadline_s - time.monotonic(),
            self._channels_of,
        )
        warm = warm_start(self.store, self.spec, space, directions, knowledge.statics)
        search = Search(
            storage=self.history,
            space=space,
            directions=directions,
            seed=self.spec.study.seed,
            lookup=self.first.lookup,
            clock=self._clock,
            evidence=self.known.variants,
            sampler=self.spec.search.sampler,
            knowledge=knowledge,
            warm=warm,
            proposed=self._proposed,
            objectives=[goal.metric for goal in self.spec.objectives],
            stop_gain=self.spec.search.stop_gain,
            give_up=self.spec.search.give_up,
            more_boards=self.spec.search.more_boards,
        )
        # What this run tries would stand in an earlier run's list.
        (self.store.root / NOT_TRIED).unlink(missing_ok=True)
        try:
            finished = search.run(self.crew, trials=trials, deadline_s=self.deadline_s)
        finally:  # also of a search that is cut: what it measured is predicted no more
            predicted = keep_predictions(self.store, self.spec, warm.predictions()) if warm is not None else None
        if finished.best_gain is not None:
            self.say("note", _converged(finished, finished.best_gain, self.spec))
        if finished.unreachable:
            self.say("note", _unreachable(finished, self.first.metrics, self.spec))
        told = [keep_left(self.store, self.spec, search.left())] if self.rungs.epochs else []
        if finished.reason == "exhausted" and not told:
            tried = {variant.digest for variant in self.known.variants()}
            told.append(left_out_line(space, knowledge.left_out, tried))
        for line in filter(None, (*told, predicted)):
            self.say("note", line)
        return finished

    def _channels_of(self, variant: Variant) -> Hashable:
        with self.host:
            return self.bench.models.channels(variant)

    def _proposed(self, variant: Variant, belief: Belief | None) -> None:
        taken_over = belief is None and self.store.model_folder(variant.model_digest).exists()
        if self.rungs.below(variant) is not None and not taken_over:
            self.say("note", keep_promotion(self.store, self.spec, variant, belief))
        elif belief is not None and belief.explores:
            self.say("note", f"{variant.label} is tried to tell {belief.explores}")

    def _timed_space(self, trials: int) -> Space:
        """The space whose widths by time have the layer times of the study, for which its baselines are measured first."""
        space = with_times(self.ready.space, kept_times(self.store.root))
        if not wants_times(space) or space.choices.layer_times:
            return space
        replace(self, rungs=Rungs())._search(space, min(trials, len(space.targets)))
        named = {variant.layer_times for variant in self.known.variants()} - {""}
        try:
            with self.host, self.account.phase("build"):
                times = self.bench.models.times.take()
                keep_times(self.store.root, times, named)
        except Unsupported as exc:
            self.say("note", f"no widths by time: {exc}")
            return space
        self.say("note", times.text)
        return with_times(space, times)

    def _planned_space(self, space: Space, trials: int) -> Space:
        """The space with the plans of its budgets, which are made once the search's first variants are measured."""
        maker = PlanMaker(
            space,
            self.ready.targets,
            self.bench,
            self.store.root,
            tell=partial(self.say, "note"),
            progress=partial(self.say, "phase"),
            check=self._check_time,
        )
        if maker.missing():
            seeds = min(trials, seeds_in(space))
            replace(self, rungs=Rungs())._search(space, seeds)
            try:
                with self.host, self.account.phase("build"):
                    maker.make(self.store.measurement)
            except OutOfTime as exc:
                self.say("note", f"no precision plans: {exc}")
        return maker.space()

    def _check_time(self) -> None:
        if time.monotonic() >= self.deadline_s:
            raise OutOfTime("precision plans", "the time is over", "A resumed study makes them")

    def _clock(self) -> AbstractContextManager[None]:
        return self.account.phase("search")


def _converged(finished: Finished, best_gain: float, spec: StudySpec) -> str:
    return (
        f"the search ends after {finished.evaluated} variants: the best untried one is expected to raise the front's "
        f"hypervolume by {best_gain:.2g} of it, and stop_gain is {spec.search.stop_gain:g}"
    )


def _unreachable(finished: Finished, metrics: Mapping[str, MetricInfo], spec: StudySpec) -> str:
    limit = named_constraints(spec, metrics)[finished.unreachable]
    return (
        f"the search ends after {finished.evaluated} variants: none of them meets {limit.text(metrics[limit.metric].unit)}, "
        f"and no other one is expected to with a probability above give_up = {spec.search.give_up:g}"
    )
