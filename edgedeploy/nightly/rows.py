"""What a lab's journal holds, row by row: nights, jobs, verdicts and what was accepted, read from the database."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from edgedeploy.errors import StorageError
from edgedeploy.files import parsed
from edgedeploy.records.night import Session, Verdict
from edgedeploy.runtime.wire.serde import from_json
from edgedeploy.study.events import utc_text

Record = TypeVar("Record")

WAITING, RUNNING, DONE, NOT_RUN = "waiting", "running", "done", "not_run"


@dataclass(frozen=True, order=True)
class JobKey:
    """One session of one entry on one board."""

    entry: str
    board: str
    number: int


@dataclass(frozen=True)
class JobRow:
    """``attempts`` counts those that the board failed. ``session`` is there once it is done."""

    key: JobKey
    state: str
    attempts: int = 0
    reason: str = ""
    session: Session | None = None


@dataclass(frozen=True)
class NightRow:
    """Times in seconds since 1970, by the database's clock; ``now_s`` is when it was read."""

    night: str
    started_s: float
    ended_s: float | None
    budget_s: float
    now_s: float

    @property
    def left_s(self) -> float:
        """Of the budget. A clock that was set back gives no more than the whole of it."""
        return min(self.budget_s, max(0.0, self.started_s + self.budget_s - self.now_s))


@dataclass(frozen=True)
class Measured:
    """The latest night, and in how many."""

    last: str
    nights: int


@dataclass(frozen=True)
class Acceptance:
    """A move of what an entry is held against, the ``number``-th: ``was`` and ``now`` are digests, ``at_s`` is in seconds
    since 1970."""

    entry: str
    number: int
    at_s: float
    who: str
    why: str
    was: str
    now: str

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "at_utc": utc_text(self.at_s)}


def night_row(row: Any, now_s: float) -> NightRow:
    return NightRow(row.night, row.started_s, row.ended_s, row.budget_s, now_s)


def job_row(row: Any) -> JobRow:
    session = None if row.session is None else _record(Session, row, row.session)
    return JobRow(JobKey(row.entry, row.board, row.number), row.state, row.attempts, row.reason, session)


def acceptance_of(row: Any) -> Acceptance:
    return Acceptance(row.entry, row.number, row.at_s, row.who, row.why, row.was, row.now)


def verdict_of(row: Any) -> Verdict:
    return _record(Verdict, row, row.verdict)


def _record(kind: type[Record], row: Any, text: str) -> Record:
    """Raises ``StorageError`` for a row that was damaged: a night is judged by its whole history or not at all."""
    try:
        return from_json(kind, parsed(text.encode()), kept=True)
    except (ValueError, RecursionError) as exc:
        what = f"the journal's {kind.__name__.lower()} of {row.entry} on {row.board}, night {row.night}"
        raise StorageError(what, str(exc)[:300], "Put a copy of the journal back, or remove that row") from None
