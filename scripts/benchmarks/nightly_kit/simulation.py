"""Many series judged night after night at once: the rule of `edgedeploy.evidence.nights` over arrays.

The rule itself takes one series and its whole history; a lab of a thousand series over a hundred nights asks it a hundred
thousand times. A test holds this against it, night by night.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgedeploy.evidence.nights import (
    AGREES,
    CLIP,
    FIRST_SESSIONS,
    LEAST_NIGHTS,
    MAD_TO_SD,
    MOST_NIGHTS,
    Limits,
)

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]

GROWN: Final = MOST_NIGHTS
"""Nights after which the reference of a series is frozen."""


@dataclass(frozen=True)
class Judged:
    """Of each night and series: whether it alarmed, and whether two more sessions were asked for; shape (nights, series)."""

    alarms: Bools
    suspects: Bools


def judge(losses: Floats, limits: Limits) -> Judged:
    """``losses`` of sessions, shape (nights, series, 4): the last two are looked at after a suspicion alone."""
    lab = _Lab(losses.shape[1], limits)
    found = [lab.night(sessions) for sessions in losses]
    return Judged(np.array([alarm for alarm, _ in found]), np.array([suspect for _, suspect in found]))


class _Lab:
    def __init__(self, series: int, limits: Limits) -> None:
        self._limits = limits
        self._calm: Floats = np.zeros((series, MOST_NIGHTS))
        self._nights: Places = np.zeros(series, dtype=np.int64)
        self._old: Bools = np.zeros(series, dtype=np.bool_)
        self._centre: Floats = np.zeros(series)
        self._spread: Floats = np.ones(series)
        self._drift: Floats = np.zeros(series)
        self._two: Floats = np.zeros((2, series))
        self._past: list[tuple[Floats, Bools, Bools]] = []
        """Of each night while references grow: losses, alarms, and which series were old enough for a CUSUM."""

    def night(self, sessions: Floats) -> tuple[Bools, Bools]:
        limits, old, centre = self._limits, self._old, self._centre
        first, more = sessions[:, :FIRST_SESSIONS].mean(axis=1), sessions[:, FIRST_SESSIONS:].mean(axis=1)
        limit = centre + np.where(old, np.maximum(limits.hot_floor, limits.hot_s * self._spread), limits.young_floor)
        recent = np.median(np.vstack([self._two, first]), axis=0)
        hot = first > limit
        drifts = old & (self._step(first) > limits.drift_h) & (recent > centre + limits.drift_floor)
        least = centre + np.maximum(limits.drift_floor, limits.drift_k * self._spread)
        lowest = sessions.min(axis=1)
        alarms = np.zeros_like(old)
        for bar, reached in ((limit, hot), (least, drifts)):
            alarms |= reached & (more > bar) & (lowest > centre + AGREES * (bar - centre))
        suspects = hot | drifts
        self._remember(np.where(suspects, sessions.mean(axis=1), first), alarms)
        return alarms, suspects

    def _step(self, loss: Floats) -> Floats:
        return self._next(self._drift, loss, slice(None))

    def _next(self, drift: Floats, loss: Floats, own: Any) -> Floats:
        units = np.minimum((loss - self._centre[own]) / self._spread[own], CLIP)
        return np.asarray(np.maximum(0.0, drift + units - self._limits.drift_k))

    def _remember(self, loss: Floats, alarms: Bools) -> None:
        self._two = np.vstack([self._two[1], loss])
        self._drift = np.where(self._old & ~alarms, self._step(loss), 0.0)
        young = self._nights < MOST_NIGHTS
        if not young.any():
            return
        growing = np.flatnonzero(~alarms & young)
        self._past.append((loss, alarms, self._old.copy()))
        self._calm[growing, self._nights[growing]] = loss[growing]
        self._nights[growing] += 1
        self._frozen(growing)
        self._counted_anew(growing[self._old[growing]])

    def _counted_anew(self, own: Places) -> None:
        """The CUSUM of all nights by the reference as it is now, as the rule counts it."""
        drift: Floats = np.zeros(own.size)
        for loss, alarms, counts in self._past:
            step = self._next(drift, loss[own], own)
            drift = np.where(counts[own], np.where(alarms[own], 0.0, step), drift)
        self._drift[own] = drift

    def _frozen(self, changed: Places) -> None:
        counts = self._nights[changed]
        for count in np.unique(counts):
            if count < LEAST_NIGHTS:
                continue
            own = changed[counts == count]
            values = self._calm[own, :count]
            centre = np.median(values, axis=1)
            robust = MAD_TO_SD * np.median(np.abs(values - centre[:, None]), axis=1)
            spread = np.maximum(robust, values.std(axis=1, ddof=1))
            self._centre[own], self._spread[own] = centre, np.maximum(spread, self._limits.spread_floor)
            self._old[own] = True
