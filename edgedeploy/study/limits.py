"""The limits of ``[measure]`` that a resumed study may change: what is valid stays valid under wider ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edgedeploy.errors import SpecError
from edgedeploy.evidence.statistics import StabilityLimits
from edgedeploy.records.measurement import LIMITS_CHANGED, ON_CORES
from edgedeploy.records.units import human
from edgedeploy.runtime.agent.memory_limit import CONTROL_GROUP, LOOKING
from edgedeploy.spec.measuring import MeasureTable
from edgedeploy.spec.study import StudySpec
from edgedeploy.study.store import Store

RAISED: Final = ("max_drift", "max_spread", "max_background_cores", "max_heating_c", "max_clock_drift", "time_limit")
"""Keys of ``[measure]`` that may only grow once something is measured."""

EITHER: Final = ("retries", "cool_down")
"""Keys that say when an invalid run is repeated: they make no valid run invalid, whichever way they change."""


MOST_TOLD: Final = 64
"""Cores in a note."""


def stability_limits(table: MeasureTable) -> StabilityLimits:
    """The study file's limits for a stable run."""
    return StabilityLimits(
        max_drift=table.max_drift,
        max_background_cores=table.max_background_cores,
        max_spread=table.max_spread,
        max_heating_c=table.max_heating_c,
        max_clock_drift=table.max_clock_drift,
    )


def memory_notes(environment: Mapping[str, Any]) -> tuple[str, ...]:
    """What held a run's candidate to the board's `memory`, as a note; ``environment`` is as the board told it."""
    told = environment.get("memory_limit")
    if not isinstance(told, Mapping):
        return ()
    size_bytes, by = told.get("bytes"), told.get("held_by")
    if not isinstance(size_bytes, int) or not 0 < size_bytes < 1 << 63 or by not in (CONTROL_GROUP, LOOKING):
        return ()
    return (f"its process had {human(size_bytes, 'bytes')} of memory at most, held by {by}",)


def lease_notes(environment: Mapping[str, Any]) -> tuple[str, ...]:
    """Which cores of its machine a run had, where it had not all, and on which others measured meanwhile."""
    told = environment.get("leased")
    if not isinstance(told, Mapping):
        return ()
    own, others = (_core_words(told.get(name)) for name in ("cores", "others"))
    beside = f" while others measured on {others}" if others else " while nobody measured on the others"
    return (f"{ON_CORES}{own.removeprefix('core')} of the board's machine{beside}",) if own else ()


def _core_words(cores: Any) -> str:
    if not isinstance(cores, (list, tuple)) or not all(isinstance(core, int) for core in cores[:MOST_TOLD]):
        return ""
    return f"core{'s' if len(cores) > 1 else ''} {', '.join(map(str, cores[:MOST_TOLD]))}" if cores else ""


def limits_of(spec: StudySpec) -> dict[str, float]:
    """The limits by their keys in ``[measure]``."""
    return {key: float(getattr(spec.measure, key)) for key in (*RAISED, *EITHER)}


def with_limits(spec: StudySpec, limits: Mapping[str, float]) -> StudySpec:
    """``spec`` with these ``limits``."""
    old = spec.measure
    values = {key: type(getattr(old, key))(value) for key, value in limits.items() if key in (*RAISED, *EITHER)}
    return spec.model_copy(update={"measure": old.model_copy(update=values)})


def first_limits(store: Store, begun: StudySpec) -> dict[str, float]:
    """The limits that the folder was begun with; folders of before they were recorded have those of ``begun``, which is
    the study file in the folder."""
    return {**limits_of(begun), **(store.study().get("limits") or {})}


def changed_limits(store: Store, begun: StudySpec, spec: StudySpec) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What :meth:`Store.keep_limit_change` is to keep, empty when ``spec`` has the limits that the folder has now, and what
    is worth knowing of it. ``begun`` is as in :func:`first_limits`.

    Raises ``SpecError`` for a limit below the one that something stored was measured under.
    """
    if not store.exists():
        return {}, ()
    first, now = first_limits(store, begun), limits_of(spec)
    changes = store.study().get("limit_changes") or ()
    kept = {**first, **(changes[-1]["limits"] if changes else {})}
    changed = [key for key in now if now[key] != kept[key]]
    if not changed:
        return {}, ()
    was, is_now = _shown(kept), _shown(now)
    lower = [key for key in changed if key in RAISED and now[key] < kept[key]]
    if lower and _counts_under_wider(store, within=all(now[key] >= first[key] for key in lower)):
        told = "; ".join(
            f"{key} in [measure] is {is_now[key]} in this study file and {was[key]} in the folder" for key in lower
        )
        raised = ", ".join(f"{key} = {was[key]}" for key in lower)
        raise SpecError(
            f"--resume {store.root}",
            f"{told}: what is measured there may not be valid under a lower limit",
            f"Set {raised} or more, or choose another --out",
        )
    listed = ", ".join(f"{key} {is_now[key]}, was {was[key]}" for key in changed)
    entry = {"limits": {key: now[key] for key in now if now[key] != first[key]}, "first": first}
    return entry, (f"limits of [measure] changed ({listed}): what was measured before stays valid",)


def limit_marks(study: Mapping[str, Any]) -> tuple[str, ...]:
    """The note that measurements keep from now on; ``study`` is the content of a ``study.json``."""
    changes = study.get("limit_changes") or ()
    if not changes:
        return ()
    now, first = _shown(changes[-1]["limits"]), _shown(changes[-1]["first"])
    wider = [f"{key} {now[key]} instead of {first[key]}" for key in RAISED if key in now and key in first]
    return (f"{LIMITS_CHANGED} ({', '.join(wider)})",) if wider else ()


def _counts_under_wider(store: Store, *, within: bool) -> bool:
    """Whether anything stored counts that was measured under wider limits than those asked for; ``within`` says that these
    are not below those that the study began with."""
    found = (*store.measurements(), *store.confirmations())
    if not within:
        return bool(found)
    return any(note.startswith(LIMITS_CHANGED) for item in found for note in item.notes)


def _shown(limits: Mapping[str, float]) -> dict[str, str]:
    """As a study file has them."""
    return {
        key: f'"{value:g} s"' if key in ("time_limit", "cool_down") else f"{value:g}" for key, value in limits.items()
    }
