"""Failures that are tried again because the user asks for it: kept, and no longer evidence."""

from __future__ import annotations

from edgedeploy.study.evidence_files import SUPERSEDED
from edgedeploy.study.store import Store


def set_failures_aside(store: Store) -> str:
    """Moves every stored failure to ``failures/superseded/``, so that its variant is evaluated again; returns what is worth
    telling. An earlier one of the same variant is kept beside it."""
    folder = store.root / "failures"
    paths = sorted(folder.glob("*.json"))
    for path in paths:
        (folder / SUPERSEDED).mkdir(exist_ok=True)
        earlier = len(list((folder / SUPERSEDED).glob(f"{path.stem}-*.json")))
        path.rename(folder / SUPERSEDED / f"{path.stem}-{earlier + 1}.json")
    if not paths:
        return "no failure is stored: there is nothing to try again"
    what = "failure is" if len(paths) == 1 else "failures are"
    return f"{len(paths)} stored {what} set aside (failures/{SUPERSEDED}), and tried again"
