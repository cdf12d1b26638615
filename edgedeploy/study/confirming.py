"""The end of a search: what is run on the confirmation split, once each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from edgedeploy.errors import BoardError, EdgeDeployError
from edgedeploy.evidence.confirmation import order_sha256
from edgedeploy.evidence.front import Front
from edgedeploy.records.measurement import Failure
from edgedeploy.records.variant import Variant
from edgedeploy.search.loop import Failed, Outcome, Scored
from edgedeploy.study.front import read_front
from edgedeploy.study.known import Known
from edgedeploy.study.preflight import Ready
from edgedeploy.study.store import Store, utc_now
from edgedeploy.study.trial import Trials


class Say(Protocol):
    """Tells the study's observer."""

    def __call__(self, kind: Literal["phase", "trial", "note"], text: str, failed: Failure | None = None) -> None: ...


class Confirming:
    """``all_at`` runs variants on all boards at a stage, and waits for them."""

    def __init__(
        self,
        ready: Ready,
        store: Store,
        known: Known,
        say: Say,
        all_at: Callable[[Callable[[Trials, Variant], Outcome], Sequence[Variant]], None],
    ) -> None:
        self._ready = ready
        self._store = store
        self._known = known
        self._say = say
        self._all_at = all_at

    def run(self) -> None:
        """Run the baselines, the front, the candidates for the pick and what is not shown to be worse than the front on the
        confirmation split, once each. The order of candidates is fixed and logged first. Nothing is chosen by it: it says
        how far the choice carries. Where the study states what has to be shown and nothing is, it stays closed for later
        cases."""
        if not self._ready.task.cases("confirmation"):
            self._say("note", "nothing is confirmed: the task has no cases of split 'confirmation'")
            return
        front = read_front(self._store.root)
        if front.decision.rules.margins and front.pick is None:
            self._say("note", "the confirmation split stays closed: nothing is shown fit to ship that it could confirm")
            return
        missing = self._missing(front)
        if not missing:
            return
        order = front.decision.order
        sha256 = order_sha256(order, front.decision.rules) if order else ""
        reason = "end of the search: baselines, front, candidates, and what is indistinguishable from the front"
        self._store.log_opening(reason, tuple(variant.digest for variant in missing), order, sha256)
        if order:
            named = ", ".join(front.labels[digest] for digest in order)
            self._say(
                "note", f"candidates, in the order fixed before the confirmation split is opened: {named} ({sha256})"
            )
        self._all_at(self._one, missing)

    def _missing(self, front: Front) -> list[Variant]:
        done = {measurement.digest for measurement in self._store.confirmations()}
        baselines = [self._ready.space.baseline_variant(target) for target in self._ready.space.targets]
        measured = {measurement.digest: measurement.variant for measurement in self._known.measurements()}
        wanted = [v.digest for v in baselines if v.digest in measured] + [member.digest for member in front.members]
        wanted += front.decision.order
        wanted += [row.digest for row in front.excluded if row.status == "indistinguishable"]
        wanted += [variant.digest for variant in measured.values() if variant.recovered]
        return [measured[digest] for digest in dict.fromkeys(wanted) if digest not in done]

    def _one(self, trials: Trials, variant: Variant) -> Outcome:
        self._say("phase", f"confirmation: {variant.label}")
        try:
            trials.measure(variant, "confirmation")
            return Scored((), {})
        except (BoardError, KeyboardInterrupt):
            raise
        except EdgeDeployError as exc:
            failed = Failed(type(exc).__name__, str(exc), "confirmation")
            self._say("note", f"confirmation of {variant.label}: {exc}", failure_of(variant, failed))
            return failed


def failure_of(variant: Variant, outcome: Failed) -> Failure:
    return Failure(variant, outcome.kind, outcome.phase, outcome.message, utc_now())
