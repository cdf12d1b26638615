"""The search: Optuna proposes, the caller evaluates, the store answers what was already evaluated.

Optuna's storage holds only the history of proposals; the evidence store says whether a variant has been evaluated. A
killed search therefore loses nothing:

- killed before the evidence was stored: the trial is still RUNNING in the storage; its parameters are enqueued again;
- killed after the evidence was stored and before Optuna was told: the enqueued parameters are answered from the store.

A step on a locked storage is retried for a while. A storage that is lost or damaged is created again and filled from
the evidence.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
import optuna

from edgedeploy.errors import OutOfTime
from edgedeploy.records.metrics import Direction
from edgedeploy.records.variant import Scalar, Variant
from edgedeploy.search.history import Answer, Server, open_history, patiently
from edgedeploy.search.space import Space

MAX_CONSECUTIVE_DUPLICATES: Final = 12
"""After this many proposals in a row that were already evaluated, an untried variant is drawn at random instead."""

GP_TRIALS: Final = 150
"""Beyond this many trials a Gaussian process takes longer than its better proposals save; NSGA-II takes over."""


@dataclass(frozen=True)
class Scored:
    """Objective values in the order of the objectives; a constraint is met when its value is <= 0."""

    values: tuple[float, ...]
    constraints: Mapping[str, float]


@dataclass(frozen=True)
class Failed:
    """A variant without a number; ``kind`` names the cause, ``phase`` where it happened. The optimiser learns of the failure
    but gets no value."""

    kind: str
    message: str
    phase: str = ""


Outcome = Scored | Failed
StopReason = Literal["trials", "wall_clock", "exhausted"]


@dataclass(frozen=True)
class Finished:
    """Why the search ended and how many distinct variants have an outcome. ``cut`` describes the training that the end
    of the time interrupted, if there was one: its variant has no outcome, and the next run evaluates it."""

    reason: StopReason
    evaluated: int
    cut: str = ""


class ParallelEvaluator(Protocol):
    """Evaluates several variants at once. A protocol, because boards of this process and boards of a cluster implement
    it differently."""

    def slots(self) -> int:
        """How many variants may be evaluated at the same time now; at least 1."""

    def submit(self, variant: Variant) -> Future[Outcome]:
        """Start an evaluation and return its future outcome. An exception in it ends the search."""

    def waiting(self) -> AbstractContextManager[None]:
        """Wraps the time in which the search only waits."""


class Search:
    """One multi-objective search over ``space``, resumable from its storage: a SQLite file, or a server.

    ``lookup`` answers from the evidence (None: not evaluated yet); ``evaluate`` makes new evidence; ``evidence`` lists the
    variants that ``lookup`` knows, in the order they were made. ``clock`` wraps the optimiser's own work, so that it can be
    charged to the study's time account.
    """

    def __init__(
        self,
        *,
        storage: Path | Server,
        space: Space,
        directions: Sequence[Direction],
        seed: int,
        lookup: Callable[[Variant], Outcome | None],
        evaluate: Callable[[Variant], Outcome],
        clock: Callable[[], AbstractContextManager[None]],
        evidence: Callable[[], Iterable[Variant]] = tuple,
    ) -> None:
        self._space = space
        self._lookup = lookup
        self._evaluate = evaluate
        self._clock = clock
        self._evidence = evidence
        self._path = storage
        self._rng = np.random.default_rng(seed)
        self._outcomes: dict[str, Outcome] = {}
        self._flying: dict[Future[Outcome], tuple[optuna.Trial, Variant]] = {}
        self._distributions = space.distributions()
        optuna.logging.set_verbosity(logging.ERROR)
        with clock():
            self._study = open_history(storage, directions)
            self._study.sampler = _sampler(seed, len(self._study.trials))

    def run(self, *, trials: int, deadline_s: float) -> Finished:
        """Evaluate until one of these happens:

        - ``trials`` distinct variants have an outcome (evidence of earlier runs counts);
        - the monotonic clock passes ``deadline_s``, or an evaluation raises ``OutOfTime``: its trial stays RUNNING and
          the next run enqueues it again;
        - nothing is left to try.
        """
        with self._clock():
            tried = self._persist(self._recover)
        duplicates = 0
        while len(tried) < trials:
            if time.monotonic() >= deadline_s:
                return Finished("wall_clock", len(tried))
            with self._clock():
                if duplicates >= MAX_CONSECUTIVE_DUPLICATES:
                    params = self._space.untried(tried, self._rng)
                    if params is None:
                        return Finished("exhausted", len(tried))
                    self._persist(partial(self._enqueue, params))
                trial, variant = self._persist(self._ask)
            known = self._known(variant)
            duplicates = 0 if known is None else duplicates + 1
            try:
                outcome = known if known is not None else self._evaluate(variant)
            except OutOfTime as exc:
                return Finished("wall_clock", len(tried), str(exc))
            self._outcomes[variant.digest] = outcome
            with self._clock():
                self._persist(partial(self._tell, trial, outcome))
            tried.add(variant.digest)
        return Finished("trials", len(tried))

    def run_on(self, crew: ParallelEvaluator, *, trials: int, deadline_s: float) -> Finished:
        """As :meth:`run`, evaluating as many variants at once as ``crew`` has slots, each variant once.

        After the deadline or an ``OutOfTime``, it waits for the running evaluations. Any other exception of the crew is
        raised after the outcomes that arrived with it have been stored.
        """
        with self._clock():
            tried = self._persist(self._recover)
        cut = ""
        while True:
            reason = "wall_clock" if cut else self._launch(crew, tried, trials, deadline_s)
            if not self._flying:
                return Finished(reason or "trials", len(tried), cut)
            with crew.waiting():
                landed, _ = wait(self._flying, return_when=FIRST_COMPLETED)
            cut = self._land(landed, tried) or cut

    def _launch(self, crew: ParallelEvaluator, tried: set[str], trials: int, deadline_s: float) -> StopReason | None:
        """Fill the free slots. Returns why the search is over, or None."""
        duplicates = 0
        while len(tried) + len(self._flying) < trials:
            if time.monotonic() >= deadline_s:
                return "wall_clock"
            if len(self._flying) >= crew.slots():
                return None
            under_way = {variant.digest for _, variant in self._flying.values()}
            with self._clock():
                if duplicates:
                    params = self._space.untried(tried | under_way, self._rng)
                    if params is None:
                        return "exhausted"
                    self._persist(partial(self._enqueue, params))
                trial, variant = self._persist(self._ask)
                known = self._known(variant)
                if known is None and variant.digest not in under_way:
                    duplicates = 0
                    self._flying[crew.submit(variant)] = (trial, variant)
                    continue
                duplicates += 1
                self._persist(partial(self._tell, trial, known or Failed("Duplicate", "it is under way already")))
                if known is not None:
                    tried.add(variant.digest)
        return None if self._flying else "trials"

    def _land(self, landed: Iterable[Future[Outcome]], tried: set[str]) -> str:
        """Tell Optuna the outcomes of the finished evaluations. Returns the training that ``OutOfTime`` interrupted, or
        an empty string."""
        failures, cut = [], ""
        for future in landed:
            trial, variant = self._flying.pop(future)
            failure = future.exception()
            if isinstance(failure, OutOfTime):
                cut = str(failure)
                continue
            if failure is not None:
                failures.append(failure)  # its trial stays RUNNING: the next run enqueues it again
                continue
            self._outcomes[variant.digest] = outcome = future.result()
            with self._clock():
                self._persist(partial(self._tell, trial, outcome))
            tried.add(variant.digest)
        if failures:
            raise failures[0]
        return cut

    def _known(self, variant: Variant) -> Outcome | None:
        """The outcome of a variant from the evidence or from this run. An unstable variant, or one whose builds
        disagreed, is remembered for this run only: the next run tries it again."""
        found = self._lookup(variant)
        return found if found is not None else self._outcomes.get(variant.digest)

    def _persist(self, step: Callable[[], Answer]) -> Answer:
        """Run a storage step with retries. A step must be safe to repeat after it was partly done."""
        return patiently(step, self._path)

    def _ask(self) -> tuple[optuna.Trial, Variant]:
        self._void_stale()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            trial = self._study.ask(fixed_distributions=self._distributions)
        variant = self._space.variant(trial.params)
        trial.set_user_attr("variant", variant.digest)
        return trial, variant

    def _tell(self, trial: optuna.Trial, outcome: Outcome) -> None:
        if isinstance(outcome, Failed):
            trial.set_user_attr("failure", f"{outcome.kind}: {outcome.message}"[:500])
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a constraint that was set before the storage failed is set again
            for name, value in outcome.constraints.items():
                trial.set_constraint(name, value)
        self._study.tell(trial, list(outcome.values), skip_if_finished=True)

    def _enqueue(self, params: Mapping[str, Scalar]) -> None:
        self._study.enqueue_trial(dict(params))

    def _recover(self) -> set[str]:
        """Bring the storage up to date before the search.

        - Trials that an interrupted run left RUNNING are marked as failed, and their parameters are enqueued first.
        - A fresh study gets its first proposals.
        - Evidence that the storage lacks is added: an earlier run was killed, or the storage replaces a lost one.

        Returns the digests of the variants that already have an outcome.
        """
        self._void_stale()
        self._replay()
        for params in self._seeds():
            self._study.enqueue_trial(params, skip_if_exists=True)
        self._try_again()
        self._put_lost_first()
        variants = (self._space.variant(trial.params) for trial in self._study.trials if trial.params)
        return {variant.digest for variant in variants if self._lookup(variant) is not None}

    def _try_again(self) -> None:
        """Enqueue first what failed before without evidence: conditions that drifted, or builds that disagreed. Neither
        was the variant's fault."""
        state = optuna.trial.TrialState
        trials = self._study.get_trials(deepcopy=False, states=[state.WAITING, state.FAIL])
        known: set[str] = set()
        for trial in sorted(trials, key=lambda trial: trial.state == state.FAIL):  # what waits is not enqueued twice
            params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            if set(params) != set(self._distributions):
                continue
            variant = self._space.variant(params)
            left_open = "failure" in trial.user_attrs and self._lookup(variant) is None
            if left_open and variant.digest not in known:
                self._enqueue(params)
            if left_open or trial.state == state.WAITING:
                known.add(variant.digest)

    def _put_lost_first(self) -> None:
        """Enqueue before all that waits what had an outcome and has no evidence any more: its file was damaged or removed,
        and the front lacks it, the baseline perhaps."""
        state = optuna.trial.TrialState
        lost: dict[str, Mapping[str, Scalar]] = {}
        for trial in self._study.get_trials(deepcopy=False, states=[state.COMPLETE]):
            if set(trial.params) == set(self._distributions):
                variant = self._space.variant(trial.params)
                if self._lookup(variant) is None:
                    lost[variant.digest] = trial.params
        if not lost:
            return
        waiting = self._study.get_trials(deepcopy=False, states=[state.WAITING])
        for _ in waiting:
            self._study.ask()
        for params in lost.values():
            self._enqueue(params)
        self._void_stale()  # what waited was taken out of the queue, and goes to its end

    def _void_stale(self) -> None:
        """Mark RUNNING trials that this process is not evaluating as failed, and enqueue their parameters again unless
        the evidence has their outcome. One process owns the study, so nobody else is evaluating them."""
        flying = {trial.number for trial, _ in self._flying.values()}
        for trial in self._study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
            if trial.number in flying:
                continue
            params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            if set(params) == set(self._distributions) and not self._replayable(params):
                self._enqueue(params)
            self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    def _replayable(self, params: Mapping[str, Scalar]) -> bool:
        variant = self._space.variant(params)
        return self._lookup(variant) is not None and self._space.params_of(variant) is not None

    def _replay(self) -> None:
        """Add a trial for each variant that has evidence but no trial, if the space can express it."""
        told = [
            trial
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state == optuna.trial.TrialState.COMPLETE or "failure" in trial.user_attrs
        ]
        known = {trial.user_attrs.get("variant") for trial in told}
        for variant in self._evidence():
            params, outcome = self._space.params_of(variant), self._lookup(variant)
            if params is None or outcome is None or variant.digest in known:
                continue
            attributes = {"variant": variant.digest}
            result: dict[str, Any] = {"state": optuna.trial.TrialState.FAIL}
            if isinstance(outcome, Failed):
                attributes["failure"] = f"{outcome.kind}: {outcome.message}"[:500]
            else:
                result = {"values": list(outcome.values), "constraints": dict(outcome.constraints)}
            trial = optuna.trial.create_trial(
                params=params,
                distributions=self._distributions,
                user_attrs=attributes,
                **result,
            )
            self._study.add_trial(trial)

    def _seeds(self) -> Iterable[dict[str, Scalar]]:
        yield from (self._space.baseline(target) for target in self._space.targets)
        yield from self._space.known_good()


def _sampler(seed: int, history: int) -> optuna.samplers.BaseSampler:
    """A sampler whose random state depends on how much history there is, so that a resumed run does not replay draws."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if history < GP_TRIALS:
            return optuna.samplers.GPSampler(seed=seed + history, n_startup_trials=8, warn_independent_sampling=False)
        return optuna.samplers.NSGAIISampler(seed=seed + history)
