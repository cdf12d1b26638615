"""A second device after a search for the first one: ten trials without training, and the intervals of predicted times."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.shared.search_tables import OPERATIONS, Table, params_by_digest
from edgedeploy.search.candidates import Column
from edgedeploy.search.conformal import half_width, split
from edgedeploy.search.surrogate import Features
from edgedeploy.search.transfer import Transfer
from edgedeploy.search.warmstart import FIRST_TRIALS, Trained, WarmStart

ON_BOARD = (False, True)
"""Of accuracy and latency: which one another device answers otherwise."""


@dataclass(frozen=True)
class Second:
    """Hypervolumes over the second device's true one: of ten trials, and of all models that the first search trained."""

    reached: float
    at_most: float


def second_board(first: Table, second: Table, digests: Sequence[str]) -> Second:
    """``digests`` are what the search for the ``first`` device has trained."""
    space, by_digest = second.space, params_by_digest(second)
    trained = [Trained(space.variant(by_digest[digest]), first.values[digest]) for digest in digests]
    warm = WarmStart(space, second.directions, trained, ON_BOARD, lambda variant: second.statics[variant.digest])
    found: dict[str, tuple[float, ...]] = {}
    params = space.baseline(space.targets[0])
    while params is not None:
        variant = space.variant(params)
        warm.tell(params, second.outcome(variant))
        found[variant.digest] = second.values[variant.digest]
        params = warm.propose(found)
    assert len(found) == FIRST_TRIALS
    return Second(second.share(list(found.values())), second.share([second.values[digest] for digest in digests]))


@dataclass(frozen=True)
class Coverage:
    """Of intervals from so many probes: which share of other variants' times they hold, the width of their half as a
    factor, and the median error of the predictions."""

    held: float
    factor: float
    error: float


def coverage(first: Table, second: Table, probes: int, draws: int, population: int = 200) -> Coverage:
    """Probes are drawn at random, and so are the variants that are predicted from them."""
    digests = sorted(second.values)
    columns = [Column(name, OPERATIONS, None) for name in second.space.parameters]
    by_digest = params_by_digest(second)
    held, factors, errors = [], [], []
    for draw in range(draws):
        rng = np.random.default_rng([draw, probes])
        some = [digests[index] for index in rng.choice(len(digests), probes + population, replace=False)]
        source, target = (np.log([table.values[digest][1] for digest in some]) for table in (first, second))
        codes = np.array(
            [[OPERATIONS.index(value) for value in list(by_digest[digest].values())[1:]] for digest in some]
        )
        statics = np.log([list(second.statics[digest].values()) for digest in some])
        transfer = Transfer(source, statics, Features.of(columns, codes, statics))
        rows = np.arange(probes)
        means, width = transfer.with_interval(rows, target[:probes], seed=draw)
        parts = split(probes, draw)
        assert (
            width is not None and parts is not None and width == half_width(target[parts.errors] - means[parts.errors])
        )
        missed = np.abs(target - means)[probes:]
        held.append(float(np.mean(missed <= width)))
        factors.append(float(np.exp(width)))
        errors.append(float(np.median(np.expm1(missed))))
    return Coverage(statistics.fmean(held), statistics.median(factors), statistics.median(errors))
