"""How much single cases differ between a variant and the baseline: what decides which margin a split can prove."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgedeploy.evidence.bootstrap import MIN_DEFINED
from edgedeploy.evidence.noninferiority import MIN_UNITS
from edgedeploy.evidence.power import intraclass_correlation
from edgedeploy.evidence.statistics import defined_values
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.variant import Variant

ASSUMED_SDS: Final = (0.02, 0.03, 0.05)
"""Standard deviations of paired differences in a share such as Dice, where none is measured: assumed, and said to be."""

ASSUMED_ICC: Final = 0.3
"""How much the differences of cases of one group resemble each other, where none is measured."""


@dataclass(frozen=True)
class Spread:
    """``sd``: standard deviation of paired differences of cases, in the metric's unit; of a metric of a whole split that of
    cases which would give as wide a spread. ``icc``: correlation within groups, None where cases are in none. ``loss``: by
    how much the variant was worse on average, ``cases`` on how many; None and 0 for what is assumed.
    ``defined``: the share of all cases that have the metric, as a sensitivity is of positives alone. ``yes_or_no``: whether
    the metric is 0 or 1 in each of them; None where nobody knows yet."""

    sd: float
    icc: float | None = None
    loss: float | None = None
    cases: int = 0
    of: str = ""
    defined: float = 1.0
    yes_or_no: bool | None = None


def measured_spread(ours: Measurement, baseline: Measurement, metric: str, *, sign: int, of: str = "") -> Spread | None:
    """Of a variant against the baseline on the cases that both have. ``sign`` is 1 where more is better, else -1; ``of``
    names the variant. None for fewer than ``MIN_UNITS`` cases, and where nothing differs: such a pair says nothing of
    others."""
    if metric in ours.draws:
        return _of_draws(ours, baseline, metric, sign, of)
    mine, theirs = defined_values(ours.cases, metric), defined_values(baseline.cases, metric)
    shared = [case for case in mine if case in theirs]
    if len(shared) < MIN_UNITS:
        return None
    gains = sign * np.array([mine[case] - theirs[case] for case in shared])
    sd = float(gains.std(ddof=1))
    icc = None
    if all(case in ours.groups for case in shared):
        icc = intraclass_correlation(gains.tolist(), [ours.groups[case] for case in shared])
    share = len(shared) / len(ours.cases)
    answers = {side[case] for case in shared for side in (mine, theirs)}
    return Spread(sd, icc, -float(gains.mean()), len(shared), of, share, answers <= {0.0, 1.0}) if sd > 0 else None


def _of_draws(ours: Measurement, baseline: Measurement, metric: str, sign: int, of: str) -> Spread | None:
    """Draws spread as the mean of so many cases does, or of so many groups where whole groups were drawn: those count as
    one case each then."""
    pair = [side.draws.get(metric) for side in (ours, baseline)]
    if pair[0] is None or pair[1] is None or pair[0].drawn != pair[1].drawn:
        return None
    differences = sign * (pair[0].values - pair[1].values)
    defined = differences[np.isfinite(differences)]
    units = len(set(ours.groups.values())) or len(ours.cases)
    if units < MIN_UNITS or defined.size < max(2, MIN_DEFINED * differences.size):
        return None
    sd = float(defined.std(ddof=1)) * math.sqrt(units)
    loss = -sign * (ours.metrics[metric] - baseline.metrics[metric])
    icc = 1.0 if ours.groups else None
    return Spread(sd, icc, loss, len(ours.cases), of, yes_or_no=False) if sd > 0 else None


def first_int8(measurements: Iterable[Measurement], baselines: Sequence[Variant]) -> Measurement | None:
    """The network of ``baselines`` in int8 that was measured first: nothing else is known so early of how cases differ."""
    found = [item for item in measurements if item.valid and is_int8_baseline(item.variant, baselines)]
    return min(found, key=lambda item: (item.created_utc, item.digest), default=None)


def first_float(measurements: Iterable[Measurement], baselines: Sequence[Variant]) -> Measurement | None:
    """The untouched float network on the reference target, the first of ``baselines``; with other threads where a space has
    not those of the baseline, which changes no accuracy."""
    first = baselines[0]
    found = [
        item
        for item in measurements
        if item.valid
        and not item.variant.recovered
        and (item.variant.target, item.variant.precision, *_network(item.variant))
        == (first.target, first.precision, *_network(first))
    ]
    return min(found, key=lambda item: (item.digest != first.digest, item.created_utc, item.digest), default=None)


def is_int8_baseline(variant: Variant, baselines: Sequence[Variant]) -> bool:
    """The untouched float network, quantized to int8 by calibration."""
    whole = variant.precision == "int8" and not variant.training and not variant.recovered
    return whole and any(_network(variant) == _network(item) for item in baselines)


def _network(variant: Variant) -> tuple[object, ...]:
    return variant.arch, variant.width, variant.shrink, variant.storage
