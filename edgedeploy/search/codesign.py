"""The co-design sampler: the untried variant with the largest expected gain, found among all of them.

One Gaussian process for each objective and each constraint, a vote of similar variants on whether this one can be evaluated
at all, and the expected hypervolume improvement in closed form. What it proposes is a function of seed and history.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgedeploy.records.metrics import Direction
from edgedeploy.records.variant import Scalar
from edgedeploy.search.beliefs import LATER, NO_CHANGE, Belief, Beliefs, Left
from edgedeploy.search.candidates import Candidates, Params
from edgedeploy.search.certain import Certain
from edgedeploy.search.failures import success_by_figures, success_by_pace, success_of
from edgedeploy.search.improvement import Below, cut, hypervolume, improvement
from edgedeploy.search.knowledge import Knowledge
from edgedeploy.search.outcomes import Outcome, Scored
from edgedeploy.search.processes import Processes
from edgedeploy.search.scales import Scale, scale_of
from edgedeploy.search.seen import Seen
from edgedeploy.search.space import Space
from edgedeploy.search.surrogate import Features, Floats

STARTUP: Final = 6
"""Scored variants before a surrogate is asked; until then candidates are spread over their size."""

_HOPELESS: Final = 0.15
"""Probability of success below which anything else comes first."""

_NOTHING: Final = 1e-4
"""A gain of less than this share of the front's hypervolume counts as none."""

_EMPTY: Final = 1e-12
"""A front with less hypervolume than this has none that a gain could be a share of."""

_NEAR_MISS: Final = 0.01
"""Share of a limit by which two runs of one variant may differ: who misses by less may meet it."""

_LEVELS: Final = (0.05, 0.28, 0.5, 0.72, 0.95)
_NEAR_LEVEL: Final = 0.04
_MARGIN: Final = 0.1


@dataclass(frozen=True)
class _Told:
    row: int
    outcome: Outcome


class _Wish(NamedTuple):
    """Rows of a candidate that is wanted, and of the one that is evaluated now: itself, or what has to be before it."""

    wanted: int
    now: int


@dataclass(frozen=True)
class _Goal:
    """One of what is weighed. Of all candidates, what is ``modelled`` (mean, standard deviation, scale) and expected
    ``below`` an edge; of what was seen, then of what is under way, the ``values`` as they are weighed. Gains count from the
    ``reference`` on."""

    modelled: tuple[Floats, Floats, Scale]
    below: Below
    values: Floats
    reference: float


class CoDesign:
    """Proposes by expected improvement. What happened is told in the order in which it happened. A constraint is unreachable
    that nobody met and every untried candidate is expected to meet with a probability below ``give_up``; 0: none is.

    ``more_boards``: the models will be tried on other boards too. What is fast on one board alone is worth less then, so
    multiply-accumulates count as one more objective wherever gains are weighed, unless there are three already. Of what
    they are not known they are taken to be the most that are."""

    def __init__(
        self,
        space: Space,
        directions: Sequence[Direction],
        seed: int,
        knowledge: Knowledge,
        give_up: float = 0.0,
        more_boards: bool = False,
    ) -> None:
        self._give_up = give_up
        self._space = space
        signs = [-1.0 if direction == "maximize" else 1.0 for direction in directions]
        self._certain = Certain(signs, knowledge, more_boards)
        self._signs = self._certain.signs
        self._seed = seed
        self._knowledge = knowledge
        self._made: Candidates | None = None
        self._waiting: list[tuple[Params, Outcome]] = []
        self._told: list[_Told] = []
        self._features_of: dict[tuple[int, frozenset[str]], Features] = {}
        self._voted: tuple[tuple[int, int], Floats] | None = None
        self._processes = Processes(self._features)
        self._beliefs: Beliefs | None = None
        self.best_gain: float | None = None
        """What the best untried candidate promised at the last proposal, as a share of the front's hypervolume; None when
        nothing was predicted."""
        self.unreachable = ""
        """The constraint that was unreachable at the last proposal."""
        self._explores = ""

    def tell(self, params: Mapping[str, Scalar], outcome: Outcome) -> None:
        self._waiting.append((dict(params), outcome))

    def propose(self, taken: Collection[str], under_way: Sequence[Mapping[str, Scalar]]) -> Params | None:
        """Parameters of an untried variant; None when no candidate is left."""
        candidates = self._candidates()
        pending = [candidates.add(params) for params in under_way]
        free = np.ones(len(candidates), dtype=bool)
        free[candidates.rows(taken)] = False
        if not free.any():
            return None
        self._certain.learn(candidates)
        scored = [told for told in self._told if isinstance(told.outcome, Scored)]
        self._beliefs, self.best_gain, self.unreachable = None, None, ""
        if len(scored) < STARTUP:
            liking = self._spread(pending)
            untrained = free & [not self._knowledge.trains(variant) for variant in candidates.variants]
            return self._take(liking, untrained, free) or self._take(liking, free, free)
        gain, self._beliefs = self._weighed(scored, pending, self._certain.always)
        self.best_gain = self._best_gain(free)
        if self._certain.is_turn_of_work(len(self._told)):
            gain, _ = self._weighed(scored, pending, len(self._signs))
        exploring = free & [bool(self._knowledge.explores(variant)) for variant in candidates.variants]
        wished = self._wished(gain, exploring, free) if exploring.any() else None
        self.unreachable = self._unreachable(scored, free, still_exploring=wished is not None)
        self._explores = "" if wished is None else self._knowledge.explores(candidates.variants[wished.wanted])
        return self._take(gain, free, free) if wished is None else candidates.params[wished.now]

    def belief(self, params: Mapping[str, Scalar]) -> Belief | None:
        """What was thought of a candidate at the last proposal; None when that was drawn by size."""
        rows = self._candidates().rows([self._space.variant(params).digest])
        return replace(self._belief(rows[0]), explores=self._explores) if self._beliefs is not None and rows else None

    def left(self) -> list[Left]:
        """Variants of which a part is known already, such as the time of a structure, that were not tried, and why; the most
        promising first. Empty before anything is predicted."""
        scored = [told for told in self._told if isinstance(told.outcome, Scored)]
        if len(scored) < STARTUP or not self._knowledge.has_exact:
            return []
        candidates = self._candidates()
        self._certain.learn(candidates)
        _, self._beliefs = self._weighed(scored, (), self._certain.always)
        told = {told.row for told in self._told}
        found = []
        for row in self._certain.known_rows():
            variant = candidates.variants[row]
            if row in told or self._knowledge.before(variant) is not None:
                continue
            assert self._beliefs is not None
            share = float(self._beliefs.gain[row])
            reason = NO_CHANGE if share < _NOTHING else self._knowledge.left_out(variant) or LATER
            found.append((share, Left(variant, self._belief(row), reason)))
        return [left for _, left in sorted(found, key=lambda one: -one[0])]

    def _belief(self, row: int) -> Belief:
        assert self._beliefs is not None
        cost_s = self._knowledge.cost_s
        return self._beliefs.of(row, None if cost_s is None else cost_s(self._candidates().variants[row]))

    def _best_gain(self, free: NDArray[np.bool_]) -> float:
        """Of the free candidates that may be evaluated, now or after others."""
        assert self._beliefs is not None
        share, variants = self._beliefs.gain, self._candidates().variants
        rows = np.flatnonzero(free)
        best_first = rows[np.argsort(-share[rows], kind="stable")]
        best = next((float(share[row]) for row in best_first if not self._knowledge.left_out(variants[int(row)])), 0.0)
        return math.inf if self._beliefs.empty and best else best

    def _unreachable(self, scored: Sequence[_Told], free: NDArray[np.bool_], *, still_exploring: bool) -> str:
        """The first constraint that all missed by more than times of equals differ, and no free candidate is expected to
        meet; empty for none. While trainings are due that tell what training gives, none that training may change."""
        outcomes = [told.outcome for told in scored if isinstance(told.outcome, Scored)]
        rows = np.array([told.row for told in scored], dtype=np.intp)
        for name in dict.fromkeys(name for outcome in outcomes for name in outcome.constraints):
            if not self._give_up or (still_exploring and name in self._knowledge.of_weights):
                continue
            if min(outcome.constraints.get(name, 0.0) for outcome in outcomes) > _NEAR_MISS:
                chance = self._processes.hope(name, rows, outcomes)
                if not free.any() or float(chance[free].max()) < self._give_up:
                    return name
        return ""

    def _candidates(self) -> Candidates:
        """With all that was told: a neighbour of what was on the front when it was told is a candidate."""
        if self._made is None:
            self._made = Candidates(self._space, self._knowledge, self._seed)
        for params, told in self._waiting:
            row = self._made.add(params)
            outcome = self._certain.with_work(self._made, row, told)
            self._told.append(_Told(row, outcome))
            if isinstance(outcome, Scored) and not self._made.whole and self._is_best(outcome):
                self._made.add_neighbours(params)
        self._waiting.clear()
        return self._made

    def _is_best(self, outcome: Scored) -> bool:
        signs = self._signs[: self._certain.always]
        own = signs * np.array(outcome.values[: len(signs)])
        others = (told.outcome for told in self._told[:-1])
        return not any(np.all(signs * np.array(o.values[: len(signs)]) <= own) for o in others if isinstance(o, Scored))

    def _take(self, gain: Floats, among: NDArray[np.bool_], free: NDArray[np.bool_]) -> Params | None:
        wished = self._wished(gain, among, free)
        return None if wished is None else self._candidates().params[wished.now]

    def _wished(self, gain: Floats, among: NDArray[np.bool_], free: NDArray[np.bool_]) -> _Wish | None:
        """Of the candidates ``among`` that with the largest gain, of which what has to be evaluated before is free; None
        when there is none. One that can hardly be evaluated comes after all others."""
        candidates = self._candidates()
        hopeless = self._success() < _HOPELESS
        order = np.flatnonzero(among)
        order = order[np.lexsort((-gain[order], hopeless[order]))]
        for row in order:
            variant = candidates.variants[int(row)]
            if self._knowledge.left_out(variant):
                continue
            first = self._knowledge.before(variant)
            if first is None:
                return _Wish(int(row), int(row))
            for before in candidates.rows([first.digest]):
                if free[before] and not self._knowledge.left_out(first):
                    return _Wish(int(row), before)
        return None

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng([self._seed, len(self._told)])

    def _spread(self, pending: Sequence[int]) -> Floats:
        """A preference for candidates of the size that lies furthest from all sizes tried, and unlike what was tried."""
        features = self._features(frozenset())
        tried = np.array([*(told.row for told in self._told), *pending], dtype=np.intp)
        chance = self._rng().random(len(features.codes))
        if not len(tried):
            return chance
        alike = features.nearness(tried, [1.0] * len(features.columns)).max(axis=1)
        liking = -alike.astype(float) + 0.2 * chance + 0.5 * self._success()
        size = self._size()
        if size is not None:
            places = (np.argsort(np.argsort(size, kind="stable"), kind="stable") + 0.5) / len(size)
            level = max(_LEVELS, key=lambda level: float(np.abs(places[tried] - level).min()))
            liking -= 100 * np.maximum(np.abs(places - level) - _NEAR_LEVEL, 0)
        return np.asarray(liking)

    def _size(self) -> Floats | None:
        """An objective that is known of all candidates, or else their work, or the first static figure; None when there is
        none of these."""
        for values in [*self._certain.values.T, self._candidates().work()]:
            if np.all(np.isfinite(values)) and np.ptp(values) > 0:
                return np.asarray(values)
        statics = self._features(frozenset()).statics
        return np.asarray(statics[:, 0]) if statics.shape[1] else None

    def _features(self, without: frozenset[str]) -> Features:
        candidates = self._candidates()
        key = (len(candidates), without)
        if key not in self._features_of:
            self._features_of = {kept: value for kept, value in self._features_of.items() if kept[0] == key[0]}
            columns, codes = candidates.columns(), candidates.codes()
            kept = [index for index, column in enumerate(columns) if column.name not in without]
            statics = candidates.statics()
            certain = self._certain.wholly_asked(len(candidates))
            known = [scale_of(values, self._signs[index]).of(values) for index, values in certain.items()]
            if known:  # a time far below what the size lets expect tells of a network whose layers are not connected
                statics = np.column_stack([statics, *known])
            self._features_of[key] = Features.of(
                [columns[index] for index in kept], codes[:, kept], statics, candidates.at_first
            )
        return self._features_of[key]

    def _weighed(self, scored: Sequence[_Told], pending: Sequence[int], count: int) -> tuple[Floats, Beliefs]:
        """Expected improvement of each candidate in the first ``count`` of what is weighed, times the probabilities that it
        can be evaluated, is of use and meets the limits, over what it costs; and what that comes from."""
        outcomes = [told.outcome for told in scored if isinstance(told.outcome, Scored)]
        seen = self._seen(scored)
        known = self._certain.wholly(len(self._candidates()))
        wholly_known = {index: values for index, values in known.items() if index < count}
        goals = [self._goal(index, seen, pending, wholly_known.get(index)) for index in range(count)]
        of_use = np.ones(len(self._candidates()))
        if any(index < self._certain.always for index in wholly_known):
            for index in range(count):  # else the fast end has to be tried before anybody knows what is of use there
                of_use *= self._of_use(index, seen)
        met = np.append(
            [all(value <= 0 for value in outcome.constraints.values()) for outcome in outcomes],
            np.ones(len(pending), dtype=bool),
        ).astype(bool)
        front = np.column_stack([goal.values for goal in goals])[met]
        reference = np.array([goal.reference for goal in goals])
        gain = improvement([goal.below for goal in goals], front, reference) * self._success() * of_use
        for name in dict.fromkeys(name for outcome in outcomes for name in outcome.constraints):
            if name not in self._knowledge.limited:  # those moved the reference point already
                gain *= self._processes.meets(name, seen.rows, outcomes)
        volume = hypervolume(front, reference)
        modelled = [goal.modelled for goal in goals[: self._certain.asked]]
        beliefs = Beliefs(modelled, gain / max(volume, _EMPTY), self._knowledge.bounds, volume < _EMPTY)
        if self._knowledge.cost_s is not None:
            gain /= [self._knowledge.cost_s(variant) for variant in self._candidates().variants]
        return gain, beliefs

    def _goal(self, index: int, seen: Seen, pending: Sequence[int], known: Floats | None) -> _Goal:
        """``known`` are its values where they are certain of all candidates."""
        scale = seen.scale(index)
        mean, spread = self._predicted(index, seen, pending)
        in_units = not scale.logarithmic or index in self._knowledge.linear
        weighing = scale.units if in_units else scale
        below, bound = scale.below(mean, spread, in_units), self._knowledge.bounds.get(index)
        if bound is not None:
            below = cut(below, float(weighing.of(np.array(bound))))
        values = np.append(weighing.of(seen.values[:, index]), weighing.of(scale.back(mean[list(pending)])))
        margin = 0.0 if seen.useless(index).any() else _MARGIN
        reference = values.max() + margin * np.ptp(values)
        if known is not None and index not in self._knowledge.linear:
            all_values = weighing.of(known)
            reference = all_values.max()
            if not self._certain.was_asked(index):  # the most accurate often have the most work, and count too
                reference += _MARGIN * np.ptp(all_values) or _MARGIN
        limit = weighing.of(np.array(self._knowledge.limits.get(index, np.nan)))
        reference = min(reference + 1e-9, np.nan_to_num(limit, nan=np.inf))
        return _Goal((mean, spread, scale), below, values, float(reference))

    def _seen(self, scored: Sequence[_Told]) -> Seen:
        outcomes = [told.outcome for told in scored if isinstance(told.outcome, Scored)]
        none = (0.0,) * len(self._signs)
        return Seen(
            np.array([told.row for told in scored], dtype=np.intp),
            np.array([outcome.values for outcome in outcomes], dtype=float),
            np.array([outcome.variances or none for outcome in outcomes], dtype=float),
            self._signs,
        )

    def _predicted(self, index: int, seen: Seen, pending: Sequence[int]) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the objective at every candidate, on its scale; what is known is certain."""
        known = np.isfinite(self._certain.values[:, index])
        if known.all():
            mean, spread = np.zeros(len(known)), np.zeros(len(known))
        else:
            mean, spread = self._processes.predicted(
                f"objective {index}",
                self._without(index),
                lambda count: seen.first(count).observations(index),
                len(seen.rows),
                pending,
            )
        mean[known], spread[known] = seen.scale(index).of(self._certain.values[known, index]), 0.0
        return mean, spread

    def _without(self, index: int) -> frozenset[str]:
        """Parameters that cannot change the objective."""
        effects = self._knowledge.without_effect
        return effects[index] if index < len(effects) else frozenset()

    def _of_use(self, index: int, seen: Seen) -> Floats:
        """Probability that a candidate is not among those that are useless in one objective. Without it the fastest of a
        space, which may be fast because they compute nothing, come again and again where their times are known."""
        features, useless = self._features(self._without(index)), seen.useless(index)
        found = success_of(features, seen.rows, useless) * success_by_figures(features, seen.rows, useless)
        if useless.any():
            work = self._certain.log_work(self._candidates())
            for other, costs in self._certain.wholly_asked(len(work)).items():  # work itself has no pace
                if seen.scale(other).logarithmic:
                    found = found * success_by_pace(work - np.log(costs), seen.rows, useless)
        return found

    def _success(self) -> Floats:
        key = (len(self._candidates()), len(self._told))
        if self._voted is None or self._voted[0] != key:
            self._voted = (key, self._vote())
        return self._voted[1]

    def _vote(self) -> Floats:
        """Probability that a candidate can be evaluated."""
        failed = np.array([not isinstance(told.outcome, Scored) for told in self._told], dtype=bool)
        return success_of(
            self._features(frozenset()), np.array([told.row for told in self._told], dtype=np.intp), failed
        )
