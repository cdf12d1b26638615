"""The search: Optuna proposes, the caller evaluates, the store answers what was already evaluated.

Optuna's storage holds the history of proposals and nothing else; whether a variant has been evaluated is asked of the
``known`` callable, which reads the evidence store. That makes a kill harmless at any point:

- killed before the evidence was stored: the trial is still RUNNING in the storage; its parameters are enqueued again;
- killed after the evidence was stored and before Optuna was told: the enqueued parameters are answered from the store.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import optuna

from edgedeploy.measurement import Direction
from edgedeploy.search.space import Space
from edgedeploy.variant import Scalar, Variant

STUDY_NAME: Final = "edgedeploy"
MAX_CONSECUTIVE_DUPLICATES: Final = 12
"""After so many proposals in a row that were evaluated before, one untried variant is drawn at random instead."""

GP_TRIALS: Final = 150
"""Past this many trials the Gaussian process costs more than it gives; NSGA-II takes over."""


@dataclass(frozen=True)
class Scored:
    """Objective values in the order of the objectives; a constraint value <= 0 is met."""

    values: tuple[float, ...]
    constraints: Mapping[str, float]


@dataclass(frozen=True)
class Failed:
    """No number: ``kind`` names the cause. Never told to the optimiser as a value."""

    kind: str
    message: str


Outcome = Scored | Failed
StopReason = Literal["trials", "wall_clock", "exhausted"]


@dataclass(frozen=True)
class Finished:
    """Why the search ended and how many distinct variants have an outcome."""

    reason: StopReason
    evaluated: int


class Search:
    """One multi-objective search over ``space``, resumable from its SQLite storage.

    ``lookup`` answers from the evidence (None: not evaluated yet); ``evaluate`` makes new evidence. ``clock`` wraps the
    optimiser's own work, so that it can be charged to the study's time account.
    """

    def __init__(
        self,
        *,
        storage: Path,
        space: Space,
        directions: Sequence[Direction],
        seed: int,
        lookup: Callable[[Variant], Outcome | None],
        evaluate: Callable[[Variant], Outcome],
        clock: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._space = space
        self._lookup = lookup
        self._evaluate = evaluate
        self._clock = clock
        self._rng = np.random.default_rng(seed)
        self._outcomes: dict[str, Outcome] = {}
        self._distributions = space.distributions()
        optuna.logging.set_verbosity(logging.ERROR)
        storage.parent.mkdir(parents=True, exist_ok=True)
        with clock():
            self._study = optuna.create_study(
                study_name=STUDY_NAME,
                storage=f"sqlite:///{storage}",
                directions=list(directions),
                load_if_exists=True,
            )
            self._study.sampler = _sampler(seed, len(self._study.trials))

    def run(self, *, trials: int, deadline_s: float) -> Finished:
        """Evaluate until ``trials`` distinct variants have an outcome (evidence of earlier runs counts), the monotonic
        clock passes ``deadline_s``, or nothing is left to try."""
        with self._clock():
            tried = self._recover()
        duplicates = 0
        while len(tried) < trials:
            if time.monotonic() >= deadline_s:
                return Finished("wall_clock", len(tried))
            with self._clock():
                if duplicates >= MAX_CONSECUTIVE_DUPLICATES:
                    params = self._space.untried(tried, self._rng)
                    if params is None:
                        return Finished("exhausted", len(tried))
                    self._enqueue(params)
                trial, variant = self._ask()
            known = self._known(variant)
            duplicates = 0 if known is None else duplicates + 1
            outcome = known if known is not None else self._evaluate(variant)
            self._outcomes[variant.digest] = outcome
            with self._clock():
                self._tell(trial, outcome)
            tried.add(variant.digest)
        return Finished("trials", len(tried))

    def _known(self, variant: Variant) -> Outcome | None:
        """From the evidence, or from this run: a variant that stayed unstable is tried again by the next run only."""
        found = self._lookup(variant)
        return found if found is not None else self._outcomes.get(variant.digest)

    def _ask(self) -> tuple[optuna.Trial, Variant]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            trial = self._study.ask(fixed_distributions=self._distributions)
        variant = self._space.variant(trial.params)
        trial.set_user_attr("variant", variant.digest)
        return trial, variant

    def _tell(self, trial: optuna.Trial, outcome: Outcome) -> None:
        if isinstance(outcome, Failed):
            trial.set_user_attr("failure", f"{outcome.kind}: {outcome.message}"[:500])
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        for name, value in outcome.constraints.items():
            trial.set_constraint(name, value)
        self._study.tell(trial, list(outcome.values))

    def _enqueue(self, params: Mapping[str, Scalar]) -> None:
        self._study.enqueue_trial(dict(params))

    def _recover(self) -> set[str]:
        """Void what an interrupted run left RUNNING and put its parameters in front; seed a fresh study.

        Returns the digests of the variants that have an outcome already.
        """
        stale = [trial for trial in self._study.trials if trial.state == optuna.trial.TrialState.RUNNING]
        for trial in stale:
            self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            if set(params) == set(self._distributions):
                self._enqueue(params)
        for params in self._seeds():
            self._study.enqueue_trial(params, skip_if_exists=True)
        variants = (self._space.variant(trial.params) for trial in self._study.trials if trial.params)
        return {variant.digest for variant in variants if self._lookup(variant) is not None}

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
