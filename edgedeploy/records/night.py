"""What a night in a lab leaves: sessions as they were measured, and verdicts that keep three questions apart.

- Did the artifact change? :class:`ArtifactState`
- Did the board change? :class:`BoardState`
- Did the numbers change? :class:`SeriesVerdict`, one for each metric
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from edgedeploy.records.board import BoardInfo
from edgedeploy.runtime.wire.serde import from_json, to_json

FORMAT: Final = "edgedeploy-night"
VERSION: Final = 1

Status = Literal["ok", "young", "suspect", "regression", "missing"]
"""Of a series: ``young`` has too few nights for its own spread, ``suspect`` waits for two more sessions, ``missing`` has no
number tonight."""

Outcome = Literal["ok", "young", "regression", "artifact", "board", "infrastructure", "not_run"]
"""Of an entry on a board: ``regression`` when a number or an answer became worse, ``artifact`` when what is shipped is
other bytes than the accepted ones, ``board`` when the board is another or failed, ``infrastructure`` when this host or the
lab failed, ``not_run`` when the budget ended before."""


@dataclass(frozen=True)
class Rebuilt:
    """Of an artifact that was built again from its recipe: whether the bytes are the same, and what differs."""

    same: bool
    digest: str
    differences: tuple[str, ...] = ()


@dataclass(frozen=True)
class ArtifactState:
    """What is shipped, as it was found. ``digest`` is of the artifact's files and settings, ``files`` their SHA-256,
    ``built_with`` the versions of its toolchain; ``release`` is that of a bundle, ``threads`` how many it runs with
    (None: a record of before says nothing). ``not_rebuilt`` says why it could not be
    built again where that was asked for."""

    digest: str
    files: Mapping[str, str]
    built_with: Mapping[str, str] = field(default_factory=dict)
    release: int | None = None
    rebuilt: Rebuilt | None = None
    not_rebuilt: str = ""
    threads: int | None = None


@dataclass(frozen=True)
class BoardState:
    """What decides whether two nights are of one board. ``runtime`` is that of the entry's target, and of its baseline's.
    ``key`` names all of it but the clocks and the temperature, which vary by themselves: a series belongs to one key."""

    key: str
    serial: str
    identity: str
    host_key: str
    cpu: str
    os: str
    image: str
    python: str
    runtime: str
    power_mode: str
    governor: str
    cpu_mhz: float | None = None
    temperature_c: float | None = None


@dataclass(frozen=True)
class GoldenCheck:
    """Answers against the accepted ones: ``worst`` is the largest relative L2 distance of each output over all cases,
    ``tolerance`` what is allowed, ``changed`` names outputs beyond it."""

    cases: int
    worst: Mapping[str, float]
    tolerance: Mapping[str, float]
    changed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Session:
    """One run in new processes of an entry on a board, interleaved with the entry's frozen baseline.

    - ``night`` is the date on which the night began (``2026-11-29``), ``number`` counts from 1; 3 and 4 are the two more
      after a suspicion.
    - ``losses`` hold what is judged: for a metric with a baseline beside it the logarithm of candidate over baseline, for a
      task's metric of accuracy the baseline's mean less the candidate's; larger is worse. ``loss_errors`` are standard
      errors by the run's own repetitions, of those losses that have any.
    - ``values`` are (candidate, baseline) in base units, for people.
    - ``info`` is None where the board did not answer. ``error`` is the type of the failure (``Unreachable``), ``cause`` says
      why a session does not count; both are empty for one that does.
    """

    entry: str
    board: str
    night: str
    number: int
    started_utc: str
    spent_s: float
    info: BoardInfo | None = None
    state: BoardState | None = None
    artifact: ArtifactState | None = None
    baseline_digest: str = ""
    losses: Mapping[str, float] = field(default_factory=dict)
    loss_errors: Mapping[str, float] = field(default_factory=dict)
    values: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    golden: GoldenCheck | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    cause: str = ""

    @property
    def counts(self) -> bool:
        return not self.cause and not self.error

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = to_json(self)
        return {**found, "info": self.info.as_json() if self.info else None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Session:
        """Unknown keys are ignored. Raises ``ValueError`` for values of another form."""
        return from_json(cls, data, kept=True)


@dataclass(frozen=True)
class Accepted:
    """What the nights of an entry on a board are held against: the artifact that was accepted, and the board as it was on
    the night of that date, its first since then."""

    night: str
    artifact: ArtifactState
    board: BoardState
    info: BoardInfo

    def as_json(self) -> dict[str, Any]:
        return {**to_json(self), "info": self.info.as_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Accepted:
        """Unknown keys are ignored. Raises ``ValueError`` for values of another form."""
        return from_json(cls, data, kept=True)


@dataclass(frozen=True)
class SeriesVerdict:
    """One metric of an entry on a board tonight. ``loss`` is the mean of tonight's sessions, ``reference`` and ``spread``
    are of the frozen nights, ``limit`` is the loss from which on it is suspect, ``drift`` the CUSUM. ``nights`` are those in
    the history of this board's key, tonight left out."""

    metric: str
    status: Status
    nights: int
    reason: str
    loss: float | None = None
    reference: float | None = None
    spread: float | None = None
    limit: float | None = None
    drift: float | None = None
    sessions: int = 0


@dataclass(frozen=True)
class Verdict:
    """An entry on a board tonight. ``artifact_changes`` and ``board_changes`` are sentences, empty where nothing changed
    since the accepted state; ``new_history`` says that a new board key began tonight. ``outcome`` is the worst of them,
    ``reason`` names it. ``state`` is the board as tonight's sessions found it, None where none did. ``key`` is the board's,
    ``artifact`` the digest of what was measured; empty where nothing was. ``notes`` say what was asked for and could not be
    told. ``generation`` is the number of what the entry was held against, 0 where nothing was."""

    entry: str
    board: str
    night: str
    outcome: Outcome
    reason: str
    artifact_changes: tuple[str, ...] = ()
    board_changes: tuple[str, ...] = ()
    new_history: bool = False
    golden: GoldenCheck | None = None
    series: tuple[SeriesVerdict, ...] = ()
    owner: str = ""
    importance: float = 1.0
    error: str = ""
    key: str = ""
    artifact: str = ""
    state: BoardState | None = None
    notes: tuple[str, ...] = ()
    generation: int = 0


@dataclass(frozen=True)
class BoardHealth:
    """One board of the lab, for the lab's page. ``state`` is the latest that was seen of it; ``quarantined`` holds the
    cause, empty for a board that serves. ``busy_s`` is the time in which it measured tonight, ``waiting`` its jobs that were
    not run; ``provenance`` is that of its numbers (``measured``, ``emulated``), empty where it never answered."""

    name: str
    answered: bool
    state: BoardState | None = None
    quarantined: str = ""
    busy_s: float = 0.0
    waiting: int = 0
    error: str = ""
    provenance: str = ""


@dataclass(frozen=True)
class Acceptance:
    """Somebody moved what an entry is held against."""

    entry: str
    why: str
    at_utc: str = ""
    digest: str = ""


AlarmState = Literal["sent", "failed", "earlier", "unknown"]
"""``earlier``: a message of this night went out before, and a night has one. ``unknown``: an earlier attempt was killed
after it began, so that nothing is sent again."""


@dataclass(frozen=True)
class AlarmTold:
    """What became of the message to a person. ``detail`` says why it failed, in one line."""

    state: AlarmState
    detail: str = ""


@dataclass(frozen=True)
class Night:
    """One night of a lab: the JSON file of it. ``alarms`` are sentences, one for each regression; ``told`` is what became
    of the message that has them, None where none was due; ``accepted`` are the moves of what
    entries are held against, all so far, oldest first."""

    lab: str
    night: str
    started_utc: str
    ended_utc: str
    budget_s: float
    verdicts: tuple[Verdict, ...]
    boards: tuple[BoardHealth, ...]
    alarms: tuple[str, ...] = ()
    tools: Mapping[str, str] = field(default_factory=dict)
    accepted: tuple[Acceptance, ...] = ()
    told: AlarmTold | None = None
    format: str = FORMAT
    version: int = VERSION

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = to_json(self)
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Night:
        """Unknown keys are ignored. Raises ``ValueError`` for values of another form."""
        return from_json(cls, data, kept=True)
