"""Verdicts of a night, each with the history that the journal has of it."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgedeploy.errors import BoardError, DamagedFile, EdgeDeployError
from edgedeploy.evidence.nights import Limits, widened
from edgedeploy.nightly.journal import Journal
from edgedeploy.nightly.order import SESSIONS, Pair
from edgedeploy.nightly.subject import Subject
from edgedeploy.nightly.vault import Vault
from edgedeploy.nightly.verdict import not_run, refused, verdict
from edgedeploy.records.night import Outcome, Session, Verdict
from edgedeploy.spec.lab import LabSpec

SERIES_OF_A_PAIR: Final = 3
"""Of an entry that names no metrics and has no verdict yet: latency, CPU time and memory."""


class Judge:
    """Of one night. Threads may share it."""

    def __init__(self, spec: LabSpec, journal: Journal, night: str) -> None:
        self._spec = spec
        self._journal = journal
        self._night = night
        self._kept = journal.verdicts(night)
        self._limits = widened(max(1, series_of(spec, journal.latest_series(night))))

    @property
    def limits(self) -> Limits:
        """By the number of series of the whole lab."""
        return self._limits

    def kept(self, entry: str, board: str) -> Verdict | None:
        """What an earlier part of this night has decided."""
        return self._kept.get((entry, board))

    def holds(self, pair: Pair, sessions: int) -> bool:
        """Whether the verdict that is kept is on all of the pair's sessions, so many: a kill may have come between."""
        found = self.kept(pair.entry, pair.board)
        return found is not None and bool(found.key) and not (is_suspect(found) and sessions > SESSIONS)

    def require_frozen(self, entry: str, folder: Path) -> None:
        """What was accepted of the entry lies in the lab's ``folder`` of frozen files: it is never frozen a second time by
        itself. Raises ``DamagedFile``."""
        log = self._journal.accepted(entry)
        found = Vault(folder).generation(entry)
        if log and found < log[0].number:
            raise DamagedFile(
                f"what was accepted of entry {entry!r}, in {folder}",
                f"number {log[0].number} was accepted ({log[0].why}), and it is not there",
                f"Put a copy of the folder back, or: edgedeploy nightly accept LAB.toml {entry} --why TEXT",
            )

    def first_seen(self, entry: str, subject: Subject) -> None:
        """Logs what was accepted by being seen first, or by a command that was killed before it could log it."""
        log = self._journal.accepted(entry)
        frozen = subject.frozen
        if not log or log[0].number < frozen.generation:
            why = "seen for the first time" if not log else "accepted by a command that was ended before it logged why"
            was = log[0].now if log else ""
            self._journal.accept(entry, was, frozen.artifact.digest, who(), why, number=frozen.generation)

    def verdict(
        self, entry: str, board: str, sessions: Sequence[Session], subject: Subject | EdgeDeployError | None
    ) -> Verdict:
        """The verdict on a pair that has sessions, which is kept."""
        known = None if isinstance(subject, EdgeDeployError) else subject
        table = self._spec.entry(entry)
        found = verdict(
            sessions,
            self._journal.history(entry, board, self._night),
            None if known is None else known.accepted_on(board, sessions),
            self._limits,
            owner=table.owner,
            importance=table.importance,
            margins={} if known is None else known.margins,
        )
        return self._keep(replace(found, generation=0 if known is None else known.frozen.generation))

    def _keep(self, found: Verdict) -> Verdict:
        self._journal.keep_verdict(found)
        self._kept[found.entry, found.board] = found
        return found

    def at_the_end(
        self,
        pair: Pair,
        sessions: Sequence[Session],
        subject: Subject | EdgeDeployError | None,
        error: EdgeDeployError | None,
        reason: str,
        asked: int,
    ) -> Verdict:
        """What is said of a pair when the night is over: ``asked`` sessions were to be run of it. ``error`` is its board's,
        ``reason`` says why something was not run."""
        table = self._spec.entry(pair.entry)
        told = {"owner": table.owner, "importance": table.importance}
        key = (pair.entry, pair.board, self._night)
        kept = self.kept(pair.entry, pair.board)
        if kept is not None and len(sessions) in (SESSIONS, asked) and self.holds(pair, len(sessions)):
            return kept
        if isinstance(subject, EdgeDeployError):
            return self._keep(refused(*key, subject, **told))  # type: ignore[arg-type]
        outcome: Outcome = "board" if isinstance(error, BoardError) else "infrastructure" if error else "not_run"
        if error is not None and not sessions:
            return self._keep(Verdict(*key, outcome, str(error), error=type(error).__name__, **told))  # type: ignore[arg-type]
        if not sessions or subject is None:  # when its board failed before this night was taken up, that is why
            return kept or not_run(*key, reason, **told)  # type: ignore[arg-type]
        # one more session of two confirms no suspicion
        judged = sessions[:SESSIONS] if len(sessions) < asked else sessions
        found = self.verdict(pair.entry, pair.board, judged, subject)
        if found.outcome in ("ok", "young"):
            why = reason if error is None else str(error)
            return replace(found, outcome=outcome, reason=f"{len(sessions)} of {asked} sessions: {why}")
        return found


def is_suspect(found: Verdict) -> bool:
    """Whether two more sessions have to decide."""
    return any(series.status == "suspect" for series in found.series)


def series_of(spec: LabSpec, latest: dict[tuple[str, str], int]) -> int:
    """How many series the lab judges: as many as each pair had at last, or as its entry names."""
    return sum(
        len(entry.metrics) or latest.get((entry.id, board)) or SERIES_OF_A_PAIR
        for entry in spec.entries
        for board in entry.boards_of(spec.board_names)
    )


def who() -> str:
    """The user, for the log of what was accepted."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
