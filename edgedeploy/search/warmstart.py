"""The first trials on a second board: improvement among variants whose models another study has trained already.

What does not depend on the board (accuracy, size) carries over from there; what does (times, memory) is predicted from the
other board's values and from what this one has measured so far. Nothing predicted gets anywhere but into the choice of the
next variant, and into :meth:`WarmStart.predictions`, which says so of every number.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgedeploy.records.board import Provenance
from edgedeploy.records.metrics import Direction
from edgedeploy.records.variant import Scalar, Variant
from edgedeploy.search.candidates import Column
from edgedeploy.search.conformal import NOMINAL, interval
from edgedeploy.search.improvement import MOST_OBJECTIVES, expected_improvement, front_of
from edgedeploy.search.outcomes import Outcome, Scored
from edgedeploy.search.seen import Seen
from edgedeploy.search.space import Space
from edgedeploy.search.surrogate import Features
from edgedeploy.search.transfer import Transfer

Floats = NDArray[np.float64]
Params = dict[str, Scalar]

FIRST_TRIALS: Final = 10
"""Variants with an outcome, the baselines among them, until the search goes on among all."""

_MARGIN: Final = 0.1


@dataclass(frozen=True)
class Trained:
    """A variant that the other study has measured: its objectives there, in the order of this study's. ``same_file``: this
    study has the very artifact, so that what it computes is known."""

    variant: Variant
    values: tuple[float, ...]
    same_file: bool = False


@dataclass(frozen=True)
class Predicted:
    """A value of an objective that nobody has measured on this board. ``low`` and ``high`` bound it with ``nominal``
    probability; None below 20 measured variants."""

    variant: Variant
    objective: int
    value: float
    low: float | None
    high: float | None
    nominal: float = NOMINAL
    provenance: Provenance = "predicted"


class WarmStart:
    """Proposes among ``trained``, as far as ``space`` has and allows them. What is of no use on any board, such as a network
    at chance level, is left out: it would be tried for its short time. ``on_board`` says of each objective whether it
    depends on the board; ``statics`` of a variant are positive figures by name."""

    def __init__(
        self,
        space: Space,
        directions: Sequence[Direction],
        trained: Sequence[Trained],
        on_board: Sequence[bool],
        statics: Callable[[Variant], Mapping[str, float]] = lambda variant: {},
        trials: int = FIRST_TRIALS,
    ) -> None:
        found = [(item, space.params_of(item.variant)) for item in trained]
        allowed = [(item, params) for item, params in found if params is not None and space.allows(params)]
        signs = np.array([-1.0 if direction == "maximize" else 1.0 for direction in directions])
        costs = signs * np.array([item.values for item, _ in allowed], dtype=np.float64).reshape(-1, len(signs))
        # where gains are counted from, as in a search: what is left out shows how much worse a model can be
        self._worst_carried = np.where(on_board, -np.inf, costs.max(axis=0, initial=-np.inf))
        useless = _useless(np.array([item.values for item, _ in allowed]), signs, on_board)
        allowed = [pair for pair, of_no_use in zip(allowed, useless, strict=True) if not of_no_use]
        self.trained = [item for item, _ in allowed]
        self._params = [params for _, params in allowed]
        self._rows = {item.variant.digest: row for row, item in enumerate(self.trained)}
        self._space = space
        self._signs = signs
        self._on_board = list(on_board)
        self._trials = trials
        self._seen: dict[int, tuple[float, ...]] = {}
        self._outcomes: set[str] = set()
        values = np.array([item.values for item in self.trained], dtype=np.float64).reshape(-1, len(self._signs))
        self._logarithmic = [bool(np.all(column > 0)) and on for column, on in zip(values.T, on_board, strict=True)]
        self._source = self._costs(values)
        self._features, self._statics = _features(space, self._params, [statics(i.variant) for i in self.trained])

    def begins_with(self, params: Mapping[str, Scalar]) -> bool:
        """Whether one of the points that any search begins with is of use here: the baselines and the user's own are, and
        what is trained."""
        variant = self._space.variant(params)
        return variant.digest in self._rows or dict(params) not in self._space.known_good()

    def tell(self, params: Mapping[str, Scalar], outcome: Outcome) -> None:
        digest = self._space.variant(params).digest
        self._outcomes.add(digest)
        if isinstance(outcome, Scored) and digest in self._rows:
            self._seen.setdefault(self._rows[digest], outcome.values)

    def propose(self, taken: Collection[str], under_way: Sequence[Mapping[str, Scalar]] = ()) -> Params | None:
        """Parameters of the trained variant with the largest expected gain; None when the first trials are over, or all of
        them are taken. Those ``under_way`` are thought to be what is predicted of them."""
        flying = [self._space.variant(params).digest for params in under_way]
        free = np.array([item.variant.digest not in {*taken, *flying} for item in self.trained], dtype=bool)
        if len(self._outcomes) + len(flying) >= self._trials or not free.any():
            return None
        gain = self._gain([self._rows[digest] for digest in flying if digest in self._rows])
        return dict(self._params[int(np.argmax(np.where(free, gain, -np.inf)))])

    def predictions(self, seed: int = 0) -> list[Predicted]:
        """What is thought of the objectives that depend on the board, of every trained variant without an outcome here.
        Empty before anything is measured."""
        if not self._seen:
            return []
        rows, found = np.array(sorted(self._seen), dtype=np.intp), []
        for index in (i for i, logarithmic in enumerate(self._logarithmic) if logarithmic):
            seen = self._costs(np.array([self._seen[int(row)] for row in rows]))[:, index]
            means, width = self._transfer(index).with_interval(rows, seen, seed)
            for row, item in enumerate(self.trained):
                if item.variant.digest not in self._outcomes:
                    value = float(np.exp(self._signs[index] * means[row]))
                    low, high = (None, None) if width is None else interval(value, width)
                    found.append(Predicted(item.variant, index, value, low, high))
        return found

    def _costs(self, values: Floats) -> Floats:
        """All to be small: logarithms where an objective is predicted by them."""
        columns = [
            sign * (np.log(column) if logarithmic else column)
            for column, sign, logarithmic in zip(values.T, self._signs, self._logarithmic, strict=True)
        ]
        return np.column_stack(columns)

    def _transfer(self, index: int) -> Transfer:
        return Transfer(self._source[:, index], self._statics, self._features)

    def _gain(self, pending: Sequence[int]) -> Floats:
        """Expected improvement of each trained variant over what this board has measured."""
        mean, spread = self._believed()
        known = [*sorted(self._seen), *pending]
        points = mean[known]
        if not known:  # no baseline answered: the middle of the other study's front
            return np.asarray(-np.abs(mean - np.median(front_of(mean), axis=0)).sum(axis=1))
        if len(known) == 1 or mean.shape[1] > MOST_OBJECTIVES:
            return self._untried_end(mean, known)
        reference = mean.max(axis=0) + _MARGIN * np.ptp(mean, axis=0) + 1e-9
        reference = np.maximum(reference, self._worst_carried)
        return expected_improvement(mean, spread, points, reference)

    def _believed(self) -> tuple[Floats, Floats]:
        """Costs of each trained variant with their deviations: measured here, carried over, or predicted."""
        mean, spread = self._source.copy(), np.zeros_like(self._source)
        rows = np.array(sorted(self._seen), dtype=np.intp)
        if not len(rows):
            return mean, spread
        seen = self._costs(np.array([self._seen[int(row)] for row in rows]))
        for index in np.flatnonzero(self._on_board):
            if self._logarithmic[index]:
                mean[:, index], spread[:, index] = self._transfer(int(index)).predict(rows, seen[:, index])
        mean[rows], spread[rows] = seen, 0.0
        return mean, spread

    def _untried_end(self, mean: Floats, known: Sequence[int]) -> Floats:
        """A preference for the front that is expected, and there for what lies furthest from what is known."""
        unit = np.where(np.ptp(mean, axis=0) > 0, np.ptp(mean, axis=0), 1.0)
        away = np.min([np.abs((mean - mean[row]) / unit).sum(axis=1) for row in known], axis=0)
        on_front = (mean[:, None, :] == front_of(mean)[None, :, :]).all(axis=2).any(axis=1)
        return np.asarray(away + 10.0 * on_front)


def _useless(values: Floats, signs: Floats, on_board: Sequence[bool]) -> NDArray[np.bool_]:
    """Whether what carries over from the other board makes a variant useless; ``values`` (variants, objectives)."""
    seen = Seen(np.arange(len(values)), values.reshape(-1, len(signs)), np.zeros((len(values), len(signs))), signs)
    carried = [seen.useless(index) for index, on in enumerate(on_board) if not on and len(values)]
    return np.asarray(np.any([np.zeros(len(values), dtype=bool), *carried], axis=0), dtype=bool)


def _features(
    space: Space, params: Sequence[Params], figures: Sequence[Mapping[str, float]]
) -> tuple[Features, Floats]:
    values: dict[str, tuple[Scalar, ...]] = {"target": space.targets, **space.parameters}
    columns = [Column(name, listed, None) for name, listed in values.items()]
    codes = np.array([[values[name].index(item[name]) for name in values] for item in params], dtype=np.intp)
    names = sorted({name for item in figures for name in item})
    with np.errstate(divide="ignore", invalid="ignore"):
        statics = np.log(np.array([[item.get(name, np.nan) for name in names] for item in figures], dtype=np.float64))
    statics = statics.reshape(len(params), len(names))
    return Features.of(columns, codes.reshape(len(params), len(values)), statics), statics
