"""Whether tonight's number of a series is a regression: the rule that a lab's alarms hang on.

A series is one metric of one entry on one board, as losses: larger is worse. For times, memory and energy a loss is the
logarithm of candidate over frozen baseline, for accuracy the difference. Each night has two sessions in new processes.

1. The first :data:`LEAST_NIGHTS` to :data:`MOST_NIGHTS` nights after the baseline was accepted are the reference: their
   median, and their spread s, the largest of 1.4826 MAD, standard deviation and a floor. Nights that alarmed are no
   part of it. It is frozen then: a drift cannot become its own reference.
2. With y the mean of tonight's two sessions less the reference, a night is hot beyond max(floor, ``hot_s`` s), and drifts
   where a CUSUM of y/s, clipped at :data:`CLIP` (Page 1954, Biometrika 41, 100), passes ``drift_h`` and the median of three
   nights passes a floor. The clip keeps one disturbed night from being taken for a drift.
3. A suspicion costs two more sessions, whose mean has to show it alone, and no session of the night may lie below half of
   it: one disturbed session makes the mean of two suspect, and would make another so. Else the night counts with the
   mean of all.
4. Before the reference there is no spread: such a series is young, held against 0 (the frozen baseline itself) by a floor
   and the noise within the run.
5. After an alarm the CUSUM starts at 0.

How often this is wrong, and what it finds, by `scripts/bench nightly`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgedeploy.errors import MeasurementError
from edgedeploy.records.night import Status

LEAST_NIGHTS: Final = 15
"""Fewer say little about their own spread: until then a series is young."""

MOST_NIGHTS: Final = 30
"""The reference is frozen with these."""

FIRST_SESSIONS: Final = 2
"""Of a night; what is beyond them was measured to confirm a suspicion."""

CLIP: Final = 3.0
"""What one night can add to the CUSUM, in spreads."""

DRIFT_NIGHTS: Final = 3
"""The median of so many nights, tonight among them, has to pass ``drift_floor``."""

AGREES: Final = 0.5
"""The share of a limit that every session of a night has to pass for an alarm."""

MAD_TO_SD: Final = 1.4826


@dataclass(frozen=True)
class Limits:
    """What is suspect. Floors are losses in the series' own unit; ``hot_s``, ``drift_h`` and ``drift_k`` count spreads.

    ``young_floor`` is ``hot_floor`` for a series without a reference. No spread is taken for smaller than ``spread_floor``.
    ``ratios`` says that losses are logarithms of ratios, which reasons give in percent.
    """

    hot_s: float = 3.0
    drift_h: float = 3.0
    drift_k: float = 1.25
    hot_floor: float = math.log(1.05)
    drift_floor: float = math.log(1.03)
    young_floor: float = math.log(1.05)
    spread_floor: float = 0.005
    ratios: bool = True


_SERIES_10S: Final = (1.0, 2.0, 3.0, 4.0)
_HOT_S: Final = (3.0, 4.0, 4.5, 5.0)
_DRIFT_H: Final = (3.0, 5.0, 6.0, 7.0)
"""By the logarithm of the number of series: with these a lab of 10, 100 or 1000 raises at most 1 false alarm in 100 nights
of noise like the recorded one. Between them they are interpolated."""


def widened(series: int) -> Limits:
    """The limits of each series where so many are judged every night: false alarms of series add up.

    Floors stay: they are what a lab wants to hear of. Raises ``ValueError`` for fewer than one series.
    """
    if series < 1:
        raise ValueError(f"a lab has at least one series, but got {series}")
    tens = math.log10(series)
    hot_s, drift_h = (float(np.interp(tens, _SERIES_10S, values)) for values in (_HOT_S, _DRIFT_H))
    return Limits(hot_s=hot_s, drift_h=drift_h)


@dataclass(frozen=True)
class Past:
    """A night of the history: its mean over all sessions, and whether it ended in an alarm."""

    loss: float
    alarmed: bool = False


@dataclass(frozen=True)
class SeriesJudged:
    """``loss`` is the mean of tonight's sessions, not yet held against ``reference``. ``limit`` is the loss beyond which it
    is suspect at once, ``drift`` the CUSUM with tonight in it. ``spread`` and ``drift`` are None for a young series, all
    of them for a missing one."""

    status: Status
    loss: float | None
    reference: float | None
    spread: float | None
    limit: float | None
    drift: float | None
    reason: str


@dataclass(frozen=True)
class Reference:
    """Of the frozen nights: median, and spread by the largest of three estimates."""

    centre: float
    spread: float


def judge_series(
    history: Sequence[Past], tonight: Sequence[float], limits: Limits, within_s: float | None = None
) -> SeriesJudged:
    """Tonight's verdict on a series.

    ``history`` is of one board key since the baseline was accepted, oldest first, tonight left out. ``tonight`` are the
    sessions' losses in the order in which they were measured: with two the status may be ``suspect``, with two more it is
    final. ``within_s`` is the standard error of tonight's loss by the run's own repetitions, for a young series.

    Raises :class:`MeasurementError` for a loss that is not finite.
    """
    _check([past.loss for past in history], "the series' history")
    _check(tonight, "tonight's sessions")
    if not tonight:
        return SeriesJudged("missing", None, None, None, None, None, "no session counts tonight")
    reference = reference_of(history, limits)
    if reference is None:
        return _young(sum(not past.alarmed for past in history), tonight, limits, within_s)
    return _judged(history, tonight, limits, reference)


def reference_of(history: Sequence[Past], limits: Limits) -> Reference | None:
    """None while fewer than :data:`LEAST_NIGHTS` nights ended without an alarm."""
    calm = [past.loss for past in history if not past.alarmed][:MOST_NIGHTS]
    if len(calm) < LEAST_NIGHTS:
        return None
    losses = np.asarray(calm)
    centre = float(np.median(losses))
    robust = MAD_TO_SD * float(np.median(np.abs(losses - centre)))
    return Reference(centre, max(robust, float(losses.std(ddof=1)), limits.spread_floor))


def drift_of(history: Sequence[Past], reference: Reference, limits: Limits) -> float:
    """The CUSUM after the last night of ``history``. Nights of a young series are no part of it."""
    drift, calm = 0.0, 0
    for past in history:
        if calm >= LEAST_NIGHTS:
            drift = 0.0 if past.alarmed else _step(drift, past.loss, reference, limits)
        calm += not past.alarmed
    return drift


def _step(drift: float, loss: float, reference: Reference, limits: Limits) -> float:
    return max(0.0, drift + min((loss - reference.centre) / reference.spread, CLIP) - limits.drift_k)


def _judged(history: Sequence[Past], tonight: Sequence[float], limits: Limits, reference: Reference) -> SeriesJudged:
    first, _ = _parts(tonight)
    centre, loss, before = reference.centre, _mean(tonight), drift_of(history, reference, limits)
    limit = centre + max(limits.hot_floor, limits.hot_s * reference.spread)
    drift = _step(before, first, reference, limits)
    recent = [past.loss for past in history[1 - DRIFT_NIGHTS :]]
    hot = first > limit
    drifts = drift > limits.drift_h and float(np.median([*recent, first])) > centre + limits.drift_floor

    def said(status: Status, reason: str) -> SeriesJudged:
        after = _step(before, loss, reference, limits) if status == "ok" else drift
        return SeriesJudged(status, loss, centre, reference.spread, limit, after, reason)

    if not (hot or drifts):
        return said("ok", f"{_worse(loss - centre, limits)}, within its limits")
    found = _suspicion(first, limit, centre, limits) if hot else f"worse for several nights (CUSUM {drift:.1f})"
    if len(tonight) <= FIRST_SESSIONS:
        return said("suspect", f"{found}; two more sessions decide")
    least = centre + max(limits.drift_floor, limits.drift_k * reference.spread)
    bars = [bar for bar, reached in ((limit, hot), (least, drifts)) if reached]
    agrees = _agreement(tonight, centre, limits)
    if any(_confirmed(tonight, bar, centre) for bar in bars):
        return said("regression", f"{found}; {agrees}")
    return said("ok", f"{found}, not confirmed: {agrees}")


def _young(nights: int, tonight: Sequence[float], limits: Limits, within_s: float | None) -> SeriesJudged:
    _check([] if within_s is None else [within_s], "the noise within the run")
    first, _ = _parts(tonight)
    limit = max(limits.young_floor, limits.hot_s * (within_s or 0.0))
    age = f"{nights} of {LEAST_NIGHTS} nights of a reference"

    def said(status: Status, reason: str) -> SeriesJudged:
        return SeriesJudged(status, _mean(tonight), 0.0, None, limit, None, f"{reason} ({age})")

    if first <= limit:
        return said("young", f"{_worse(_mean(tonight), limits)}, held against the frozen baseline alone")
    found = _suspicion(first, limit, 0.0, limits)
    if len(tonight) <= FIRST_SESSIONS:
        return said("suspect", f"{found}; two more sessions decide")
    agrees = _agreement(tonight, 0.0, limits)
    if _confirmed(tonight, limit, 0.0):
        return said("regression", f"{found}; {agrees}")
    return said("young", f"{found}, not confirmed: {agrees}")


def _confirmed(tonight: Sequence[float], bar: float, centre: float) -> bool:
    _, more = _parts(tonight)
    return more > bar and min(tonight) > centre + AGREES * (bar - centre)


def _agreement(tonight: Sequence[float], centre: float, limits: Limits) -> str:
    _, more = _parts(tonight)
    least = _worse(min(tonight) - centre, limits)
    return f"two more sessions say {_worse(more - centre, limits)}, the lowest of all {least}"


def _parts(tonight: Sequence[float]) -> tuple[float, float]:
    """The mean of the first two sessions, and of what was measured to confirm them (NaN without)."""
    more = tonight[FIRST_SESSIONS:]
    return _mean(tonight[:FIRST_SESSIONS]), _mean(more) if more else math.nan


def _mean(losses: Sequence[float]) -> float:
    return math.fsum(losses) / len(losses)


def _suspicion(loss: float, limit: float, centre: float, limits: Limits) -> str:
    return f"{_worse(loss - centre, limits)}, limit {_amount(limit - centre, limits)}"


def _worse(distance: float, limits: Limits) -> str:
    """In words. A ratio that became smaller is told as what it is less."""
    if limits.ratios:
        return f"{abs(math.expm1(distance)):.1%} {'worse' if distance >= 0 else 'better'}"
    return f"{abs(distance):.4f} {'worse' if distance >= 0 else 'better'}"


def _amount(distance: float, limits: Limits) -> str:
    return f"{math.expm1(distance):.1%}" if limits.ratios else f"{distance:.4f}"


def _check(losses: Sequence[float], asked: str) -> None:
    wrong = [loss for loss in losses if not math.isfinite(loss)]
    if wrong:
        found = f"{len(wrong)} of {len(losses)} losses are not finite, the first is {wrong[0]}"
        raise MeasurementError(f"Judge {asked}", found, "A session without a number is left out, with its cause")
