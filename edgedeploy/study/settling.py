"""Measures again what the noise of times leaves open: whether a variant is on the front.

After the search, within a share of the study's time. A variant is open while its P(on front), with the cases held, lies
between the bounds :data:`UNSURE`: more runs could settle that, more cases are not to be had. Each further run is in new
processes and is put together with those before by :mod:`edgedeploy.evidence.reruns`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from edgedeploy.errors import BoardError, EdgeDeployError
from edgedeploy.evidence.bootstrap import RESAMPLES, Resampler
from edgedeploy.evidence.chances import chances_on_front
from edgedeploy.evidence.pareto import shortfalls
from edgedeploy.evidence.reruns import run_count, with_rerun
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Variant
from edgedeploy.search.outcomes import Failed, Outcome, Scored
from edgedeploy.spec.goals import constraints_of, objectives_of
from edgedeploy.spec.study import StudySpec
from edgedeploy.study.front import summarised
from edgedeploy.study.limits import stability_limits
from edgedeploy.study.store import Store
from edgedeploy.study.trial import Trials

UNSURE: Final = (0.05, 0.95)
"""Between these bounds of P(on front) nobody knows whether a variant is on it."""

MOST_RUNS: Final = 4
"""Runs of a variant, at most: the noise of four is half of that of one."""

Stage = Callable[[Trials, Variant], Outcome]


@dataclass(frozen=True)
class Open:
    """A variant with its P(on front) by the noise of times, and how often it ran."""

    variant: Variant
    chance: float
    runs: int


@dataclass(frozen=True)
class Settling:
    """``on_board`` runs a stage with one variant on the board and waits for it; ``took_in`` hears of each variant whose
    measurement is another one now."""

    spec: StudySpec
    store: Store
    say: Callable[[Literal["phase", "note"], str], None]
    on_board: Callable[[Stage, Variant], None]
    took_in: Callable[[Variant], None]
    tried: dict[str, int] = field(default_factory=dict)

    def run(self, until_s: float) -> None:
        """Until nothing is open, or the monotonic clock will have passed ``until_s`` when another run is over."""
        pace_s, found = 0.0, self.open()
        while found and time.monotonic() + pace_s < until_s:
            started_s = time.monotonic()
            self.on_board(self._run_again, found[0].variant)
            pace_s = max(pace_s, time.monotonic() - started_s)
            found = self.open()
        self.say("note", self._told(sum(self.tried.values())))

    def open(self) -> list[Open]:
        """What may run again, the least often run first, of these the most open."""
        left = [item for item in self.unsure() if item.runs < MOST_RUNS]
        left = [item for item in left if self.tried.get(item.variant.digest, 0) < MOST_RUNS - 1]
        return sorted(left, key=lambda item: (item.runs, abs(item.chance - 0.5), item.variant.digest))

    def unsure(self) -> list[Open]:
        study = self.store.study()
        metrics = self.spec.metric_table(
            {name: MetricInfo.from_json(info) for name, info in study["task_metrics"].items()}
        )
        objectives, constraints = objectives_of(self.spec, metrics), constraints_of(self.spec, metrics)
        measurements, derived = summarised(self.store, study, self.spec)
        feasible = [
            item
            for item in measurements
            if item.valid
            and all(goal.metric in item.metrics for goal in objectives)
            and not shortfalls(item.metrics, constraints)
        ]
        samples = {digest: item.samples for digest, item in derived.items()}
        resampler = Resampler(self.spec.study.seed, RESAMPLES, samples)
        wanted = {item.digest for item in feasible if item.digest != item.baseline_variant}
        chances = chances_on_front(feasible, wanted, objectives, resampler, of_times=True)
        low, high = UNSURE
        return [
            Open(item.variant, chances[item.digest], self._runs(item.digest))
            for item in feasible
            if item.digest in chances and low < chances[item.digest] < high
        ]

    def _runs(self, digest: str) -> int:
        item = self.store.measurement(digest)
        return run_count(item) if item else MOST_RUNS

    def _run_again(self, trials: Trials, variant: Variant) -> Outcome:
        self.tried[variant.digest] = self.tried.get(variant.digest, 0) + 1
        self.say("phase", f"{variant.label}: measured again")
        try:
            measure_again(trials, variant)
        except (BoardError, KeyboardInterrupt):
            raise
        except EdgeDeployError as exc:
            self.say("note", f"{variant.label} measured again: {exc}")
            return Failed(type(exc).__name__, str(exc), "measure")
        self.took_in(variant)
        return Scored((), {})

    def _told(self, runs: int) -> str:
        low, high = UNSURE
        left = self.unsure()
        again = f"after {runs} further run{'' if runs == 1 else 's'}"
        if not left:
            return f"the front is settled {again}: by its times every variant is on it with P < {low:g} or P > {high:g}"
        named = ", ".join(f"{item.variant.label} (P {item.chance:.2f}, {item.runs} runs)" for item in left)
        return f"open {again}, as far as times go, who is on the front: {named}"


def measure_again(trials: Trials, variant: Variant) -> None:
    """One more run of a measured variant, without scenarios, added to its measurement. An invalid run, and one that does not
    belong to those before, raises ``Unstable``; nothing is stored of it."""
    first = trials.store.measurement(variant.digest)
    assert first is not None
    plain = trials.spec.measure.model_copy(update={"scenarios": ()})
    again = replace(trials, spec=trials.spec.model_copy(update={"measure": plain}), scenarios=())
    later = again.attempt(variant, "selection")
    trials.alive(variant)
    combined = with_rerun(first, later, stability_limits(trials.spec.measure))
    with trials.account.phase("bookkeeping"):
        trials.store.keep(combined)
