"""Moves what an entry is held against. Nothing else ever does."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import Final

from edgedeploy.errors import Busy, DamagedFile, SpecError
from edgedeploy.nightly.judging import who
from edgedeploy.nightly.place import Lab
from edgedeploy.nightly.rows import Acceptance
from edgedeploy.nightly.subject import accept as freeze
from edgedeploy.nightly.vault import Vault

MOST_WHY: Final = 500


def accept(lab: Lab, entry_id: str, why: str) -> Acceptance:
    """Freeze what the entry ships now, and log who did it and why; its history begins anew.

    Raises ``SpecError``, ``Busy`` while a night is at work, and what :func:`edgedeploy.nightly.subject.accept` raises.
    """
    if not why.strip() or len(why) > MOST_WHY or not why.isprintable():
        raise SpecError(
            "--why", f"expected one line of 1 to {MOST_WHY} characters", "Say why what is shipped now is right"
        )
    entry = lab.spec.entry(entry_id)
    with lab.secrets_kept(), closing(lab.open()) as journal:
        holder = journal.at_work()
        if holder is not None:
            raise Busy(f"accept {entry_id!r}", f"{holder} is at work on a night of this lab", "Wait for it, or end it")
        log = journal.accepted(entry_id)
        was = log[0].now if log else _frozen(lab, entry_id)
        subject = freeze(entry, lab.base, lab.frozen, log[0].number if log else 0)
        number = subject.frozen.generation
        return journal.accept(entry_id, was, subject.frozen.artifact.digest, who(), why.strip(), number=number)


def _frozen(lab: Lab, entry_id: str) -> str:
    """The digest of what is accepted though no log says so; empty where nothing is, or where it is damaged: that is what
    accepting anew is for."""
    with suppress(DamagedFile):
        found = Vault(lab.frozen).latest(entry_id)
        return found.artifact.digest if found else ""
    return ""
