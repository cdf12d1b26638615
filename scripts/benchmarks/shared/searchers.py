"""One search of a table: by edgedeploy's own proposals, or by a sampler of Optuna's as its users would run it.

Counted are distinct variants. Optuna's samplers are asked until there are enough of them: a variant that is proposed again, or
that is known not to be buildable, is a wasted proposal. It is told the value of before; a failure is told FAIL.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import optuna

from benchmarks.shared.search_tables import Table
from edgedeploy.records.variant import Scalar
from edgedeploy.search.outcomes import Outcome, Scored
from edgedeploy.search.proposals import Proposals, seeds_of

OWN: Final = "co-design"
PROPOSALS_EACH: Final = 30
"""A sampler that needs more proposals than this for each new variant is stopped."""


@dataclass
class Run:
    """``shares[n]``: hypervolume over the true one after n + 1 distinct variants. ``wasted``: proposals of variants that
    were known, or could not be built and were proposed before. ``failed``: variants that could not be built. ``ms``: what
    each proposal took."""

    shares: list[float] = field(default_factory=list)
    wasted: int = 0
    failed: int = 0
    ms: list[float] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)

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
    started_ns = time.perf_counter_ns()
    try:
        return ask()
    finally:
        run.ms.append((time.perf_counter_ns() - started_ns) / 1e6)


def search(table: Table, sampler: str, seed: int, evaluations: int, known: bool) -> Run:
    """``known``: the latencies are known before; samplers of Optuna have no way to use that."""
    if sampler == OWN:
        return own(table, seed, evaluations, known)
    return optunas(table, SAMPLERS[sampler](seed), evaluations)


def own(table: Table, seed: int, evaluations: int, known: bool) -> Run:
    """As a study searches: the baselines and the points that are good for most models first."""
    tally = _Tally(table)
    proposals = Proposals(table.space, table.directions, seed)
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
    return tally.run
