"""Takes over what another study of the same task has trained and built, so that none of it is made twice.

Only what is whole is taken, file by file, by the hashes that its makers left beside it. Files are copied, never linked:
either folder may be removed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edgedeploy.errors import DataError
from edgedeploy.files import PARTIAL_PREFIX, new_folder, raise_if_disk, write_json
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.precision import NO_RULES
from edgedeploy.records.variant import Variant
from edgedeploy.reference.program import PROGRAM_FILE
from edgedeploy.study.artifacts import kept_artifact
from edgedeploy.study.elastic import is_whole
from edgedeploy.study.layer_times import kept_times
from edgedeploy.study.layout import LAYER_TIMES
from edgedeploy.study.models import kept_reference
from edgedeploy.study.origin import Origin
from edgedeploy.study.store import Store
from edgedeploy.study.whole import flaw_of, note_of
from edgedeploy.study.wider import start_path

_TRAINING: Final = "training.json"


@dataclass(frozen=True)
class Adopted:
    """The models (by digest) and artifacts (by the name of their folder) that a study has now from another one."""

    models: frozenset[str] = frozenset()
    artifacts: frozenset[str] = frozenset()


def adopt(
    origin: Origin,
    store: Store,
    *,
    targets: Collection[str],
    sums_alike: bool,
    same_tools: bool,
    programs: bool = False,
    tell: Callable[[str], None],
) -> Adopted:
    """Copy the baseline, the models of measured variants, and their artifacts into the owned folder ``store``, as far as it
    lacks them. ``tell`` hears of what is not whole.

    - ``targets``: those whose artifacts do not depend on the board.
    - ``sums_alike``: both boards add int8 products in the same way; else models that were trained to be int8 stay, and so
      do all int8 artifacts.
    - ``same_tools``: the toolchains are those of before; else artifacts are built anew.
    - ``programs``: a target of this study needs torch's programs; models that were trained to be int8 and have none stay.

    Raises ``StorageError`` where the disk is full.
    """
    if not _take_baseline(origin.store, store, tell):
        return Adopted()
    _take_times(origin.store, store, tell)
    models: set[str] = set()
    for variant in _made_there(origin, sums_alike, programs):
        if variant.model_digest not in models and _take_model(origin.store, store, variant, tell):
            models.add(variant.model_digest)
            _take_elastic(origin.store, store, variant)
    artifacts: set[str] = set()
    if same_tools:
        for item in origin.measurements:
            if item.variant.target in targets and item.variant.model_digest in models:
                artifacts |= _take_artifact(origin.store, store, item, sums_alike)
    return Adopted(frozenset(models), frozenset(artifacts))


def models_of(origin: Origin) -> frozenset[str]:
    """Digests of the models of measured variants, whole or not."""
    return frozenset(item.variant.model_digest for item in origin.measurements)


def models_to_take(origin: Origin, sums_alike: bool, programs: bool = False) -> frozenset[str]:
    """Digests of the models that :func:`adopt` would take over into an empty folder. Writes nothing."""
    if flaw_of(origin.store.baseline_weights):
        return frozenset()
    digests = {variant.model_digest for variant in _made_there(origin, sums_alike, programs)}
    folders = {digest: origin.store.model_folder(digest) for digest in digests}
    return frozenset(digest for digest in folders if kept_reference(folders[digest], (), lambda text: None) is not None)


def _made_there(origin: Origin, sums_alike: bool, programs: bool) -> Iterable[Variant]:
    """Variants whose models are of use here, each once: models that were trained to be int8 are made for one kind of
    sums, and where ``programs`` are needed they cannot be had from their files."""
    variants = [item.variant for item in origin.measurements if sums_alike or not item.variant.training]
    found = dict.fromkeys(other for item in variants for other in (item, _twin(item)))
    if not programs:
        return found
    folders = {item: origin.store.model_folder(item.model_digest) for item in found}
    return [item for item in found if not item.training or (folders[item] / PROGRAM_FILE).is_file()]


def _twin(variant: Variant) -> Variant:
    """The float model that one trained to be int8 starts from."""
    return replace(variant, precision="float32", training="", plan=NO_RULES, weight_bits=0)


def _take_baseline(origin: Store, store: Store, tell: Callable[[str], None]) -> bool:
    """Whether ``store`` has the baseline of ``origin`` now: no model is of use beside another baseline. A study without one
    of its own, of a ready-made model, has none to take."""
    there, here = origin.baseline_weights, store.baseline_weights
    flaw = flaw_of(there)
    if flaw is None:
        return not here.exists()
    if flaw:
        tell(f"nothing is taken over from {origin.root.name}: of baseline/{there.name}, {flaw}")
        return False
    if flaw_of(here) == "":
        return note_of(here).read_bytes() == note_of(there).read_bytes()
    with new_folder(here.parent) as part:
        _copy(there.parent, part, [there.name, note_of(there).name, _TRAINING])
    return True


def _take_times(origin: Store, store: Store, tell: Callable[[str], None]) -> None:
    """The layer times that name models of widths by time: those are of use to a study of the same times alone."""
    try:
        times = kept_times(origin.root)
    except DataError as exc:
        tell(f"the layer times of {origin.root.name} are not taken over: {exc.found}")
        return
    if times is not None and kept_times(store.root) is None:
        write_json(store.root / LAYER_TIMES, times.as_json())


def _take_model(origin: Store, store: Store, variant: Variant, tell: Callable[[str], None]) -> bool:
    digest = variant.model_digest
    there, here = origin.model_folder(digest), store.model_folder(digest)
    kept = kept_reference(there, (), lambda text: tell(f"{origin.root.name}: {text}"))
    if kept is None:
        return False
    now = kept_reference(here, (), lambda text: None)
    if now is not None:
        return now.sha256 == kept.sha256
    with new_folder(here) as part:
        _copy(there, part, [path.name for path in there.iterdir()])
    if variant.from_wider:
        start = start_path(origin, digest)
        _copy(start.parent, here.parent, [start.name])
    return True


def _take_elastic(origin: Store, store: Store, variant: Variant) -> None:
    """The network that the variant's model was cut out of, for widths that were not tried there."""
    there, here = (place.model_folder(variant.elastic_digest) for place in (origin, store))
    if variant.elastic and not here.exists() and is_whole(there):
        with new_folder(here) as part:
            _copy(there, part, [path.name for path in there.iterdir()])


def _take_artifact(origin: Store, store: Store, item: Measurement, sums_alike: bool) -> set[str]:
    """The artifact's folder, where its weights have the bits that every board takes."""
    variant, bits = item.variant, item.weight_bits.bits if item.weight_bits else 8
    int8 = any(precision.startswith("int8") for precision in variant.precisions)
    if int8 and not sums_alike:
        return set()
    name = variant.artifact_folder(bits)
    reference = kept_reference(store.model_folder(variant.model_digest), (), lambda text: None)
    if reference is None:
        return set()
    asked = (variant.target, variant.precision, reference.sha256)
    there, here = origin.artifact_folder(name), store.artifact_folder(name)
    kept, _ = kept_artifact(there, *asked)
    if kept is None or kept.digest != item.artifact.digest:
        return set()
    now, _ = kept_artifact(here, *asked)
    if now is None:
        with new_folder(here) as part:
            _copy(there, part, [path.name for path in there.iterdir()])
    return {name} if now is None or now.digest == kept.digest else set()


def _copy(there: Path, part: Path, names: Collection[str]) -> None:
    """Plain files alone: links and what was half written stay."""
    for name in names:
        path = there / name
        if name.startswith(PARTIAL_PREFIX) or path.is_symlink() or not path.is_file():
            continue
        try:
            shutil.copyfile(path, part / name)
        except OSError as exc:
            raise_if_disk(exc, part / name)
            raise


def alike(theirs: Mapping[str, str], ours: Mapping[str, str]) -> bool:
    """Whether two studies were made with the same versions of everything that builds."""
    names = {*theirs, *ours} - {"system", "optuna"}
    return all(theirs.get(name) == ours.get(name) for name in names)
