"""What a number was taken from, in a form that the bootstrap may draw anew: a series with the statistic made of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgedeploy.evidence.series import Course, Neighbours, Pairs, Repeats, Series
from edgedeploy.evidence.statistics import Blocks, Floats, nearest_rank
from edgedeploy.records.metrics import Source
from edgedeploy.runtime.scenarios.earlystopping import percentile_bound, slow_allowed


@dataclass(frozen=True)
class Percentile:
    """A percentile of all observations; blocks of them are drawn."""

    value: float
    blocks: Blocks
    percent: float


@dataclass(frozen=True)
class Median:
    """The median of independent repeats, which are drawn."""

    values: Floats

    @property
    def value(self) -> float:
        return float(np.median(self.values))


@dataclass(frozen=True)
class Minimum:
    """The smallest of independent repeats, which are drawn."""

    values: Floats

    @property
    def value(self) -> float:
        return float(self.values.min())


@dataclass(frozen=True)
class Ratio:
    """``scale`` times the sum of numerators over the sum of denominators; pairs are drawn, shape (pairs, 2)."""

    pairs: Floats
    scale: float = 1.0

    @property
    def value(self) -> float:
        return float(self.scale * self.pairs[:, 0].sum() / self.pairs[:, 1].sum())


@dataclass(frozen=True)
class Share(Ratio):
    """A ratio of events to frames: where none or all of the frames were hit, drawing them anew would always give the same,
    so the share itself is drawn, from the Jeffreys posterior of a binomial."""

    @property
    def one_sided(self) -> bool:
        events, frames = self.pairs.sum(axis=0)
        return bool(events in (0, frames))


@dataclass(frozen=True)
class Slope:
    """A fitted slope with its standard error; drawn from Student's t with ``freedom`` degrees."""

    value: float
    error: float
    freedom: float


@dataclass(frozen=True)
class Fixed:
    """A number without a spread that could be drawn: a maximum, or a search with one outcome."""

    value: float


Sample = Percentile | Median | Minimum | Ratio | Slope | Fixed


def sample_from(series: Series, source: Source) -> Sample | str:
    """The statistic of the series, or why there are too few observations for it.

    Raises ``TypeError`` for a statistic that is none of such a series, which is a row's mistake.
    """
    if isinstance(series, float) and source.statistic == "value":
        return Fixed(series)
    if isinstance(series, Neighbours):
        if source.statistic == "maximum":
            return Fixed(float(series.ordered[-1]))
        if source.percent is not None:
            return _percentile(series, source.percent, source)
    if isinstance(series, Repeats) and source.statistic in ("median", "minimum"):
        return Median(series.values) if source.statistic == "median" else Minimum(series.values)
    if isinstance(series, Pairs) and source.statistic in ("ratio", "share"):
        return (Ratio if source.statistic == "ratio" else Share)(series.pairs, series.scale)
    if isinstance(series, Course) and source.statistic == "slope":
        return trend(series.at, series.values)
    raise TypeError(f"{source.series!r} is {type(series).__name__}, of which there is no {source.statistic}")


def _percentile(series: Neighbours, percent: float, source: Source) -> Percentile | str:
    ordered, needed = series.ordered, source.observations
    if ordered.size < needed:
        return f"{ordered.size} {series.noun}, {needed} needed for this percentile at 99 % confidence"
    if source.statistic == "percentile":
        return Percentile(nearest_rank(ordered, percent), series.blocks, percent)
    bound = percentile_bound(ordered.tolist(), percent)
    if bound is None:
        return f"{ordered.size} {series.noun} bound no percentile at 99 % confidence"
    before = ordered.size - slow_allowed(ordered.size, percent)
    return Percentile(bound, series.blocks, 100 * (before + 0.5) / ordered.size)


def trend(at: Floats, values: Floats) -> Slope:
    """Least-squares slope. Neighbouring windows resemble each other, so the count behind its standard error is reduced by
    the residuals' lag-1 correlation r to n (1 - r) / (1 + r) (Santer et al. 2000, J. Geophys. Res. 105, 7337)."""
    centred = at - at.mean()
    spread = float((centred**2).sum())
    slope = float((centred * values).sum() / spread)
    residuals = values - values.mean() - slope * centred
    power = float((residuals**2).sum())
    correlation = float((residuals[1:] * residuals[:-1]).sum() / power) if power else 0.0
    count = values.size * (1 - max(0.0, correlation)) / (1 + max(0.0, correlation))
    freedom = max(1.0, count - 2)
    return Slope(slope, float(np.sqrt(power / freedom / spread)), freedom)
