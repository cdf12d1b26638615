"""What a study's ``events.jsonl`` says that no file of the evidence does: failures that were remembered for one run only,
and why the last run ended early."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgedeploy.records.measurement import Failure
from edgedeploy.study.events import read_events
from edgedeploy.study.reading import FAULTS
from edgedeploy.study.store import Store

NOT_TOLD = "It has no end in events.jsonl: it was killed, or it is still at work"


def passing_failures(store: Store) -> tuple[Failure, ...]:
    """The last failure of each variant that still has no evidence: the next run tries it again."""
    found: dict[tuple[str, str], Failure] = {}
    for event in read_events(store.root):
        failure = _failure(event)
        if failure is not None:
            confirming = failure.phase == "confirmation"
            found[failure.variant.digest, "confirmation" if confirming else ""] = failure
    return tuple(failure for key, failure in sorted(found.items()) if not _has_evidence(store, failure))


def early_end(store: Store) -> str | None:
    """Why the last run ended before its time, in one line; None when it did not, or nothing is known of it."""
    last: Mapping[str, Any] | None = None
    for event in read_events(store.root):
        if event.get("kind") in ("start", "end"):
            last = event
    if last is None:
        return None
    if last["kind"] == "start":
        return NOT_TOLD
    return str(last.get("text", "")) if last.get("reason") == "error" else None


def _failure(event: Mapping[str, Any]) -> Failure | None:
    """The failure that an event tells; None for any other event, and for one that another version wrote otherwise."""
    told = event.get("failed")
    if not isinstance(told, Mapping):
        return None
    try:
        return Failure.from_json({**told, "created_utc": event.get("utc", "")})
    except FAULTS:
        return None


def _has_evidence(store: Store, failure: Failure) -> bool:
    kinds = ("confirmation",) if failure.phase == "confirmation" else ("measurements", "failures")
    return any((store.root / kind / f"{failure.variant.digest}.json").exists() for kind in kinds)
