"""How sure a number is: percentile bootstrap (Efron & Tibshirani 1993, ch. 13), seeded and vectorised.

What is resampled is what was sampled: cases for a task's metrics, whole groups of them where the task names groups (all
images of a patient), blocks of queries for times (queries inside a block follow one another and are not independent). Two
variants are compared case by case when the metric has cases (paired), and draw by draw when it is one of a whole split,
whose draws ``evidence/split.py`` made when it was measured; times of two variants come from two sessions and are resampled
independently. Sizes, and the one peak of memory, are taken as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from edgedeploy.evidence.metrics import read
from edgedeploy.evidence.samples import Median, Minimum, Percentile, Ratio, Sample, Share, Slope
from edgedeploy.evidence.series import Run
from edgedeploy.evidence.statistics import Blocks, Floats, defined_values
from edgedeploy.records.goals import Objective
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metric_table import BOARD_METRICS

RESAMPLES: Final = 2000
LEVEL: Final = 0.95
"""Of two-sided intervals and of one-sided bounds alike."""

TIME_LEVEL: Final = 0.99
"""Of one-sided bounds on ``strict`` metrics, which are times: on a busy host 95 % would call one artifact faster than itself
once in twenty runs."""

MIN_UNITS: Final = 5
"""Fewer cases or blocks than this say nothing about their own spread: no interval, no bound."""

MIN_DEFINED: Final = 0.9
"""The share of a split's draws in which its metric has to be defined. Fewer are a sign that a class has so few cases that
many draws hold none of it."""

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


def resampled_means(values: Floats, rng: np.random.Generator, resamples: int = RESAMPLES) -> Floats:
    """Means of ``resamples`` draws with replacement; shape (resamples,)."""
    return np.asarray(values[rng.integers(0, values.size, (resamples, values.size))].mean(axis=1))


def resampled_group_means(
    values: Floats, groups: Sequence[int], rng: np.random.Generator, resamples: int = RESAMPLES
) -> Floats | None:
    """As :func:`resampled_means`, but whole groups are drawn; the mean stays one over cases. None for too few groups."""
    _, places = np.unique(np.asarray(groups), return_inverse=True)
    sizes = np.bincount(places).astype(np.float64)
    if sizes.size < MIN_UNITS:
        return None
    sums = np.bincount(places, weights=values)
    chosen = rng.integers(0, sizes.size, (resamples, sizes.size))
    return np.asarray(sums[chosen].sum(axis=1) / sizes[chosen].sum(axis=1))


def resampled_medians(values: Floats, rng: np.random.Generator, resamples: int = RESAMPLES) -> Floats:
    return np.asarray(np.median(values[rng.integers(0, values.size, (resamples, values.size))], axis=1))


def resampled_minima(values: Floats, rng: np.random.Generator, resamples: int = RESAMPLES) -> Floats:
    return np.asarray(values[rng.integers(0, values.size, (resamples, values.size))].min(axis=1))


def resampled_percentiles(
    blocks: Blocks, percent: float, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Floats:
    """Nearest-rank percentile of the pooled queries of blocks drawn with replacement; shape (resamples,).

    A draw is a count for each block; the counts weigh the sorted pool, so nothing is sorted again.
    """
    series = np.concatenate([np.asarray(block, dtype=np.float64) for block in blocks])
    owner = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
    order = np.argsort(series, kind="stable")
    counts = rng.multinomial(len(blocks), np.full(len(blocks), 1 / len(blocks)), size=resamples)
    below = np.cumsum(counts.astype(np.int32)[:, owner[order]], axis=1, dtype=np.int32)
    ranks = np.maximum(1, np.ceil(percent / 100 * below[:, -1]))
    return np.asarray(series[order][(below < ranks[:, None]).sum(axis=1)])


def drawn(sample: Sample, rng: np.random.Generator, resamples: int) -> Floats | None:
    """Draws of a metric; None when its sample has fewer than ``MIN_UNITS`` units, or no spread at all."""
    if isinstance(sample, Percentile) and len(sample.blocks) >= MIN_UNITS:
        return resampled_percentiles(sample.blocks, sample.percent, rng, resamples)
    if isinstance(sample, Median | Minimum) and sample.values.size >= MIN_UNITS:
        redraw = resampled_medians if isinstance(sample, Median) else resampled_minima
        return redraw(sample.values, rng, resamples)
    if isinstance(sample, Share) and sample.one_sided:
        events, frames = sample.pairs.sum(axis=0)
        return np.asarray(sample.scale * rng.beta(events + 0.5, frames - events + 0.5, resamples))
    if isinstance(sample, Ratio) and len(sample.pairs) >= MIN_UNITS:
        sums = sample.pairs[rng.integers(0, len(sample.pairs), (resamples, len(sample.pairs)))].sum(axis=1)
        return np.asarray(sample.scale * sums[:, 0] / sums[:, 1])
    if isinstance(sample, Slope):
        return np.asarray(sample.value + sample.error * rng.standard_t(sample.freedom, resamples))
    return None


class Resampler:
    """Draws by measurement and metric, made once each. ``seed`` decides every one of them."""

    def __init__(self, seed: int, resamples: int = RESAMPLES) -> None:
        self._seed = seed
        self.resamples = resamples
        self._draws: dict[tuple[int, str], tuple[Measurement, Floats | None]] = {}
        self._runs: dict[int, tuple[Measurement, Run]] = {}

    def estimate(self, measurement: Measurement, metric: str) -> Estimate:
        """Raises ``KeyError`` when the measurement has no such metric."""
        value = measurement.metrics[metric]
        draws = self._draws_of(measurement, metric)
        if draws is None:
            return Estimate(value)
        low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Estimate(value, float(low), float(high))

    def compare(self, ours: Measurement, theirs: Measurement, objective: Objective) -> Comparison:
        """Gain of ``ours`` over ``theirs``. Raises ``KeyError`` when one of them lacks the metric."""
        metric = objective.metric
        gain = objective.gain(ours.metrics[metric], theirs.metrics[metric])
        row = BOARD_METRICS.get(metric)
        if row is None:
            return self._compare_cases(ours, theirs, objective)
        if row.exact or ours is theirs:
            return Comparison(metric, gain, gain, gain, "exact", 1)
        pair = [self._draws_of(side, metric) for side in (ours, theirs)]
        if pair[0] is None or pair[1] is None:
            return Comparison(metric, gain, None, None, "too few", 0)
        difference = pair[1] - pair[0] if objective.direction == "minimize" else pair[0] - pair[1]
        level = TIME_LEVEL if row.strict else LEVEL
        return _bounded(metric, gain, difference, "independent blocks", 0, level)

    def _compare_cases(self, ours: Measurement, theirs: Measurement, objective: Objective) -> Comparison:
        """Over the cases for which the metric is defined on both sides."""
        metric = objective.metric
        if not any(metric in values for values in ours.cases.values()):
            return _compare_draws(ours, theirs, objective)
        pairs = paired_gains(ours, theirs, objective)
        rng = generator(self._seed, "pair", metric, ours.digest, theirs.digest)
        draws = self._means(pairs, ours.groups or theirs.groups, rng)
        if draws is None:
            gain = objective.gain(ours.metrics[metric], theirs.metrics[metric])
            return Comparison(metric, gain, None, None, "too few", len(pairs))
        return _bounded(metric, float(np.mean(list(pairs.values()))), draws, "paired cases", len(pairs))

    def _means(
        self, by_case: Mapping[str, float], groups: Mapping[str, int], rng: np.random.Generator
    ) -> Floats | None:
        """Draws of the mean over cases; None for too few of them, or of their groups."""
        values = np.array(list(by_case.values()), dtype=np.float64)
        if values.size < MIN_UNITS:
            return None
        if all(case in groups for case in by_case):
            return resampled_group_means(values, [groups[case] for case in by_case], rng, self.resamples)
        return resampled_means(values, rng, self.resamples)

    def _draws_of(self, measurement: Measurement, metric: str) -> Floats | None:
        # By identity, and kept alive: a variant may be here with several measurements (splits, repeats).
        key = (id(measurement), metric)
        if key not in self._draws:
            rng = generator(self._seed, "one", metric, measurement.digest)
            self._draws[key] = (measurement, self._draw(measurement, metric, rng))
        return self._draws[key][1]

    def _draw(self, measurement: Measurement, metric: str, rng: np.random.Generator) -> Floats | None:
        row = BOARD_METRICS.get(metric)
        if row is None and metric in measurement.draws:
            return _defined(measurement.draws[metric].values)
        if row is None:
            return self._means(defined_values(measurement.cases, metric), measurement.groups, rng)
        if not row.source.has_spread:
            return None
        _, run = self._runs.setdefault(id(measurement), (measurement, Run.of(measurement)))
        sample = read(row, run)
        return None if isinstance(sample, str) else drawn(sample, rng, self.resamples)


def _compare_draws(ours: Measurement, theirs: Measurement, objective: Objective) -> Comparison:
    """Of a metric of the split, over the draws in which it is defined on both sides. Draws of other cases are no pairs."""
    metric = objective.metric
    gain = objective.gain(ours.metrics[metric], theirs.metrics[metric])
    mine, other = ours.draws.get(metric), theirs.draws.get(metric)
    if mine is None or other is None or mine.drawn != other.drawn:
        same = set(ours.cases) == set(theirs.cases)
        return Comparison(metric, gain, None, None, "too few", len(ours.cases) if same else 0)
    better = mine.values - other.values
    draws = _defined(-better if objective.direction == "minimize" else better)
    if draws is None:
        return Comparison(metric, gain, None, None, "too few", len(ours.cases))
    return _bounded(metric, gain, draws, "paired draws", len(ours.cases))


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
