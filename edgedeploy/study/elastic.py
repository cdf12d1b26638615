"""The elastic networks of a study: one per architecture, kept as the weights of the models that were cut out of it.

models/DIGEST/cuts.json       hashes of the weights, and why some cuts have none
models/DIGEST/CUT.pt          the model of a cut, before any recovery of its own: 0.5-bytes, depth0.5, 0.5-bytes-depth0.5
models/DIGEST/training.json   how the network was trained
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from edgedeploy.compress.checkpoint import drop_checkpoint
from edgedeploy.compress.kept import save_weights
from edgedeploy.compress.oversight import Oversight, TrainReport
from edgedeploy.errors import BuildError, Unsupported
from edgedeploy.files import new_folder, parsed, write_json
from edgedeploy.interfaces.task import Task
from edgedeploy.records.elastic import Part
from edgedeploy.records.variant import Variant
from edgedeploy.study.account import Account
from edgedeploy.study.models import TRAINING
from edgedeploy.study.reading import FAULTS, fault
from edgedeploy.study.store import Store
from edgedeploy.study.whole import NOT_AS_MADE, damaged, sums_of

CUTS: Final = "cuts.json"
_SUMS: Final = "sha256_of"
_WORDS: Final = ("asked", "found", "remedy")

Overseen = Callable[[str, Path, Callable[[TrainReport], None]], Oversight]


class Elastics:
    """Makes the elastic networks, each when the first of its cuts is asked for."""

    def __init__(
        self, task: Task, store: Store, account: Account, note: Callable[[str], None], own_weights: bool
    ) -> None:
        self._task = task
        self._store = store
        self._account = account
        self._note = note
        self._own_weights = own_weights
        self._failed: dict[str, BuildError] = {}

    def weights(self, variant: Variant, baseline: Any, overseen: Overseen) -> Path:
        """The file of the weights that the variant's model begins with.

        Raises ``Unsupported`` for what cannot be cut out; ``BuildError`` when the training diverges: once in a run,
        because it would again; ``OutOfTime`` after a checkpoint.
        """
        digest = variant.elastic_digest
        if digest in self._failed:
            raise self._failed[digest]
        folder = self._store.model_folder(digest)
        name = _name(Part(variant.width, variant.allocation, variant.shrink.depth))
        reasons = kept_cuts(folder, name, self._note)
        if reasons is None:
            try:
                self._make(variant, baseline, folder, overseen)
            except BuildError as exc:
                self._failed[digest] = exc
                raise
            reasons = kept_cuts(folder, name, self._note) or {}
        drop_checkpoint(self._store.checkpoint(digest))
        if name in reasons:
            told = reasons[name]
            raise Unsupported(told["asked"], told["found"], told["remedy"])
        return folder / name

    def _make(self, variant: Variant, baseline: Any, folder: Path, overseen: Overseen) -> None:
        from edgedeploy.compress.family import train_family

        label = " ".join(("elastic", *map(str, variant.arch_kwargs.values())))
        reports = list[TrainReport]()
        oversight = overseen(label, self._store.checkpoint(variant.elastic_digest), reports.append)
        with self._account.phase("train"):
            family = train_family(self._task, variant, baseline, own_weights=self._own_weights, oversight=oversight)
        with self._account.phase("build"), new_folder(folder) as part:
            for cut, model in family.models.items():
                save_weights(model, part / _name(cut))
            for report in reports:
                write_json(part / TRAINING, {**report.as_json(), "widths": len(family.models)})
            refused = {_name(cut): _words(exc) for cut, exc in family.refused.items()}
            sums = sums_of(part, [_name(cut) for cut in family.models])
            write_json(part / CUTS, {_SUMS: sums, "refused": refused})


def _name(cut: Part) -> str:
    width = f"{cut.width:g}-{cut.allocation}" if cut.allocation else ""
    depth = f"depth{cut.depth:g}" if cut.depth < 1.0 else ""
    return "-".join(filter(None, (width, depth))) + ".pt"


def _words(exc: Unsupported) -> dict[str, str]:
    return {word: getattr(exc, word) for word in _WORDS}


def kept_cuts(folder: Path, name: str, note: Callable[[str], None]) -> dict[str, dict[str, str]] | None:
    """Why cuts of the network in ``folder`` could not be made, by the names of their files. None when there is no such
    network, or the file ``name`` is not what was made: ``note`` hears of that."""
    if not (folder / CUTS).exists():
        return None
    try:
        sums, reasons = _read(folder)
        if name in reasons or not damaged(folder, {name: sums[name]}):
            return reasons
        why = f"of {name}, {NOT_AS_MADE}"
    except (OSError, *FAULTS) as exc:
        why = f"in {CUTS}, {fault(exc)}"
    note(f"elastic network {folder.name} is not used and trained anew: {why}")
    return None


def is_whole(folder: Path) -> bool:
    """Whether a network lies in ``folder`` of which every file is what was made."""
    try:
        return not damaged(folder, _read(folder)[0])
    except (OSError, *FAULTS):
        return False


def _read(folder: Path) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """The hashes of the cuts' files, and why the other cuts could not be made."""
    data = parsed((folder / CUTS).read_bytes())
    reasons = {str(key): {word: str(told[word]) for word in _WORDS} for key, told in data["refused"].items()}
    return data[_SUMS], reasons
