"""Which parameters to try next, by edgedeploy's own sampler or one of Optuna's, and never a variant twice.

Each proposal is a function of the seed and of what was told so far, in order: a search that was killed and goes on proposes
what it would have proposed undisturbed. Optuna's samplers work on a copy of the history in memory, which knows more than the
optimiser's database: different parameters can mean one variant (a precision that a target has not is float32), and what
one of them scored is told for all of them that were proposed; what failed is told as bad as the worst that was seen. Without
that a sampler proposes them again and again.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import optuna

from edgedeploy.records.metrics import Direction
from edgedeploy.records.variant import Scalar, Variant
from edgedeploy.search.beliefs import Belief, Left
from edgedeploy.search.codesign import CoDesign
from edgedeploy.search.improvement import MOST_OBJECTIVES
from edgedeploy.search.knowledge import NO_KNOWLEDGE, Knowledge
from edgedeploy.search.outcomes import Failed, Outcome, Scored
from edgedeploy.search.space import ENUMERATION_LIMIT, Space
from edgedeploy.search.warmstart import WarmStart

Params = dict[str, Scalar]
SamplerName = Literal["co-design", "gp", "tpe", "nsga2", "random"]

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
    is kept with the trial, so that the next run knows it too. ``belief`` is what was predicted of it, ``best_gain`` what
    the best untried variant promised, as a share of the front's hypervolume: one that costs less may come first.
    ``unreachable`` is a constraint that no untried variant is expected to meet."""

    params: Params
    proposed: Params | None = None
    belief: Belief | None = None
    best_gain: float | None = None
    unreachable: str = ""


class Proposals:
    """Draws parameters of untried variants of ``space``. What happened is told in the order in which it happened.

    ``sampler`` is "co-design" (:mod:`edgedeploy.search.codesign`) or one of Optuna's: "gp", "tpe", "nsga2", "random". With
    more than three objectives co-design is "gp". ``warm`` proposes first, whoever the sampler is. ``give_up`` and
    ``more_boards``: see :class:`edgedeploy.search.codesign.CoDesign`.
    """

    def __init__(
        self,
        space: Space,
        directions: Sequence[Direction],
        seed: int,
        *,
        sampler: SamplerName = "co-design",
        knowledge: Knowledge = NO_KNOWLEDGE,
        warm: WarmStart | None = None,
        give_up: float = 0.0,
        more_boards: bool = False,
    ) -> None:
        self._space = space
        self._directions = list(directions)
        self._seed = seed
        self._sampler_name: SamplerName = sampler
        self._knowledge = knowledge
        self._warm = warm
        self._codesign: CoDesign | None = None
        if sampler == "co-design" and len(directions) <= MOST_OBJECTIVES:
            self._codesign = CoDesign(space, directions, seed, knowledge, give_up, more_boards)
        self._distributions = space.distributions()
        self._outcomes: dict[str, Outcome] = {}
        self._points: set[tuple[tuple[str, Scalar], ...]] = set()
        self._told: list[tuple[Params, Outcome]] = []

    def tell(self, params: Mapping[str, Scalar], outcome: Outcome) -> None:
        """What the variant of ``params`` gave; only the first outcome of a variant counts, and nobody learns from a failure
        that was not the variant's."""
        digest = self._space.variant(params).digest
        if digest not in self._outcomes:
            self._outcomes[digest] = outcome
            self._knowledge.told(self._space.variant(params), outcome)
            if isinstance(outcome, Failed) and not outcome.teaches:
                return
            self._add(params, outcome)
            if self._warm is not None:
                self._warm.tell(params, outcome)
            if self._codesign is not None:
                self._codesign.tell(params, outcome)

    def tell_proposed(self, params: Mapping[str, Scalar]) -> None:
        """The sampler proposed ``params``, whose variant was known: its value is the value of these parameters too."""
        known = self._outcomes.get(self._space.variant(params).digest)
        if known is not None and not (isinstance(known, Failed) and not known.teaches):
            self._add(params, known)

    def next(self, taken: Collection[str], under_way: Sequence[Mapping[str, Scalar]] = ()) -> Proposal | None:
        """Parameters of a variant whose digest is not in ``taken`` and which is ready; None when there is none now.
        ``under_way`` is being evaluated.

        What a sampler of Optuna's proposes in vain is replaced at once by the nearest untried variant: one parameter is
        changed, or else all are drawn at random.
        """
        tried = {*taken, *self._outcomes}
        first = self._warm.propose(tried, under_way) if self._warm is not None else None
        if first is not None:
            return Proposal(first)
        if self._codesign is not None:
            found = self._codesign.propose(tried, under_way)
            if found is None:
                return None
            belief, gain = self._codesign.belief(found), self._codesign.best_gain
            return Proposal(found, belief=belief, best_gain=gain, unreachable=self._codesign.unreachable)
        seeds = np.random.SeedSequence([self._seed, len(self._outcomes), len(under_way)])
        drawn = self._space.settled(self._draw(int(seeds.generate_state(1)[0]), under_way))
        if self._is_free(drawn, tried):
            return Proposal(drawn)
        self.tell_proposed(drawn)
        rng = np.random.default_rng(seeds)
        params = self._beside(drawn, tried, rng) or self._anywhere(tried, rng)
        return None if params is None else Proposal(params, drawn)

    def left(self) -> list[Left]:
        """Variants that a ladder could have gone on with and did not, and why; the most promising first."""
        return self._codesign.left() if self._codesign is not None else []

    def _draw(self, seed: int, under_way: Sequence[Mapping[str, Scalar]]) -> Params:
        state = optuna.trial.TrialState
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = optuna.create_study(directions=self._directions, sampler=self._sampler(seed))
            running = [self._trial(params, {"state": state.RUNNING}) for params in under_way]
            study.add_trials([*self._trials(), *running])
            return dict(study.ask(fixed_distributions=self._distributions).params)

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        if self._sampler_name == "tpe":
            return optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=STARTUP_TRIALS)
        if self._sampler_name == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed)
        if self._sampler_name == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return _GaussianProcess(seed=seed, n_startup_trials=STARTUP_TRIALS, warn_independent_sampling=False)

    def _add(self, params: Mapping[str, Scalar], outcome: Outcome) -> None:
        point = tuple(sorted(params.items()))
        if point not in self._points:
            self._points.add(point)
            self._told.append((dict(params), outcome))

    def _trials(self) -> list[optuna.trial.FrozenTrial]:
        """What was told, as trials with values. A failure is as bad as the worst that was seen of each objective and
        constraint: without a value a sampler would not learn of it."""
        scored = [outcome for _, outcome in self._told if isinstance(outcome, Scored)]
        if not scored:
            return []
        signs = [-1 if direction == "maximize" else 1 for direction in self._directions]
        columns = zip(*(outcome.values for outcome in scored), strict=True)
        worst = [sign * max(sign * value for value in column) for sign, column in zip(signs, columns, strict=True)]
        names = dict.fromkeys(name for outcome in scored for name in outcome.constraints)
        unmet = {name: max(outcome.constraints.get(name, 0.0) for outcome in scored) for name in names}
        logarithmic = [
            self._sampler_name in ("gp", "co-design")
            and sign > 0
            and all(outcome.values[index] > 0 for outcome in scored)
            for index, sign in enumerate(signs)
        ]
        trials = []
        for params, outcome in self._told:
            values = outcome.values if isinstance(outcome, Scored) else worst
            limits = dict(outcome.constraints) if isinstance(outcome, Scored) else unmet
            seen = [math.log(value) if log else value for value, log in zip(values, logarithmic, strict=True)]
            trials.append(self._trial(params, {"values": seen, "constraints": limits}))
        return trials

    def _trial(self, params: Mapping[str, Scalar], result: Mapping[str, Any]) -> optuna.trial.FrozenTrial:
        """As one of generation 0: the best of all that was ever told are the parents of NSGA-II's next proposal."""
        generation = {optuna.samplers.NSGAIISampler._get_generation_key(): 0}
        return optuna.trial.create_trial(
            params=dict(params), distributions=self._distributions, system_attrs=generation, **result
        )

    def _is_free(self, params: Mapping[str, Scalar], taken: Collection[str]) -> bool:
        variant = self._space.variant(params)
        return variant.digest not in taken and self._space.allows(params) and self._is_ready(variant)

    def _is_ready(self, variant: Variant) -> bool:
        return self._knowledge.before(variant) is None and not self._knowledge.left_out(variant)

    def _beside(self, params: Params, taken: Collection[str], rng: np.random.Generator) -> Params | None:
        """An untried variant that differs from ``params`` in one parameter; None when there is none."""
        near = list(self._space.neighbours(params))
        return next((near[int(at)] for at in rng.permutation(len(near)) if self._is_free(near[int(at)], taken)), None)

    def _anywhere(self, taken: Collection[str], rng: np.random.Generator) -> Params | None:
        if self._space.size() > ENUMERATION_LIMIT:
            found = self._space.untried(taken, rng)
            return found if found is None or self._is_ready(self._space.variant(found)) else None
        left = [params for params in self._space.combinations() if self._is_free(params, taken)]
        return left[int(rng.integers(len(left)))] if left else None


def seeds_of(space: Space) -> Iterable[Params]:
    """What every search begins with: the baseline of each target, the user's own points, then points that are good for
    most models."""
    yield from (space.baseline(target) for target in space.targets)
    yield from space.points_to_try()
    yield from (params for params in space.known_good() if space.allows(params))
