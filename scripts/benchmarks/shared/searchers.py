"""One search of a table: by edgedeploy's own proposals, or by a sampler of Optuna's as its users would run it.

Counted are distinct variants. Optuna's samplers are asked until there are enough of them: a variant that is proposed again
is a wasted proposal, built or not. It is told the value of before; a failure is told FAIL.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np
import optuna

from benchmarks.shared.search_tables import Table, params_by_digest
from edgedeploy.records.variant import Scalar, Variant
from edgedeploy.search.knowledge import Knowledge
from edgedeploy.search.mending import Mending
from edgedeploy.search.outcomes import Outcome, Scored
from edgedeploy.search.proposals import Proposals, seeds_of

OWN: Final = "co-design"
PROPOSALS_EACH: Final = 5
"""A sampler that has needed more proposals than this for each variant asked for is stopped where it is."""


@dataclass
class Run:
    """``shares[n]``: hypervolume over the true one after n + 1 distinct variants. ``wasted``: proposals of variants that
    were known already, built or not. ``failed``: variants that could not be built. ``ms``: processor time of each proposal,
    so that others on the machine do not count. ``stopped``: it repeated itself too often to go on."""

    shares: list[float] = field(default_factory=list)
    wasted: int = 0
    failed: int = 0
    ms: list[float] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    stopped: bool = False

    def at(self, count: int) -> float:
        """The share after ``count`` variants, or where it stopped before."""
        return self.shares[min(count, len(self.shares)) - 1]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class _Tally:
    """The distinct variants of a run."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.run = Run()
        self.outcomes: dict[str, Outcome] = {}
        self._values: list[tuple[float, ...]] = []

    def add(self, params: Mapping[str, Scalar]) -> Outcome:
        variant = self.table.space.variant(params)
        known = self.outcomes.get(variant.digest)
        if known is not None:
            self.run.wasted += 1
            return known
        outcome = self.outcomes[variant.digest] = self.table.outcome(variant)
        if isinstance(outcome, Scored):
            self._values.append(outcome.values)
        else:
            self.run.failed += 1
        self.run.shares.append(self.table.share(self._values))
        self.run.digests.append(variant.digest)
        return outcome


def timed(run: Run, ask: Callable[[], Any]) -> Any:
    started_ns = time.process_time_ns()
    try:
        return ask()
    finally:
        run.ms.append((time.process_time_ns() - started_ns) / 1e6)


def search(table: Table, sampler: str, seed: int, evaluations: int, known: bool, more_boards: bool = False) -> Run:
    """``known``: the latencies are known before; ``more_boards``: other devices follow. Samplers of Optuna have no way to
    use either."""
    if sampler == OWN:
        return own(table, seed, evaluations, known, more_boards)
    return optunas(table, SAMPLERS[sampler](seed), evaluations)


NOT_FOR_ACCURACY: Final = frozenset({"threads"})


def _knowledge(table: Table, known: bool) -> Knowledge:
    """What a study knows: sizes of models, what cannot change the accuracy, what may mend it, and with ``known`` every
    objective but that."""

    def exact(variant: Variant) -> Mapping[int, float]:
        return dict(enumerate(table.values.get(variant.digest, ())[1:], start=1))

    mending = Mending(table.directions, answers=[0])
    facts = Knowledge(
        statics=lambda variant: table.statics[variant.digest],
        without_effect=(NOT_FOR_ACCURACY,),
        told=mending.told,
        explores=mending.explores,
    )
    return replace(facts, exact=exact) if known else facts


def own(table: Table, seed: int, evaluations: int, known: bool, more_boards: bool = False) -> Run:
    """As a study searches: the baselines and the points that are good for most models first. ``more_boards``: with the
    option of that name, as a study does that others will begin with."""
    tally = _Tally(table)
    knowledge = _knowledge(table, known)
    proposals = Proposals(table.space, table.directions, seed, knowledge=knowledge, more_boards=more_boards)
    waiting = list(seeds_of(table.space))
    while len(tally.outcomes) < min(evaluations, len(table.statics)):
        if waiting:
            params = waiting.pop(0)
            if table.space.variant(params).digest in tally.outcomes:
                continue  # a seed that stands for a variant of before: nobody proposed it
        else:
            found = timed(tally.run, lambda: proposals.next(tally.outcomes))
            if found is None:
                break
            params = found.params
        proposals.tell(params, tally.add(params))
    return tally.run


SAMPLERS: Final[Mapping[str, Callable[[int], optuna.samplers.BaseSampler]]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "tpe-multivariate": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True),
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
}
"""Optuna's samplers with their own defaults."""


def optunas(table: Table, sampler: optuna.samplers.BaseSampler, evaluations: int) -> Run:
    tally = _Tally(table)
    distributions = table.space.distributions()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(directions=list(table.directions), sampler=sampler)
        for _ in range(PROPOSALS_EACH * evaluations):
            if len(tally.outcomes) >= evaluations:
                break
            trial = timed(tally.run, lambda: study.ask(fixed_distributions=distributions))
            outcome = tally.add(trial.params)
            if isinstance(outcome, Scored):
                study.tell(trial, list(outcome.values))
            else:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
    tally.run.stopped = len(tally.outcomes) < evaluations
    return tally.run


PROPOSALS_TIMED: Final = 5


def proposal_ms(table: Table, evaluated: int, seed: int = 0) -> list[float]:
    """Milliseconds of our own proposals after so many random variants were evaluated."""
    proposals, tally = Proposals(table.space, table.directions, seed, knowledge=_knowledge(table, False)), _Tally(table)
    listed = list(params_by_digest(table).values())
    order = np.random.default_rng(seed).permutation(len(listed))
    for index in order[:evaluated]:
        proposals.tell(listed[index], tally.add(listed[index]))
    for _ in range(PROPOSALS_TIMED):
        found = timed(tally.run, lambda: proposals.next(tally.outcomes))
        proposals.tell(found.params, tally.add(found.params))
    return tally.run.ms
