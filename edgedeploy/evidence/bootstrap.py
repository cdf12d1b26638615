"""How sure a number is: percentile bootstrap (Efron & Tibshirani 1993, ch. 13), seeded and vectorised.

What is resampled is what was sampled: cases for a task's metrics, whole groups of them where the task names groups (all
images of a patient), blocks of queries for times (queries inside a block follow one another and are not independent). Two
variants are compared case by case when the metric has cases (paired), and draw by draw when it is one of a whole split,
whose draws ``evidence/split.py`` made when it was measured; times of two variants come from two sessions and are resampled
independently. Sizes, and the one peak of memory, are taken as they are.

Which units a draw takes hangs on the seed and on their number alone (:func:`drawn_units`), so a thousand variants share one
table of draws. Over cases that is what makes a comparison paired. The draws of a time are put into an order of the variant's
own, so that those of two variants are independent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from edgedeploy.evidence import noninferiority
from edgedeploy.evidence.auroc import difference_error
from edgedeploy.evidence.metrics import read
from edgedeploy.evidence.noninferiority import Differences
from edgedeploy.evidence.samples import Median, Minimum, Percentile, Ratio, Sample, Share, Slope
from edgedeploy.evidence.series import Run
from edgedeploy.evidence.statistics import Blocks, Floats, defined_values
from edgedeploy.records.goals import Objective
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metric_table import BOARD_METRICS
from edgedeploy.records.metrics import Metric

RESAMPLES: Final = 2000
LEVEL: Final = noninferiority.LEVEL
"""Of two-sided intervals and of one-sided bounds alike."""

TIME_LEVEL: Final = 0.99
"""Of one-sided bounds on ``strict`` metrics, which are times: on a busy host 95 % would call one artifact faster than itself
once in twenty runs."""

MIN_UNITS: Final = noninferiority.MIN_UNITS
"""Fewer cases or blocks than this say nothing about their own spread: no interval, no bound."""

MIN_DEFINED: Final = 0.9
"""The share of a split's draws in which its metric has to be defined. Fewer are a sign that a class has so few cases that
many draws hold none of it."""

Places = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int32]
Method = Literal["paired cases", "paired draws", "independent blocks", "exact", "too few"]


@dataclass(frozen=True)
class Estimate:
    """A value with its two-sided interval; ``low`` and ``high`` are None where nothing could be resampled."""

    value: float
    low: float | None = None
    high: float | None = None

    def as_json(self) -> dict[str, Any]:
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Comparison:
    """How much better one variant is than another on one objective, in the metric's unit; positive is better.

    ``lower`` and ``upper`` are one-sided bounds, None when ``method`` is ``too few``. ``units`` counts pairs of cases.
    """

    metric: str
    gain: float
    lower: float | None
    upper: float | None
    method: Method
    units: int

    def shows_at_least(self, gain: float) -> bool:
        """The evidence shows a gain of ``gain`` or more."""
        return self.lower is not None and self.lower >= gain

    def shows_more_than(self, gain: float) -> bool:
        return self.lower is not None and self.lower > gain

    def as_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "gain": self.gain,
            "lower": self.lower,
            "upper": self.upper,
            "method": self.method,
            "units": self.units,
        }


def generator(seed: int, *names: str) -> np.random.Generator:
    """A stream of random numbers of its own for every (seed, names): results do not depend on the order of calls."""
    digest = hashlib.sha256("\0".join((str(seed), *names)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


@lru_cache(maxsize=32)
def drawn_units(seed: int, units: int, resamples: int = RESAMPLES) -> Places:
    """Which of ``units`` each of the ``resamples`` draws takes, with replacement; shape (resamples, units)."""
    places = generator(seed, "units", str(units)).integers(0, units, (resamples, units))
    places.flags.writeable = False  # it is shared
    return places


@lru_cache(maxsize=32)
def times_drawn(seed: int, units: int, resamples: int = RESAMPLES) -> Counts:
    """How often each draw of :func:`drawn_units` takes each unit; shape (units, resamples)."""
    places = drawn_units(seed, units, resamples) + units * np.arange(resamples)[:, None]
    times = np.bincount(places.ravel(), minlength=resamples * units).reshape(resamples, units)
    kept = np.ascontiguousarray(times.T, dtype=np.int32)
    kept.flags.writeable = False
    return kept


def resampled_means(values: Floats, places: Places) -> Floats:
    """Means of the draws that ``places`` takes; shape (resamples,)."""
    return np.asarray(values[places].mean(axis=1))


def resampled_group_means(
    values: Floats, groups: Sequence[int], seed: int, resamples: int = RESAMPLES
) -> Floats | None:
    """As :func:`resampled_means`, but whole groups are drawn; the mean stays one over cases. None for too few groups."""
    _, owners = np.unique(np.asarray(groups), return_inverse=True)
    sizes = np.bincount(owners).astype(np.float64)
    if sizes.size < MIN_UNITS:
        return None
    sums = np.bincount(owners, weights=values)
    places = drawn_units(seed, sizes.size, resamples)
    return np.asarray(sums[places].sum(axis=1) / sizes[places].sum(axis=1))


def resampled_medians(values: Floats, places: Places) -> Floats:
    """Medians of the draws that ``places`` takes. Ranks are sorted instead of values: whole numbers of 16 bits are many
    times faster, and the medians are the same."""
    order = np.argsort(values, kind="stable")
    kind = np.int16 if values.size <= np.iinfo(np.int16).max else np.int32
    ranks = np.empty(values.size, kind)
    ranks[order] = np.arange(values.size, dtype=kind)
    drawn = np.sort(ranks[places], axis=1)
    middle, ascending = places.shape[1] // 2, values[order]
    upper = ascending[drawn[:, middle]]
    return np.asarray(upper if places.shape[1] % 2 else (ascending[drawn[:, middle - 1]] + upper) / 2)


def resampled_minima(values: Floats, places: Places) -> Floats:
    return np.asarray(values[places].min(axis=1))


class Pool:
    """The queries of some blocks, of which percentiles are drawn: a draw takes each block as often as ``times`` says; shape
    (blocks, resamples).

    The counts weigh the sorted queries, so nothing is sorted again: sums over stretches of them find the stretch that holds
    a percentile, and a sum within it the query.
    """

    def __init__(self, blocks: Blocks, times: Counts) -> None:
        self.blocks = blocks
        self._times = times
        series = np.concatenate([np.asarray(block, dtype=np.float64) for block in blocks])
        owner = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
        order = np.argsort(series, kind="stable")
        self._series, self._owner = series[order], owner[order]
        self._step = max(1, round(series.size**0.5))
        parts = [
            times[self._owner[start : start + self._step]].sum(axis=0, dtype=times.dtype)
            for start in range(0, series.size, self._step)
        ]
        self._below = np.cumsum(parts, axis=0)

    def percentiles(self, percent: float) -> Floats:
        """The nearest-rank percentile of each draw; shape (resamples,)."""
        ranks = np.maximum(1, np.ceil(percent / 100 * self._below[-1]))
        stretch = (self._below < ranks).sum(axis=0)
        found = np.empty(ranks.size)
        for place in np.unique(stretch):
            draws = np.flatnonzero(stretch == place)
            there = slice(place * self._step, (place + 1) * self._step)
            before = self._below[place - 1, draws] if place else 0
            fine = before + np.cumsum(self._times[np.ix_(self._owner[there], draws)], axis=0)
            found[draws] = self._series[there][(fine < ranks[draws]).sum(axis=0)]
        return found


def drawn(
    sample: Sample,
    seed: int,
    resamples: int,
    own: Callable[[], np.random.Generator],
    pool_of: Callable[[Blocks], Pool],
) -> Floats | None:
    """Draws of a metric; None when its sample has fewer than ``MIN_UNITS`` units, or no spread at all. ``own`` is the random
    numbers of this metric of this variant, for what is not drawn from units."""
    if isinstance(sample, Percentile) and len(sample.blocks) >= MIN_UNITS:
        return pool_of(sample.blocks).percentiles(sample.percent)
    if isinstance(sample, Median | Minimum) and sample.values.size >= MIN_UNITS:
        redraw = resampled_medians if isinstance(sample, Median) else resampled_minima
        return redraw(sample.values, drawn_units(seed, sample.values.size, resamples))
    if isinstance(sample, Share) and sample.one_sided:
        events, frames = sample.pairs.sum(axis=0)
        return np.asarray(sample.scale * own().beta(events + 0.5, frames - events + 0.5, resamples))
    if isinstance(sample, Ratio) and len(sample.pairs) >= MIN_UNITS:
        sums = sample.pairs[drawn_units(seed, len(sample.pairs), resamples)].sum(axis=1)
        return np.asarray(sample.scale * sums[:, 0] / sums[:, 1])
    if isinstance(sample, Slope):
        return np.asarray(sample.value + sample.error * own().standard_t(sample.freedom, resamples))
    return None


class Resampler:
    """Draws by measurement and metric; those of compared metrics are kept. ``seed`` decides every one of them. ``samples``
    were read before, by variant and metric: what is drawn from them needs no raw series."""

    def __init__(
        self, seed: int, resamples: int = RESAMPLES, samples: Mapping[str, Mapping[str, Sample]] | None = None
    ) -> None:
        self.seed = seed
        self.resamples = resamples
        self._samples = samples or {}
        self._draws: dict[tuple[int, str], tuple[Measurement, Floats | None]] = {}
        self._values: dict[tuple[int, str], tuple[Measurement, dict[str, float], Floats]] = {}
        self._run: tuple[Measurement, Run] | None = None
        self._pool: Pool | None = None

    def estimate(self, measurement: Measurement, metric: str) -> Estimate:
        """Raises ``KeyError`` when the measurement has no such metric."""
        return self.estimates(measurement, (metric,))[metric]

    def estimates(self, measurement: Measurement, metrics: Iterable[str]) -> dict[str, Estimate]:
        """As :meth:`estimate`, of several metrics at once."""
        found = {name: Estimate(measurement.metrics[name]) for name in metrics}
        draws: dict[int, dict[str, Floats]] = {}  # by their number: a metric of a split may leave some undefined
        for name in found:
            kept = self._draws.get((id(measurement), name))
            drawn = self._draw(measurement, name) if kept is None else kept[1]
            if drawn is not None:
                draws.setdefault(drawn.size, {})[name] = drawn
        for rows in draws.values():
            bounds = np.quantile(np.stack(list(rows.values())), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)
            for name, low, high in zip(rows, *bounds, strict=True):
                found[name] = Estimate(found[name].value, float(low), float(high))
        return found

    def compare(self, ours: Measurement, theirs: Measurement, objective: Objective) -> Comparison:
        """Gain of ``ours`` over ``theirs``. Raises ``KeyError`` when one of them lacks the metric."""
        metric = objective.metric
        gain = objective.gain(ours.metrics[metric], theirs.metrics[metric])
        row = BOARD_METRICS.get(metric)
        if row is None:
            return self._compare_cases(ours, theirs, objective)
        if row.exact or ours is theirs:
            return Comparison(metric, gain, gain, gain, "exact", 1)
        pair = [self.draws_of(side, metric) for side in (ours, theirs)]
        if pair[0] is None or pair[1] is None:
            return Comparison(metric, gain, None, None, "too few", 0)
        difference = pair[1] - pair[0] if objective.direction == "minimize" else pair[0] - pair[1]
        level = TIME_LEVEL if row.strict else LEVEL
        return _bounded(metric, gain, difference, "independent blocks", 0, level)

    def _compare_cases(self, ours: Measurement, theirs: Measurement, objective: Objective) -> Comparison:
        """Over the cases for which the metric is defined on both sides, or over the draws of a metric of the split."""
        metric = objective.metric
        by_case = _is_by_case(ours, metric)
        found = self.differences(ours, theirs, objective)
        if found is None:
            gain = objective.gain(ours.metrics[metric], theirs.metrics[metric])
            same = set(ours.cases) == set(theirs.cases)
            pairs = len(paired_gains(ours, theirs, objective)) if by_case else len(ours.cases) * same
            return Comparison(metric, gain, None, None, "too few", pairs)
        method: Method = "paired cases" if by_case else "paired draws"
        return Comparison(metric, found.value, found.lower(LEVEL), found.upper(LEVEL), method, found.cases)

    def differences(self, ours: Measurement, theirs: Measurement, objective: Objective) -> Differences | None:
        """Paired differences of a metric of the task; None for too few cases, groups or defined draws. Raises
        ``KeyError`` when one of them lacks the metric."""
        if not _is_by_case(ours, objective.metric):
            return _differences_of_draws(ours, theirs, objective)
        (mine, values), (other, their_values) = (self.values_of(side, objective.metric) for side in (ours, theirs))
        groups = ours.groups or theirs.groups
        if mine.keys() == other.keys() and (ours.groups == theirs.groups):
            names, gains = list(mine), objective.sign * (values - their_values)
            answers = np.concatenate([values, their_values])
            pair = [self.draws_of(side, objective.metric) for side in (ours, theirs)]
            draws = None if pair[0] is None or pair[1] is None else objective.sign * (pair[0] - pair[1])
        else:
            by_case = paired_gains(ours, theirs, objective)
            names, gains = list(by_case), np.array(list(by_case.values()), dtype=np.float64)
            answers = np.array([side[name] for name in names for side in (mine, other)], dtype=np.float64)
            draws = self._means(names, gains, groups)
        if draws is None:
            return None
        if any(name in groups for name in names) and not all(name in groups for name in names):
            return None  # cases of one group are no independent ones, and nobody says which of these are
        grouped = [groups[name] for name in names] if all(name in groups for name in names) else None
        return Differences.of_cases(gains, draws, grouped, yes_or_no=bool(np.isin(answers, (0.0, 1.0)).all()))

    def _means(self, cases: Iterable[str], values: Floats, groups: Mapping[str, int]) -> Floats | None:
        """Draws of the mean over cases; None for too few of them, or of their groups."""
        if values.size < MIN_UNITS:
            return None
        if all(case in groups for case in cases):
            return resampled_group_means(values, [groups[case] for case in cases], self.seed, self.resamples)
        return resampled_means(values, drawn_units(self.seed, values.size, self.resamples))

    def values_of(self, measurement: Measurement, metric: str) -> tuple[dict[str, float], Floats]:
        """The metric's value by case, in the order of case ids, where it is defined."""
        key = (id(measurement), metric)
        if key not in self._values:
            by_case = defined_values(measurement.cases, metric)
            values = np.array(list(by_case.values()), dtype=np.float64)
            self._values[key] = (measurement, by_case, values)
        return self._values[key][1:]

    def draws_of(self, measurement: Measurement, metric: str) -> Floats | None:
        # By identity, and kept alive: a variant may be here with several measurements (splits, repeats).
        key = (id(measurement), metric)
        if key not in self._draws:
            draws = self._draw(measurement, metric)
            if draws is not None and metric in BOARD_METRICS:
                draws = self._own(measurement, metric, "order").permutation(draws)
            self._draws[key] = (measurement, draws)
        return self._draws[key][1]

    def _own(self, measurement: Measurement, metric: str, what: str) -> np.random.Generator:
        return generator(self.seed, what, metric, measurement.digest)

    def _draw(self, measurement: Measurement, metric: str) -> Floats | None:
        row = BOARD_METRICS.get(metric)
        if row is None and metric in measurement.draws:
            return _defined(measurement.draws[metric].values)
        if row is None:
            by_case, values = self.values_of(measurement, metric)
            return self._means(by_case, values, measurement.groups)
        if not row.source.has_spread:
            return None
        sample = self.sample(measurement, row)
        own = partial(self._own, measurement, metric, "one")
        return None if isinstance(sample, str) else drawn(sample, self.seed, self.resamples, own, self._pool_of)

    def sample(self, measurement: Measurement, row: Metric) -> Sample | str:
        """What the metric was taken from, or why there is none."""
        known = self._samples.get(measurement.digest, {}).get(row.name)
        if known is not None:
            return known
        if self._run is None or self._run[0] is not measurement:
            self._run = (measurement, Run.of(measurement))
        return read(row, self._run[1])

    def _pool_of(self, blocks: Blocks) -> Pool:
        """Several percentiles of one series are read one after the other."""
        if self._pool is None or self._pool.blocks is not blocks:
            self._pool = Pool(blocks, times_drawn(self.seed, len(blocks), self.resamples))
        return self._pool


def _is_by_case(item: Measurement, metric: str) -> bool:
    return any(metric in values for values in item.cases.values())


def _differences_of_draws(ours: Measurement, theirs: Measurement, objective: Objective) -> Differences | None:
    """Of a metric of the split, over the draws in which it is defined on both sides. Draws of other cases are no
    pairs."""
    metric = objective.metric
    gain = objective.gain(ours.metrics[metric], theirs.metrics[metric])
    mine, other = ours.draws.get(metric), theirs.draws.get(metric)
    if mine is None or other is None or mine.drawn != other.drawn:
        return None
    draws = _defined(objective.sign * (mine.values - other.values))
    if draws is None:
        return None
    units = len(set(ours.groups.values())) or len(ours.cases)
    ranks = [side.placements.get(metric) for side in (ours, theirs)]
    known = None if ranks[0] is None or ranks[1] is None else difference_error(ranks[0], ranks[1], ours.groups)
    if known is None and all(ranks) and not draws.any():
        return None  # a handful of one class, all answered alike: they say nothing of those that were not seen
    if known is None:
        return Differences(gain, draws, None, max(1, units - 1), len(ours.cases))
    return Differences(gain, draws, None, known[1], len(ours.cases), known[0])


def _defined(draws: Floats) -> Floats | None:
    """The draws that have a value; None when too many have none."""
    defined = draws[np.isfinite(draws)]
    return defined if defined.size >= MIN_DEFINED * draws.size > 0 else None


def paired_gains(ours: Measurement, theirs: Measurement, objective: Objective) -> dict[str, float]:
    """Case to gain over the cases where the metric is defined on both sides, by case id."""
    mine = defined_values(ours.cases, objective.metric)
    other = defined_values(theirs.cases, objective.metric)
    return {case: objective.gain(mine[case], other[case]) for case in mine if case in other}


def confirms_dominance(comparisons: Sequence[Comparison], min_effects: Sequence[float]) -> bool:
    """The bounds show: nowhere worse by more than the smallest effect that matters, and somewhere better by more."""
    pairs = list(zip(comparisons, min_effects, strict=True))
    return all(item.shows_at_least(-effect) for item, effect in pairs) and any(
        item.shows_more_than(effect) for item, effect in pairs
    )


def _bounded(metric: str, gain: float, draws: Floats, method: Method, units: int, level: float = LEVEL) -> Comparison:
    lower, upper = np.quantile(draws, [1 - level, level])
    return Comparison(metric, gain, float(lower), float(upper), method, units)
