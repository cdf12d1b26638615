"""How much of a variant's accuracy hangs on which cases were taken, for a search that weighs it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgedeploy.evidence.bootstrap import MIN_UNITS
from edgedeploy.evidence.statistics import Floats, defined_values
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metric_table import BOARD_METRICS


def variances(measurement: Measurement, baseline: Measurement | None, metrics: Sequence[str]) -> tuple[float, ...]:
    """:func:`variance_of_gain` over the baseline, of each metric. Empty while there is no valid baseline.

    That a second training would give another model is no part of them: a measurement is of this model, and how far it
    carries over to others of its kind is what a surrogate finds out.
    """
    if baseline is None or not baseline.valid:
        return ()
    return tuple(variance_of_gain(measurement, baseline, metric) for metric in metrics)


def variance_of_gain(ours: Measurement, theirs: Measurement, metric: str) -> float:
    """The bootstrap's variance of the mean difference between two variants, in the metric's unit squared: a search compares
    variants, so what all of them share, such as cases that are hard for every model, is no noise.

    In closed form for means over cases, of which whole groups are drawn where there are any; from the stored draws for a
    metric of the whole split. 0 for a board's metrics, which were measured beside the baseline's and are nearly exact
    beside the differences between variants, and where too few cases or draws are pairs to tell.
    """
    if metric in BOARD_METRICS or ours.digest == theirs.digest:
        return 0.0
    if not any(metric in values for values in ours.cases.values()):
        return _variance_of_draws(ours, theirs, metric)
    mine, other = defined_values(ours.cases, metric), defined_values(theirs.cases, metric)
    gains = {case: value - other[case] for case, value in mine.items() if case in other}
    values = np.array(list(gains.values()), dtype=np.float64)
    groups = ours.groups or theirs.groups
    if not all(case in groups for case in gains):
        return _variance_of_mean(values, np.arange(values.size))
    return _variance_of_mean(values, np.array([groups[case] for case in gains], dtype=np.intp))


def _variance_of_mean(values: Floats, owners: np.ndarray[tuple[int], np.dtype[np.intp]]) -> float:
    """Of the mean of ``values`` when whole groups are drawn (Cochran 1977, 2.11: a mean is a ratio of sums)."""
    units, places = np.unique(owners, return_inverse=True)
    if units.size < MIN_UNITS:
        return 0.0
    sums = np.bincount(places, weights=values - values.mean())
    return float(np.square(sums).sum() / values.size**2)


def _variance_of_draws(ours: Measurement, theirs: Measurement, metric: str) -> float:
    mine, other = ours.draws.get(metric), theirs.draws.get(metric)
    if mine is None or other is None or mine.drawn != other.drawn:
        return 0.0
    better = mine.values - other.values
    defined = better[np.isfinite(better)]
    return float(defined.var()) if defined.size else 0.0
