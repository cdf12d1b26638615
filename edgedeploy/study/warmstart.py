"""A study that starts from another board's: what it knows from there, kept in its own folder, and what it predicts.

``warm-start.json`` is written once, when the study begins: a resumed search proposes what the first would have, also when
the other study is gone. ``predicted.json`` is written anew after each run; no number in it is measured, and nothing reads
it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from edgedeploy.files import write_json
from edgedeploy.interfaces.target import FitsBoard, Target
from edgedeploy.interfaces.task import Task
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.metric_table import BOARD_METRICS
from edgedeploy.records.metrics import Direction
from edgedeploy.records.variant import Variant
from edgedeploy.reference.program import FromProgram
from edgedeploy.search.space import Space
from edgedeploy.search.warmstart import Predicted, Trained, WarmStart
from edgedeploy.spec.source import SpecSource
from edgedeploy.spec.study import StudySpec
from edgedeploy.study.adoption import Adopted, adopt, alike
from edgedeploy.study.origin import KEY, Origin, find_origin
from edgedeploy.study.reading import read_record
from edgedeploy.study.store import Store

RECORD: Final = "warm-start.json"
PREDICTED: Final = "predicted.json"
REMEDY: Final = (
    f"Put a copy of it back; or remove it, and {KEY} from the study file: search --resume goes on among all variants"
)
CARRIED: Final = frozenset({"size_bytes"})
"""Metrics of a run that are the file's, not the board's."""


def is_on_board(metric: str) -> bool:
    """Whether another board answers otherwise for the same file."""
    return metric in BOARD_METRICS and metric not in CARRIED


def take_over(
    origin: Origin | None,
    store: Store,
    spec: StudySpec,
    targets: Mapping[str, Target],
    board: BoardInfo,
    tools: Mapping[str, str],
    space: Space,
) -> tuple[str, ...]:
    """Take over what ``origin`` has trained and built into the owned folder ``store``, and note what it has measured.
    ``tools`` are this host's versions, ``space`` is the new study's. Returns what is worth knowing of it. Raises
    ``StorageError``."""
    if origin is None:
        return ()
    told: list[str] = []
    adopted = adopt(
        origin,
        store,
        targets={name for name, target in targets.items() if not isinstance(target, FitsBoard)},
        sums_alike=origin.sums_as(board),
        same_tools=alike(origin.study.get("versions") or {}, tools),
        programs=any(isinstance(target, FromProgram) for target in targets.values()),
        tell=told.append,
    )
    objectives = [objective.metric for objective in spec.objectives]
    found = [_known(item, objectives, adopted) for item in origin.measurements if not item.variant.recovered]
    kept = [item for item in found if item is not None]
    record = {"study": origin.study.get("id", ""), "name": origin.name, "objectives": objectives, "variants": kept}
    write_json(store.root / RECORD, record)
    models, artifacts = len(adopted.models), len(adopted.artifacts)
    start = f"started from {origin.name}: {models} of its models and {artifacts} of its artifacts are taken over"
    return (*dict.fromkeys(told), f"{start}; {_first_trials(len(kept), len(as_run_here(_trained(kept), space)))}")


def begins_from(
    origin: Origin, spec: StudySpec, space: Space, directions: Sequence[Direction], models: Collection[str]
) -> tuple[WarmStart, str]:
    """What a study that is not begun yet would begin with, and a line of it; ``models`` are those that it takes over from
    ``origin``. Writes nothing."""
    names = [objective.metric for objective in spec.objectives]
    known = [
        Trained(item.variant, tuple(item.metrics[name] for name in names))
        for item in origin.measurements
        if not item.variant.recovered and set(names) <= set(item.metrics) and item.variant.model_digest in models
    ]
    here = as_run_here(known, space)
    first = _first_trials(len(known), len(here))
    line = f"starts from {origin.name}, whose baseline and models are taken over where they are whole; {first}"
    return WarmStart(space, directions, here, [is_on_board(name) for name in names]), line


def _first_trials(measured: int, here: int) -> str:
    if not here:
        return f"of {measured} variants that were measured there this study's space has none, so none is tried first"
    others = f" (of {measured}; this study's space has no others)" if here < measured else ""
    return f"the first trials are among {here} variants that were measured there{others}"


def as_run_here(trained: Sequence[Trained], space: Space) -> list[Trained]:
    """Those that ``space`` has. Threads and power mode are the other board's own: where the space lacks them, the artifact
    runs as the baseline does here, and of several that then are one, that with the nearest number of threads stands for
    it."""
    known = {item.variant.digest: item for item in trained if space.params_of(item.variant) is not None}
    moved: list[tuple[float, Trained]] = []
    for item in trained:
        if item.variant.digest in known or item.variant.target not in space.targets:
            continue
        usual = space.baseline_variant(item.variant.target)
        theirs, ours = item.variant, (usual.threads, usual.power_mode)
        for threads, mode in ((theirs.threads, ours[1]), (ours[0], theirs.power_mode), ours):
            variant = replace(theirs, threads=threads, power_mode=mode)
            if space.params_of(variant) is not None:
                apart = abs(math.log(max(1, theirs.threads) / variant.threads))
                moved.append((apart, replace(item, variant=variant)))
                break
    for _, item in sorted(moved, key=lambda pair: pair[0]):
        known.setdefault(item.variant.digest, item)
    return list(known.values())


def _known(item: Any, objectives: Sequence[str], adopted: Adopted) -> dict[str, Any] | None:
    """A measured variant whose model is here; None for any other."""
    variant: Variant = item.variant
    if variant.model_digest not in adopted.models or not set(objectives) <= set(item.metrics):
        return None
    bits = item.weight_bits.bits if item.weight_bits else 8
    return {
        "variant": variant.as_json(),
        "values": [item.metrics[name] for name in objectives],
        "artifact": item.artifact.digest,
        "same_file": variant.artifact_folder(bits) in adopted.artifacts,
    }


def _trained(kept: Sequence[Mapping[str, Any]]) -> tuple[Trained, ...]:
    return tuple(
        Trained(
            Variant.from_json(item["variant"]),
            tuple(float(value) for value in item["values"]),
            item["same_file"] is True,
        )
        for item in kept
    )


def has_record(store: Store) -> bool:
    return (store.root / RECORD).exists()


def origin_of(
    spec: StudySpec, source: SpecSource, task: Task, sources: Mapping[str, str], store: Store, measured: bool
) -> Origin | None:
    """The study that this one is to take over from now; None where none is asked for, or it did so when it began.
    ``measured``: the folder holds measurements. Raises ``SpecError`` as :func:`edgedeploy.study.origin.find_origin`, and
    where the study went on without it already."""
    named = spec.search.warm_start
    if named is None or has_record(store):
        return None
    if measured:
        remedy = "Remove it, or choose another --out"
        found = f"{store.root} has measurements and no {RECORD}: it was begun without it, or that file is gone"
        raise source.error(KEY, found, remedy)
    return find_origin(spec, source, task, sources, named, store.root)


def warm_start(
    store: Store,
    spec: StudySpec,
    space: Space,
    directions: Sequence[Direction],
    statics: Callable[[Variant], Mapping[str, float]],
) -> WarmStart | None:
    """The first trials of a study that was begun from another one; None for any other. Raises ``DataError`` for a damaged
    record."""
    if not has_record(store):
        return None
    objectives = [objective.metric for objective in spec.objectives]

    def read(data: dict[str, Any]) -> tuple[Trained, ...]:
        if data["objectives"] != objectives:
            raise ValueError("it has other objectives than the study")
        kept = _trained(data["variants"])
        if any(len(item.values) != len(objectives) for item in kept):
            raise ValueError("a variant has not one value for each objective")
        return kept

    trained = as_run_here(read_record(store.root / RECORD, read, REMEDY), space)
    return WarmStart(space, directions, trained, [is_on_board(name) for name in objectives], statics)


def keep_predictions(store: Store, spec: StudySpec, predicted: Sequence[Predicted]) -> str | None:
    """Write down what is predicted of variants that were not measured here; a line about it, None when there are none."""
    path = store.root / PREDICTED
    if not predicted:
        path.unlink(missing_ok=True)
        return None
    names = [objective.metric for objective in spec.objectives]
    write_json(path, {"predicted": [_as_json(item, names) for item in predicted]})
    variants = len({item.variant.digest for item in predicted})
    bounded = "with" if predicted[0].low is not None else "without"
    return (
        f"{variants} trained variants are not measured on this board: {PREDICTED} has what is predicted of them, "
        f"{bounded} intervals; nothing of it is on the front"
    )


def _as_json(item: Predicted, names: Sequence[str]) -> dict[str, Any]:
    return {
        "variant": item.variant.as_json(),
        "variant_digest": item.variant.digest,
        "label": item.variant.label,
        "metric": names[item.objective],
        "value": item.value,
        "interval": None if item.low is None else [item.low, item.high],
        "nominal": None if item.low is None else item.nominal,
        "provenance": item.provenance,
    }
