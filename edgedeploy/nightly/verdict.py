"""What tonight says of an entry on a board: whether the artifact, the board or the numbers changed, and which of it matters.

The three are kept apart: ``artifact_changes`` and ``board_changes`` are told whatever the numbers say. The outcome is the
first of these that holds:

1. ``board``: another machine answers under the board's name. Its numbers are those of another board.
2. ``regression``: an answer is not the accepted one, the artifact gives none on a board that runs the baseline, or two more
   sessions agree that a number became worse.
3. ``artifact``: what is shipped is not what was accepted, or its recipe gives something else now.
4. ``board``: no session counts because the board failed or was disturbed, or a new board key began tonight.
5. ``infrastructure``: no session counts because this host or the lab failed.
6. ``not_run``: two more sessions were to decide, and the budget ended before.
7. ``young``: a series has too few nights for its own spread. 8. ``ok``.

A history belongs to one board key and to the accepted artifact: nights of another board, or of an artifact that nobody
accepted, are no part of it. After a change of the board the nights of its new key are the history, and go on with the old
one when the board goes back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

import numpy as np

from edgedeploy import errors
from edgedeploy.errors import (
    BoardError,
    BundleError,
    DataError,
    EdgeDeployError,
    GoalNotMet,
    MeasurementError,
    SpecError,
)
from edgedeploy.evidence.nights import FIRST_SESSIONS, LEAST_NIGHTS, Limits, Past, SeriesJudged, judge_series
from edgedeploy.nightly.states import artifact_changes, board_changes, is_other_machine
from edgedeploy.records.metric_table import BOARD_METRICS
from edgedeploy.records.night import Accepted, GoldenCheck, Outcome, SeriesVerdict, Session, Verdict

FIRST_NIGHT: Final = "its first night with this board and what was accepted: there is nothing yet to hold it against"
_TINY: Final = 1e-9
"""A margin of 0 allows what rounding does."""

_OF_THE_ARTIFACT: Final = (BundleError, GoalNotMet, SpecError, DataError)
"""What says, before a night's sessions, that what is shipped cannot be what was accepted."""


def verdict(
    sessions: Sequence[Session],
    history: Sequence[Verdict],
    accepted: Accepted | None,
    limits: Limits,
    *,
    owner: str = "",
    importance: float = 1.0,
    margins: Mapping[str, float] = MappingProxyType({}),
) -> Verdict:
    """Of tonight's sessions of one entry on one board, by their number. With two sessions a series may be ``suspect``: two
    more decide, and the verdict is asked again.

    ``history`` are the earlier nights' verdicts on the same entry and board since it was accepted, oldest first.
    ``accepted`` is what :meth:`~edgedeploy.nightly.subject.Subject.accepted_on` gives, None before any session counted.
    ``limits`` are of logarithms of ratios, ``margins`` what each of the task's metrics may lose.

    Raises ``ValueError`` without a session: that is :func:`not_run`.
    """
    if not sessions:
        raise ValueError("a verdict needs a session")
    ordered = sorted(sessions, key=lambda item: item.number)
    last = next((item for item in reversed(ordered) if item.state is not None), ordered[-1])
    key = last.state.key if last.state else ""
    other = bool(accepted and last.info and is_other_machine(accepted, last.info))
    new = bool(accepted and key and key != accepted.board.key and all(item.key != key for item in history))
    counted = [item for item in ordered if item.counts and item.state and _alike(item) == _alike(last)]
    found = Verdict(
        entry=last.entry,
        board=last.board,
        night=last.night,
        outcome="ok",
        reason="",
        artifact_changes=_artifact_changes(accepted, ordered),
        board_changes=board_changes(accepted, last.state, last.info) if accepted and last.state and last.info else (),
        new_history=new,
        golden=_golden(ordered),
        series=tuple(_series(counted, ordered, history, accepted, limits, margins)),
        owner=owner,
        importance=importance,
        error="" if counted else next((item.error for item in reversed(ordered) if item.error), ""),
        key=key,
        artifact=last.artifact.digest if last.artifact else "",
        notes=_notes(ordered),
    )
    outcome, reason = next(_outcomes(found, ordered, counted, other=other))
    return replace(found, outcome=outcome, reason=reason)


def not_run(entry: str, board: str, night: str, reason: str, *, owner: str = "", importance: float = 1.0) -> Verdict:
    """Of an entry that the budget left out."""
    return Verdict(entry, board, night, "not_run", reason, owner=owner, importance=importance)


def refused(
    entry: str, board: str, night: str, exc: EdgeDeployError, *, owner: str = "", importance: float = 1.0
) -> Verdict:
    """Of an entry that could not be prepared: what is shipped is not whole, not its maker's, gone, or another thing; or this
    host failed."""
    outcome: Outcome = "artifact" if isinstance(exc, _OF_THE_ARTIFACT) else "infrastructure"
    changes = (str(exc),) if outcome == "artifact" else ()
    return Verdict(
        entry,
        board,
        night,
        outcome,
        str(exc),
        artifact_changes=changes,
        owner=owner,
        importance=importance,
        error=type(exc).__name__,
    )


def _notes(sessions: Sequence[Session]) -> tuple[str, ...]:
    states = [item.artifact for item in sessions if item.artifact is not None]
    return tuple(dict.fromkeys(f"not built again: {state.not_rebuilt}" for state in states if state.not_rebuilt))


def _alike(session: Session) -> tuple[str, str, str]:
    """What has to be one for two sessions' numbers to be of one series: a night that was taken up again may have found
    another artifact, or another baseline that was accepted meanwhile."""
    state, artifact = session.state, session.artifact
    return (state.key if state else "", artifact.digest if artifact else "", session.baseline_digest)


# -- the outcome


def _outcomes(
    found: Verdict, sessions: Sequence[Session], counted: Sequence[Session], *, other: bool
) -> Iterator[tuple[Outcome, str]]:
    """All that hold, in the order of the module's text; the first one counts."""
    artifact, board = "; ".join(found.artifact_changes), "; ".join(found.board_changes)
    if other:
        yield "board", board
    worse = [*_wrong_answers(found.golden), *_failures(sessions), *_worse(found.series)]
    if worse:
        also = [f"what is shipped changed too: {artifact}"] if artifact else []
        also += [f"the board changed too: {board}"] if board else []
        yield "regression", "; ".join([*worse, *also])
    if artifact:
        yield "artifact", artifact
    if not counted:
        yield _why_none(sessions)
    if found.new_history:
        yield "board", f"{board}; a new history begins"
    suspect = [f"{item.metric}: {item.reason}" for item in found.series if item.status == "suspect"]
    if suspect:
        yield "not_run", "; ".join(suspect)
    lost = [f"{item.metric} has no number: {item.reason}" for item in found.series if item.status == "missing"]
    young = [item for item in found.series if item.status == "young"]
    if young:
        nights = min(item.nights for item in young)
        within = f"{nights} of {LEAST_NIGHTS} nights of a reference; {_names(young)} within first limits"
        yield "young", "; ".join([within, *lost])
    yield "ok", "; ".join([f"{_names(found.series) or 'its answers'} within limits", *lost])


def _names(series: Sequence[SeriesVerdict]) -> str:
    return ", ".join(item.metric for item in series if item.status in ("ok", "young"))


def _wrong_answers(golden: GoldenCheck | None) -> list[str]:
    if golden is None:
        return []
    return [
        f"output {name!r} is not the accepted one: it is off by {golden.worst[name]:.2g} of its norm in the worst of "
        f"{golden.cases} cases, allowed {golden.tolerance[name]:g}"
        for name in golden.changed
    ]


def _failures(sessions: Sequence[Session]) -> list[str]:
    """What a board shows to be the artifact's own failure: it ran the baseline."""
    found = [item for item in sessions if _is(item.error, MeasurementError) and item.error != "Unstable"]
    return list(dict.fromkeys(item.cause for item in found))


def _worse(series: Sequence[SeriesVerdict]) -> list[str]:
    return [f"{item.metric}: {item.reason}" for item in series if item.status == "regression"]


def _why_none(sessions: Sequence[Session]) -> tuple[Outcome, str]:
    """Why no session counts. What the conditions of a run allow is the board's."""
    last = sessions[-1]
    ours = bool(last.error) and not _is(last.error, BoardError) and last.error != "Unstable"
    return ("infrastructure" if ours else "board"), last.cause or last.error or "no session is of one board"


def _is(name: str, kind: type[EdgeDeployError]) -> bool:
    found = getattr(errors, name, None) if name else None
    return isinstance(found, type) and issubclass(found, kind)


# -- the three questions


def _artifact_changes(accepted: Accepted | None, sessions: Sequence[Session]) -> tuple[str, ...]:
    """Over all sessions: what is shipped may change between two of them."""
    if accepted is None:
        return ()
    states = [item.artifact for item in sessions if item.artifact is not None]
    return tuple(dict.fromkeys(text for state in states for text in artifact_changes(accepted.artifact, state)))


def _golden(sessions: Sequence[Session]) -> GoldenCheck | None:
    """The worst of all sessions; answers do not hang on a run's conditions."""
    checks = [item.golden for item in sessions if item.golden is not None]
    if not checks:
        return None
    names = list(dict.fromkeys(name for item in checks for name in item.worst))
    worst = {name: max(item.worst[name] for item in checks if name in item.worst) for name in names}
    changed = tuple(name for name in names if any(name in item.changed for item in checks))
    tolerance = {name: value for item in checks for name, value in item.tolerance.items()}
    return GoldenCheck(max(item.cases for item in checks), worst, tolerance, changed)


def _series(
    counted: Sequence[Session],
    sessions: Sequence[Session],
    history: Sequence[Verdict],
    accepted: Accepted | None,
    limits: Limits,
    margins: Mapping[str, float],
) -> Iterator[SeriesVerdict]:
    """Each metric with a number tonight, or that had one on an earlier night of this history. A suspicion that was never
    decided is no part of the reference: a slowdown would become what it is held against."""
    key = next((item.state.key for item in reversed(sessions) if item.state), accepted.board.key if accepted else "")
    digest = accepted.artifact.digest if accepted else ""
    nights = [night for night in history if night.key == key and night.artifact == digest]
    before = {item.metric: None for night in nights for item in night.series if item.loss is not None}
    missing = {name: text for item in counted for name, text in item.missing.items()}
    tonight = {name: None for item in counted for name in item.losses}
    for name in dict.fromkeys((*tonight, *missing, *before)):
        past = [
            Past(item.loss, item.status == "regression")
            for night in nights
            for item in night.series
            if item.metric == name and item.loss is not None and item.status != "suspect"
        ]
        held = [item for item in counted if name in item.losses]
        if not held:
            reason = missing.get(name) or sessions[-1].cause or "no session of tonight has it"
            yield SeriesVerdict(name, "missing", len(past), reason)
            continue
        own = bool(digest) and held[0].baseline_digest == digest
        yield _judged(name, past, held, _limits_of(name, limits, margins), centred=own)


def _limits_of(name: str, limits: Limits, margins: Mapping[str, float]) -> Limits:
    """A task's metric may lose its margin; it is no ratio."""
    if name in BOARD_METRICS:
        return limits
    margin = max(margins.get(name, 0.0), _TINY)
    spread = margin / (2 * limits.hot_s)
    return replace(limits, hot_floor=margin, drift_floor=margin, young_floor=margin, spread_floor=spread, ratios=False)


def _judged(
    name: str, past: Sequence[Past], held: Sequence[Session], limits: Limits, *, centred: bool
) -> SeriesVerdict:
    """``centred``: the baseline is the accepted artifact itself, so that a loss of 0 is what to expect on the first night.
    Otherwise a young series is held against its own nights so far."""
    losses = _losses(name, held)
    young = sum(not item.alarmed for item in past) < LEAST_NIGHTS
    calm = [item.loss for item in past if not item.alarmed]
    own_nights = young and not centred
    first = own_nights and not calm
    shift = float(np.median(calm or losses)) if own_nights else 0.0
    if own_nights and calm and limits.ratios:  # the median of so few nights is itself unsure
        limits = replace(limits, young_floor=limits.young_floor * math.sqrt(1 + 1 / len(calm)))
    shifted = [Past(item.loss - shift, item.alarmed) for item in past]
    found = judge_series(shifted, [loss - shift for loss in losses], limits, _within(name, held))
    return SeriesVerdict(
        metric=name,
        status=found.status,
        nights=len(past),
        reason=FIRST_NIGHT if first else _reason(found, shift, limits, len(losses), len(calm)),
        loss=_back(found.loss, shift),
        reference=_back(found.reference, shift),
        spread=found.spread,
        limit=_back(found.limit, shift),
        drift=found.drift,
        sessions=len(held),
    )


def _losses(name: str, held: Sequence[Session]) -> list[float]:
    """In the order of their numbers. Where one of the first two does not count, the other stands for both: what was measured
    to confirm a suspicion is not mixed with what raised it."""
    first = [item.losses[name] for item in held if item.number <= FIRST_SESSIONS]
    more = [item.losses[name] for item in held if item.number > FIRST_SESSIONS]
    return [*(first * FIRST_SESSIONS)[:FIRST_SESSIONS], *more] if first and more else [*first, *more]


def _within(name: str, held: Sequence[Session]) -> float | None:
    """The standard error of the mean of the first sessions, by their own repetitions."""
    found = [item.loss_errors[name] for item in held[:FIRST_SESSIONS] if name in item.loss_errors]
    return math.sqrt(math.fsum(error**2 for error in found)) / len(found) if found else None


def _reason(found: SeriesJudged, shift: float, limits: Limits, sessions: int, nights: int) -> str:
    """As it was judged; a young series that raised no suspicion was held against its own nights."""
    if found.status != "young" or not shift or found.loss is None or sessions > FIRST_SESSIONS:
        return found.reason
    amount = f"{abs(math.expm1(found.loss)):.1%}" if limits.ratios else f"{abs(found.loss):.4f}"
    word = "worse" if found.loss > 0 else "better"
    return f"{amount} {word} than on its first nights ({nights} of {LEAST_NIGHTS} nights of a reference)"


def _back(value: float | None, shift: float) -> float | None:
    return None if value is None else value + shift
