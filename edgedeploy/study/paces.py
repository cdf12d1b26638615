"""How long an evaluation took in this run of a study, and an epoch of training in all of them."""

from __future__ import annotations

from collections.abc import Callable

from edgedeploy.files import parsed
from edgedeploy.records.variant import Variant
from edgedeploy.search.ladder import Pace, architecture_of
from edgedeploy.study.account import EVALUATION_PHASES, Account
from edgedeploy.study.models import RECORD, TRAINING
from edgedeploy.study.reading import FAULTS
from edgedeploy.study.store import Store


class Paces:
    """Reads what each model's training took, once. ``macs`` says how large a variant's model is."""

    def __init__(self, store: Store, account: Account, macs: Callable[[Variant], float]) -> None:
        self._store = store
        self._account = account
        self._seen: set[str] = set()
        self._epoch_s: dict[str, float] = {}
        self._macs: dict[str, float] = {}
        self.macs = macs

    def now(self) -> Pace:
        evaluated = self._account.outcomes
        evaluation_s = self._account.seconds(*EVALUATION_PHASES) / evaluated if evaluated else None
        return Pace(evaluation_s, dict(self._epoch_s), dict(self._macs))

    def is_trained(self, variant: Variant) -> bool:
        """Whether its float model lies in the folder."""
        return (self._store.model_folder(variant.model_digest) / RECORD).is_file()

    def take_in(self, variant: Variant) -> None:
        """A variant has an outcome: what an epoch of its model's training took, where the folder says so."""
        if variant.model_digest in self._seen or variant.training:
            return
        self._seen.add(variant.model_digest)
        report = self._report(variant)
        if report is not None:
            name = architecture_of(variant)
            self._epoch_s[name], self._macs[name] = report, self.macs(variant)

    def _report(self, variant: Variant) -> float | None:
        """Seconds of an epoch; None for a model that was not trained, or whose record cannot be read."""
        path = self._store.model_folder(variant.model_digest) / TRAINING
        try:
            report = parsed(path.read_bytes())
            return float(report["wall_s"]) / int(report["epochs"])
        except (OSError, ZeroDivisionError, *FAULTS):
            return None
