"""Which parameters to try next: a Gaussian process while it is affordable, NSGA-II beyond, and never a variant twice.

Each proposal is a function of the seed and of what was told so far, in order: a search that was killed and goes on proposes
what it would have proposed undisturbed. The samplers work on a copy of the history in memory, which knows more than the
optimiser's database: different parameters can mean one variant (a precision that a target has not is float32), and what
one of them scored is told for all of them that were proposed. Without that a sampler proposes them again and again.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import optuna

from edgedeploy.records.metrics import Direction
from edgedeploy.records.variant import Scalar
from edgedeploy.search.outcomes import Outcome, Scored
from edgedeploy.search.space import ENUMERATION_LIMIT, Space

Params = dict[str, Scalar]

GP_TRIALS: Final = 150
"""Beyond this many values a Gaussian process takes longer than its better proposals save; NSGA-II takes over."""

STARTUP_TRIALS: Final = 8
"""Fewer values than this say nothing to a Gaussian process: parameters are drawn at random."""


AT_ONCE: Final = 128
"""Candidates that the Gaussian process weighs at once: all 2048 take hundreds of megabytes, more the longer the front is."""


class _GaussianProcess(optuna.samplers.GPSampler):
    """Weighs its candidates piece by piece: the same values in bounded memory."""

    def _optimize_acqf(self, acqf: Any, best_params: Any) -> Any:
        whole = acqf.eval_acqf_no_grad

        def in_pieces(points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            if points.ndim < 2 or len(points) <= AT_ONCE:
                return np.asarray(whole(points))
            return np.concatenate([whole(points[at : at + AT_ONCE]) for at in range(0, len(points), AT_ONCE)])

        acqf.eval_acqf_no_grad = in_pieces
        return super()._optimize_acqf(acqf, best_params)


@dataclass(frozen=True)
class Proposal:
    """``params`` of a variant that nobody has tried. ``proposed`` is what the sampler said where that was known already; it
    is kept with the trial, so that the next run knows it too."""

    params: Params
    proposed: Params | None = None


class Proposals:
    """Draws parameters of untried variants of ``space``. What happened is told in the order in which it happened."""

    def __init__(self, space: Space, directions: Sequence[Direction], seed: int) -> None:
        self._space = space
        self._directions = list(directions)
        self._seed = seed
        self._distributions = space.distributions()
        self._outcomes: dict[str, Outcome] = {}
        self._points: set[tuple[tuple[str, Scalar], ...]] = set()
        self._trials: list[optuna.trial.FrozenTrial] = []
        self._all: list[tuple[str, Params]] | None = None

    def tell(self, params: Mapping[str, Scalar], outcome: Outcome) -> None:
        """What the variant of ``params`` gave; only the first outcome of a variant counts."""
        digest = self._space.variant(params).digest
        if digest not in self._outcomes:
            self._outcomes[digest] = outcome
            self._add(params, outcome)

    def tell_proposed(self, params: Mapping[str, Scalar]) -> None:
        """The sampler proposed ``params``, whose variant was known: its value is the value of these parameters too."""
        known = self._outcomes.get(self._space.variant(params).digest)
        if known is not None:
            self._add(params, known)

    def next(self, taken: Collection[str], under_way: Sequence[Mapping[str, Scalar]] = ()) -> Proposal | None:
        """Parameters of a variant whose digest is not in ``taken``; None when there is none left. ``under_way`` is being
        evaluated.

        A proposal that is taken is replaced at once by the nearest untried variant: one parameter is changed, or else
        all are drawn at random.
        """
        seeds = np.random.SeedSequence([self._seed, len(self._outcomes), len(under_way)])
        drawn = self._draw(int(seeds.generate_state(1)[0]), under_way)
        if self._digest(drawn) not in taken:
            return Proposal(drawn)
        self.tell_proposed(drawn)
        rng = np.random.default_rng(seeds)
        params = self._beside(drawn, taken, rng) or self._anywhere(taken, rng)
        return None if params is None else Proposal(params, drawn)

    def _draw(self, seed: int, under_way: Sequence[Mapping[str, Scalar]]) -> Params:
        state = optuna.trial.TrialState
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = optuna.create_study(directions=self._directions, sampler=self._sampler(seed))
            running = [self._trial(params, {"state": state.RUNNING}) for params in under_way]
            study.add_trials([*self._trials, *running])
            return dict(study.ask(fixed_distributions=self._distributions).params)

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        if len(self._trials) >= GP_TRIALS:
            return optuna.samplers.NSGAIISampler(seed=seed)
        return _GaussianProcess(seed=seed, n_startup_trials=STARTUP_TRIALS, warn_independent_sampling=False)

    def _add(self, params: Mapping[str, Scalar], outcome: Outcome) -> None:
        point = tuple(sorted(params.items()))
        if isinstance(outcome, Scored) and point not in self._points:
            self._points.add(point)
            result = {"values": list(outcome.values), "constraints": dict(outcome.constraints)}
            self._trials.append(self._trial(params, result))

    def _trial(self, params: Mapping[str, Scalar], result: Mapping[str, Any]) -> optuna.trial.FrozenTrial:
        """As one of generation 0: the best of all that was ever told are the parents of NSGA-II's next proposal."""
        generation = {optuna.samplers.NSGAIISampler._get_generation_key(): 0}
        return optuna.trial.create_trial(
            params=dict(params), distributions=self._distributions, system_attrs=generation, **result
        )

    def _digest(self, params: Mapping[str, Scalar]) -> str:
        return self._space.variant(params).digest

    def _beside(self, params: Params, taken: Collection[str], rng: np.random.Generator) -> Params | None:
        """An untried variant that differs from ``params`` in one parameter; None when there is none."""
        values: dict[str, Sequence[Scalar]] = {"target": self._space.targets, **self._space.parameters}
        changes = [(name, value) for name, listed in values.items() for value in listed if value != params[name]]
        for index in rng.permutation(len(changes)):
            name, value = changes[int(index)]
            found = {**params, name: value}
            if self._digest(found) not in taken:
                return found
        return None

    def _anywhere(self, taken: Collection[str], rng: np.random.Generator) -> Params | None:
        if self._space.size() > ENUMERATION_LIMIT:
            return self._space.untried(taken, rng)
        if self._all is None:
            self._all = [(self._digest(params), params) for params in self._space.combinations()]
        left = [params for digest, params in self._all if digest not in taken]
        return left[int(rng.integers(len(left)))] if left else None


def seeds_of(space: Space) -> Iterable[Params]:
    """What every search begins with: the baseline of each target, then points that are good for most models."""
    yield from (space.baseline(target) for target in space.targets)
    yield from space.known_good()
