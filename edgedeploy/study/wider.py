"""Which trained model the training of a narrower one starts from, where the study asks for the nearest wider one.

That depends on what is trained by then. It is decided once for each model and kept in ``models/DIGEST.start.json`` before
the training begins: a study that was killed goes on from the same start, and a model that is made again gets it again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from edgedeploy.compress.kept import parameters_in, widths_in
from edgedeploy.compress.shaped import built, layer_widths
from edgedeploy.errors import DataError
from edgedeploy.files import parsed, write_json
from edgedeploy.interfaces.task import Task
from edgedeploy.records.layer_times import LayerTimes
from edgedeploy.records.variant import Variant
from edgedeploy.reference.export import Reference
from edgedeploy.study.models import WEIGHTS, kept_network
from edgedeploy.study.reading import FAULTS, fault
from edgedeploy.study.store import Store

Start = tuple[Variant, Path]
"""A trained variant, and the file of its weights."""

_NONE_YET: Final = "the pruned baseline: no wider model of its architecture is trained"


def start_path(store: Store, model_digest: str) -> Path:
    """The file that says which wider model the training of this one starts from."""
    return store.root / "models" / f"{model_digest}.start.json"


class Wider:
    """Chooses the starts of one study's trainings. ``note`` gets a line for each."""

    def __init__(self, task: Task, store: Store, note: Callable[[str], None], own_weights: bool) -> None:
        self._task = task
        self._store = store
        self._note = note
        self._own_weights = own_weights

    def start_of(
        self,
        variant: Variant,
        baseline: Any,
        like: Path | None,
        make: Callable[[Variant], Reference],
        times: LayerTimes | None,
    ) -> Start | None:
        """The nearest wider model that is trained; None for the pruned baseline. ``like`` is the file of weights that tells
        how wide the variant's layers are, if there is one, else an allocation by time has ``times``; ``make`` gives the
        model of a variant, trained again where it is gone."""
        path = start_path(self._store, variant.model_digest)
        kept = self._read(variant)
        if kept is None:
            found = self._nearest(variant, baseline, like, times)
            kept = {"variant": found.as_json(), "model": found.model_digest} if found else {"variant": None}
            write_json(path, kept)
            what = f"{found.model_label}, model {found.model_digest}" if found else _NONE_YET
            self._note(f"training {variant.model_label} starts from {what}")
        if kept["variant"] is None:
            return None
        wider = Variant.from_json(kept["variant"])
        return wider, make(wider).path.with_name(WEIGHTS)

    def chosen(self, variant: Variant) -> Mapping[str, Any] | None:
        """What :meth:`start_of` decided, for the model's record; None for the pruned baseline."""
        kept = self._read(variant) if variant.from_wider else None
        return kept if kept and kept["variant"] else None

    def _read(self, variant: Variant) -> dict[str, Any] | None:
        path = start_path(self._store, variant.model_digest)
        if not os.path.lexists(path):
            return None
        try:
            data = parsed(path.read_bytes())
            if data["variant"] is not None:
                found = Variant.from_json(data["variant"])
                if found.model_digest != data["model"]:
                    raise ValueError("the variant is not of that model")
            return dict(data)
        except (OSError, *FAULTS) as exc:
            self._note(f"{path.name} is not used, the start is chosen anew: {fault(exc)}")
            return None

    def _nearest(self, variant: Variant, baseline: Any, like: Path | None, times: LayerTimes | None) -> Variant | None:
        """Of the trained models that are wider in some layer and narrower in none, that with the fewest parameters; of
        equals the one trained for the most epochs."""
        own = layer_widths(self._task, variant, baseline, like, own_weights=self._own_weights, times=times)
        model = built(self._task, variant.arch_kwargs)
        found = []
        for other in self._trained(variant):
            path = self._store.model_folder(other.model_digest) / WEIGHTS
            try:
                widths, size = widths_in(path, model), parameters_in(path, model)
            except DataError:
                continue
            if widths != own and all(widths.get(name, 0) >= count for name, count in own.items()):
                found.append(((size, -(other.recovery_epochs or 0), other.model_digest), other))
        return min(found, key=lambda item: item[0])[1] if found else None

    def _trained(self, variant: Variant) -> Iterator[Variant]:
        for folder in sorted((self._store.root / "models").glob("*/")):
            other = kept_network(folder)
            if (
                other is not None
                and other.arch == variant.arch
                and not (other.training or other.recovered or other.shrink)
            ):
                yield other
