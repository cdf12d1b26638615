"""The search: proposals become variants, a crew of boards evaluates them, and the store answers what was evaluated before.

Optuna's storage holds only the history of proposals; the evidence store says whether a variant has been evaluated. A
killed search therefore loses nothing:

- killed before the evidence was stored: the trial is still RUNNING in the storage; it waits again in its old place;
- killed after the evidence was stored and before Optuna was told: it is told from the store.

One board or many: every variant goes through the crew's queue, and none goes twice. A step on a locked storage is retried
for a while. A storage that is lost or damaged is created again and filled from the evidence.
"""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import optuna

from edgedeploy.errors import EdgeDeployError, OutOfTime
from edgedeploy.records.metrics import Direction
from edgedeploy.records.variant import Scalar, Variant
from edgedeploy.search.beliefs import Belief, Left
from edgedeploy.search.history import Answer, Server, open_history, patiently
from edgedeploy.search.knowledge import NO_KNOWLEDGE, Knowledge
from edgedeploy.search.outcomes import Evaluator, Failed, Finished, Outcome, Scored, StopReason
from edgedeploy.search.proposals import Proposal, Proposals, SamplerName, seeds_of
from edgedeploy.search.space import Space
from edgedeploy.search.stopping import Stopping
from edgedeploy.search.warmstart import WarmStart

__all__ = ["Evaluator", "Failed", "Finished", "Outcome", "Scored", "Search", "StopReason"]

LOG: Final = logging.getLogger(__name__)

_PROPOSED: Final = "proposed"
"""User attribute of a trial: what the sampler had proposed in its place, as JSON."""

_BELIEF: Final = "belief"
"""User attribute of a trial: what was predicted of it when it was proposed, as JSON."""

_BEST_GAIN: Final = "best_gain"
"""User attribute of a trial: what the best untried variant promised when it was proposed."""

_UNREACHABLE: Final = "unreachable"
"""User attribute of a trial: the constraint that no untried variant was expected to meet when it was proposed."""


class Search:
    """One multi-objective search over ``space``, resumable from its storage: a SQLite file, or a server.

    ``lookup`` answers from the evidence (None: not evaluated yet); ``evidence`` lists the variants that ``lookup`` knows, in
    the order they were made. ``clock`` wraps the optimiser's own work, which the study's time account is charged with.
    ``sampler``, ``knowledge`` and ``warm``: see :class:`edgedeploy.search.proposals.Proposals`. ``proposed`` hears what is
    predicted of a variant that is begun, None where nothing is. ``objectives`` are their names. ``stop_gain``: see
    :class:`edgedeploy.search.stopping.Stopping`; ``give_up`` and ``more_boards``: see
    :class:`edgedeploy.search.codesign.CoDesign`.
    """

    def __init__(
        self,
        *,
        storage: Path | Server,
        space: Space,
        directions: Sequence[Direction],
        seed: int,
        lookup: Callable[[Variant], Outcome | None],
        clock: Callable[[], AbstractContextManager[None]],
        evidence: Callable[[], Iterable[Variant]] = tuple,
        sampler: SamplerName = "co-design",
        knowledge: Knowledge = NO_KNOWLEDGE,
        warm: WarmStart | None = None,
        proposed: Callable[[Variant, Belief | None], None] = lambda variant, belief: None,
        objectives: Sequence[str] = (),
        stop_gain: float = 0.0,
        give_up: float = 0.0,
        more_boards: bool = False,
    ) -> None:
        self._space = space
        self._lookup = lookup
        self._clock = clock
        self._evidence = evidence
        self._path = storage
        self._outcomes: dict[str, Outcome] = {}
        self._flying: dict[Future[Outcome], tuple[optuna.Trial, Variant]] = {}
        self._distributions = space.distributions()
        self._proposals = Proposals(
            space,
            directions,
            seed,
            sampler=sampler,
            knowledge=knowledge,
            warm=warm,
            give_up=give_up,
            more_boards=more_boards,
        )
        self._warm = warm
        self._proposed = proposed
        self._asking = False
        self._set_apart = 0
        self._stopping = Stopping(stop_gain)
        self._best_gain: float | None = None
        self._unreachable = ""
        optuna.logging.set_verbosity(logging.ERROR)
        with clock():
            self._study = open_history(storage, directions, objectives)
            self._study.sampler = optuna.samplers.RandomSampler(seed)  # unused: every trial is enqueued

    def run(self, crew: Evaluator, *, trials: int, deadline_s: float) -> Finished:
        """Evaluate as many variants at once as ``crew`` has slots, each variant once, until one of these happens:

        - ``trials`` distinct variants have an outcome (evidence of earlier runs counts);
        - the monotonic clock passes ``deadline_s``, or an evaluation raises ``OutOfTime``: its trial stays RUNNING and
          the next run evaluates it;
        - nothing is left to try, or nothing that promises enough.

        At the end the evaluations under way are waited for, also when one of them raised anything else: that is raised
        after the outcomes of the others are stored.
        """
        with self._clock():
            self._persist(self._recover)
            self._set_apart = self._evaluated_before_conditions()
        over: StopReason | None = None
        cut, failure = "", None
        while True:
            if over is None and failure is None:
                over = self._launch(crew, trials, deadline_s)
            if not self._flying:
                break
            with crew.waiting():
                landed, _ = wait(self._flying, return_when=FIRST_COMPLETED)
            # One by one: what is proposed next must not depend on whether this thread was in time between two of them.
            raised = self._land(min(landed, key=lambda future: self._flying[future][0].number))
            if isinstance(raised, OutOfTime):
                over, cut = "wall_clock", str(raised)
            elif raised is not None:
                failure = self._graver(failure, raised)
            if over in ("exhausted", "converged", "impossible"):
                over = None  # what landed may have left something to try again, or changed what is expected
        if failure is not None:
            raise failure
        best_gain = self._best_gain if over == "converged" else None
        unreachable = self._unreachable if over == "impossible" else ""
        return Finished(over or "trials", len(self._outcomes) + self._set_apart, cut, best_gain, unreachable)

    def left(self) -> list[Left]:
        """See :meth:`edgedeploy.search.proposals.Proposals.left`."""
        return self._proposals.left()

    def _launch(self, crew: Evaluator, trials: int, deadline_s: float) -> StopReason | None:
        """Fill the free slots. Returns why no further variant is to be started, or None while one may be later."""
        while len(self._outcomes) + self._set_apart + len(self._flying) < trials:
            if time.monotonic() >= deadline_s:
                return "wall_clock"
            if len(self._flying) >= crew.slots():
                return None
            with self._clock():
                found = self._next()
            if isinstance(found, str):
                return found
            self._flying[crew.submit(found[1])] = found
        return None if self._flying else "trials"

    def _next(self) -> tuple[optuna.Trial, Variant] | Literal["exhausted", "converged", "impossible"]:
        """A trial of a variant without an outcome that is not under way, or why there is none. What is enqueued comes
        first."""
        flying = [(trial.params, variant.digest) for trial, variant in self._flying.values()]
        taken = {*self._outcomes, *(digest for _, digest in flying)}
        while True:
            if not self._persist(self._waits):
                proposal = self._proposals.next(taken, [params for params, _ in flying])
                if proposal is None:
                    return "exhausted"
                self._best_gain, self._unreachable = proposal.best_gain, proposal.unreachable
                if self._stopping.given_up(proposal.unreachable, len(self._outcomes)):
                    return "impossible"
                if self._stopping.is_over(proposal.best_gain, len(self._outcomes)):
                    return "converged"
                self._proposed(self._space.variant(proposal.params), proposal.belief)
                begun = self._persist(partial(self._start, proposal))
                self._stopping.begun(proposal.best_gain, proposal.unreachable)
                return begun
            trial, variant = self._persist(self._ask)
            if variant.digest not in taken:
                return trial, variant
            self._persist(partial(self._drop, trial))

    def _land(self, future: Future[Outcome]) -> BaseException | None:
        """Tell Optuna the outcome of a finished evaluation. Returns what it raised instead: its trial then stays RUNNING
        and is the next run's first."""
        trial, variant = self._flying.pop(future)
        raised = future.exception()
        if raised is not None:
            return raised
        outcome = future.result()
        with self._clock():
            self._persist(partial(self._tell, trial, outcome))
        self._outcomes[variant.digest] = outcome
        self._proposals.tell(trial.params, outcome)
        return None

    def _graver(self, before: BaseException | None, now: BaseException) -> BaseException:
        """Which of two exceptions ends the search: a bug before what happens to boards, else the first. Ctrl-C waits for
        nothing and is raised at once."""
        if isinstance(now, KeyboardInterrupt):
            raise now
        if self._flying:
            LOG.warning("the search ends by an error (%s); %d evaluations are waited for", now, len(self._flying))
        if before is None or (isinstance(before, EdgeDeployError) and not isinstance(now, EdgeDeployError)):
            return now
        return before

    def _persist(self, step: Callable[[], Answer]) -> Answer:
        """Run a storage step with retries. A step must be safe to repeat after it was partly done."""
        return patiently(step, self._path)

    def _waits(self) -> bool:
        waiting = self._study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.WAITING])
        return bool(waiting)

    def _ask(self) -> tuple[optuna.Trial, Variant]:
        if self._asking:  # the last attempt was cut off in the middle
            self._void_stale()
        self._asking = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            trial = self._study.ask(fixed_distributions=self._distributions)
        variant = self._space.variant(trial.params)
        if trial.user_attrs.get("variant") != variant.digest:
            trial.set_user_attr("variant", variant.digest)
        self._asking = False
        return trial, variant

    def _start(self, proposal: Proposal) -> tuple[optuna.Trial, Variant]:
        """Begin a trial of the proposal, in one step of the storage: to enqueue it and to ask for it are dozens."""
        if self._asking:  # the last attempt was cut off in the middle, and may have begun it
            self._void_stale()
            if self._waits():
                return self._ask()
        self._asking = True
        variant = self._space.variant(proposal.params)
        attributes = {"variant": variant.digest}
        if proposal.proposed is not None:
            attributes[_PROPOSED] = json.dumps(dict(proposal.proposed))
        if proposal.belief is not None:
            attributes[_BELIEF] = json.dumps(proposal.belief.as_json())
        if proposal.best_gain is not None:
            attributes[_BEST_GAIN] = repr(proposal.best_gain)
        if proposal.unreachable:
            attributes[_UNREACHABLE] = proposal.unreachable
        begun = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING,
            params=dict(proposal.params),
            distributions=self._distributions,
            user_attrs=attributes,
        )
        number = self._study._storage.create_new_trial(self._study._study_id, template_trial=begun)
        trial = optuna.trial.Trial(self._study, number)
        self._asking = False
        return trial, variant

    def _drop(self, trial: optuna.Trial) -> None:
        """End a trial whose variant has an outcome or is under way, without a value: the sampler knows that one."""
        self._study.tell(trial, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)

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
        self._study.enqueue_trial(dict(params), user_attrs={"variant": self._space.variant(params).digest})

    def _recover(self) -> None:
        """Bring the storage up to date before the search.

        - Trials that an interrupted run left RUNNING are told from the evidence, or come first.
        - A fresh study gets its first proposals.
        - Evidence that the storage lacks is added: an earlier run was killed, or the storage replaces a lost one.

        Then the history is told to :class:`Proposals` in its order.
        """
        self._void_stale()
        self._replay()
        for params in self._first_points():
            self._study.enqueue_trial(params, skip_if_exists=True)
        self._put_first()
        for trial in self._study.get_trials(deepcopy=False):
            self._remember(trial)

    def _evaluated_before_conditions(self) -> int:
        """Variants that an earlier run evaluated, and that the space has no more since conditions came to the study: they
        cost their trials."""
        if not self._space.only:
            return 0
        before = replace(self._space, only=())
        left = [item for item in self._evidence() if item.digest not in self._outcomes and not item.recovered]
        return sum(self._lookup(item) is not None and before.params_of(item) is not None for item in left)

    def _first_points(self) -> Iterable[dict[str, Scalar]]:
        """Of a search with a warm start: without the points that are good for most models, but no model is trained for."""
        return (params for params in seeds_of(self._space) if self._warm is None or self._warm.begins_with(params))

    def _remember(self, trial: optuna.trial.FrozenTrial) -> None:
        if gain := trial.user_attrs.get(_BEST_GAIN):
            self._stopping.begun(float(gain), trial.user_attrs.get(_UNREACHABLE, ""))
        if proposed := trial.user_attrs.get(_PROPOSED):
            params = json.loads(proposed)
            if set(params) == set(self._distributions):
                self._proposals.tell_proposed(params)
        if set(trial.params) != set(self._distributions):
            return
        variant = self._space.variant(trial.params)
        outcome = self._lookup(variant) if variant.digest not in self._outcomes else None
        if outcome is not None:
            self._outcomes[variant.digest] = outcome
            self._proposals.tell(trial.params, outcome)

    def _put_first(self) -> None:
        """Enqueue before all that waits what had an outcome and has no evidence any more, and what failed without evidence.
        The baseline may be among them, without which nothing can be compared."""
        first = {**self._lost(), **self._left_open()}
        state = optuna.trial.TrialState
        waiting = self._study.get_trials(deepcopy=False, states=[state.WAITING]) if first else []
        for params in first.values():
            self._enqueue(params)
        for trial in waiting:  # what waits comes by its number
            self._study.enqueue_trial(trial.system_attrs["fixed_params"], user_attrs=trial.user_attrs)
            self._study._storage.set_trial_state_values(trial._trial_id, state=state.FAIL)

    def _left_open(self) -> dict[str, Mapping[str, Scalar]]:
        """By digest, what failed before and does not wait: conditions that drifted, or builds that disagreed. Neither was
        the variant's fault."""
        state = optuna.trial.TrialState
        trials = self._study.get_trials(deepcopy=False, states=[state.WAITING, state.FAIL])
        waits: set[str] = set()
        found: dict[str, Mapping[str, Scalar]] = {}
        for trial in sorted(trials, key=lambda trial: trial.state == state.FAIL):
            params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            if set(params) != set(self._distributions):
                continue
            variant = self._space.variant(params)
            if trial.state == state.WAITING:
                waits.add(variant.digest)
            elif "failure" in trial.user_attrs and variant.digest not in waits and self._lookup(variant) is None:
                found.setdefault(variant.digest, params)
        return found

    def _lost(self) -> dict[str, Mapping[str, Scalar]]:
        """By digest, what had an outcome and has no evidence any more: its file was damaged or removed."""
        state = optuna.trial.TrialState
        lost: dict[str, Mapping[str, Scalar]] = {}
        for trial in self._study.get_trials(deepcopy=False, states=[state.COMPLETE]):
            if set(trial.params) == set(self._distributions):
                variant = self._space.variant(trial.params)
                if self._lookup(variant) is None:
                    lost[variant.digest] = trial.params
        return lost

    def _void_stale(self) -> None:
        """Settle RUNNING trials that this process is not evaluating; one process owns the study, so nobody else is. What has
        evidence is told, anything else waits again in its old place, as if it had not begun."""
        state = optuna.trial.TrialState
        flying = {trial.number for trial, _ in self._flying.values()}
        for trial in self._study.get_trials(deepcopy=False, states=[state.RUNNING]):
            if trial.number in flying:
                continue
            params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            if set(params) != set(self._distributions):
                self._study.tell(trial.number, state=state.FAIL)
                continue
            outcome = self._lookup(self._space.variant(params)) if trial.params == params else None
            if outcome is not None:
                self._tell(optuna.trial.Trial(self._study, trial._trial_id), outcome)
            else:
                self._study._storage.set_trial_state_values(trial._trial_id, state=state.WAITING)

    def _replay(self) -> None:
        """Add a trial for each variant that has evidence but no trial, if the space can express it."""
        told = [
            trial
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state == optuna.trial.TrialState.COMPLETE or "failure" in trial.user_attrs
        ]
        known = {trial.user_attrs.get("variant") for trial in told}
        for variant in self._evidence():
            if variant.digest in known:
                continue
            params, outcome = self._space.params_of(variant), self._lookup(variant)
            if params is None or outcome is None:
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
