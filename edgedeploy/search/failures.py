"""Whether a variant can be evaluated at all, and is of use: a vote of those that were tried, each as loud as it is alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgedeploy.search.surrogate import Features, Floats

MOST_VOTES: Final = 300
"""Failures that vote, and successes, at most: the last of each."""

_RATES: Final = (0.01, 0.1, 1.0, 4.0)
_USUAL: Final = 1.0
_VOICE: Final = 0.15
"""How loud a voice for success is that every candidate has."""

_FIGURES_LENGTH: Final = 0.7
"""How far a vote is heard among figures, in standard deviations of them."""

_PACE_LENGTH: Final = 0.5
"""How far a vote is heard beyond its own pace, in logarithms of it: a factor of 1.65."""

_MOST_EXPONENT: Final = 700.0
"""The exponential of a larger number is none."""


def success_of(features: Features, rows: NDArray[np.intp], failed: NDArray[np.bool_]) -> Floats:
    """Probability of success of every candidate, after ``rows`` were tried and some ``failed``."""
    if not failed.any():
        return np.ones(len(features.codes))
    rows, failed = _voters(rows, failed)
    codes = features.codes[rows]
    far = [table[1][np.ix_(codes[:, at], codes[:, at])] for at, table in enumerate(features.tables)]
    votes = features.nearness(rows, _rates(far, failed)).astype(float)
    return _success(votes, failed)


def success_by_figures(features: Features, rows: NDArray[np.intp], failed: NDArray[np.bool_]) -> Floats:
    """The same, where alike is what has like static figures, whatever its parameters are."""
    if not failed.any() or not features.statics.shape[1]:
        return np.ones(len(features.codes))
    rows, failed = _voters(rows, failed)
    figures = features.statics / _FIGURES_LENGTH
    far = [0.5 * np.square(np.subtract.outer(figure, figure)) for figure in figures[rows].T]
    scaled = (figures * np.sqrt(_rates(far, failed))).astype(np.float32)
    voters = scaled[rows]
    apart = 0.5 * np.square(scaled).sum(axis=1)[:, None] + 0.5 * np.square(voters).sum(axis=1) - scaled @ voters.T
    return _success(np.exp(-np.maximum(apart, 0)).astype(float), failed)


def success_by_pace(pace: Floats, rows: NDArray[np.intp], failed: NDArray[np.bool_]) -> Floats:
    """The same, by ``pace``: the logarithm of a candidate's work over what it costs, NaN where that is unknown; shape
    (candidates,).

    A network whose layers are not connected is faster than its work allows. So the vote is one-sided: a success speaks for
    whatever has its pace or a lower one, and a failure at a higher pace than any success against whatever has its pace or a
    higher one. Other failures say nothing of paces.
    """
    rows, failed = _voters(rows, failed)
    voters = pace[rows]
    successes = voters[~failed & np.isfinite(voters)]
    beyond = voters[failed & (voters > successes.max(initial=-np.inf))]
    if not len(successes) or not len(beyond):
        return np.ones(len(pace))
    against, votes = _heard_above(-pace, -beyond), _heard_above(pace, successes)
    return np.where(np.isfinite(pace), 1 - against / (against + votes + _VOICE), 1.0)


def _heard_above(at: Floats, voices: Floats) -> Floats:
    """How loud ``voices`` are at each place: whole up to their own, and fading exponentially beyond it. By sums over sorted
    voices, so that thousands of places cost a millisecond."""
    ordered = np.sort(voices)
    passed = np.searchsorted(ordered, at)
    loudness = np.cumsum(np.append(0.0, np.exp((ordered - ordered[-1]) / _PACE_LENGTH)))
    fading = np.exp(np.minimum((ordered[-1] - at) / _PACE_LENGTH, _MOST_EXPONENT))
    return np.asarray(len(ordered) - passed + loudness[passed] * fading, dtype=float)


def _voters(rows: NDArray[np.intp], failed: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    some = np.concatenate([np.flatnonzero(failed)[-MOST_VOTES:], np.flatnonzero(~failed)[-MOST_VOTES:]])
    return rows[some], failed[some]


def _success(votes: Floats, failed: NDArray[np.bool_]) -> Floats:
    return np.asarray(1 - votes[:, failed].sum(axis=1) / (votes.sum(axis=1) + _VOICE), dtype=float)


def _rates(far: Sequence[Floats], failed: NDArray[np.bool_]) -> Sequence[float]:
    """How much each kind of distance ``far`` between those that were tried takes from a vote: what best foretells each
    outcome from the others."""
    rates = [_USUAL] * len(far)
    exponent = sum((_USUAL * distance for distance in far), np.zeros((len(failed), len(failed))))
    for at, distance in enumerate(far):
        others = exponent - rates[at] * distance
        rates[at] = min(_RATES, key=lambda rate: (_surprise(others + rate * distance, failed), abs(rate - _USUAL)))
        exponent = others + rates[at] * distance
    return rates


def _surprise(exponent: Floats, failed: NDArray[np.bool_]) -> float:
    """Minus the log likelihood of each outcome by the votes of the others."""
    votes = np.exp(-exponent)
    np.fill_diagonal(votes, 0)
    success = np.clip(_success(votes, failed), 0.02, 0.98)
    return float(-np.log(np.where(failed, 1 - success, success)).sum())
