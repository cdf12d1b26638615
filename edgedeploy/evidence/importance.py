"""How much of what was measured each parameter explains: shares of variance in an additive fit.

A description of the variants that a search happened to measure, no experiment: where two parameters changed together, they
share what either explains, and what two do only together is left unexplained.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgedeploy.records.goals import Objective
from edgedeploy.records.shrink import SHRINK_KEYS
from edgedeploy.records.variant import UNIFORM, Scalar, Variant

Floats = NDArray[np.float64]

FEWEST: Final = 12
"""Variants below which nothing is said."""

FEWEST_PER_TERM: Final = 2
"""Variants for each coefficient of the fit below which nothing is said: it would explain noise."""

_ORDERS: Final = 120
"""Orders in which parameters are added; all of them for up to five parameters."""

_ABSURD: Final = 1e12
"""A setting of this size is treated as a name."""

_LEAST: Final = 1e-9
"""Singular values below this share of the largest are none: settings that always changed together."""


@dataclass(frozen=True)
class Importances:
    """``shares``: by objective, the part of its variance that each parameter explains; each 0 to 1, and together what the
    additive fit explains (adjusted R squared). ``logarithmic``: objectives that were fitted by their logarithm. ``missing``
    says why there are none."""

    variants: int
    shares: Mapping[str, Mapping[str, float]]
    logarithmic: tuple[str, ...] = ()
    missing: str = ""


def settings_of(variants: Sequence[Variant]) -> dict[str, list[Scalar]]:
    """The parameters in which ``variants`` differ, each with its value in every one of them."""
    arch = sorted({name for variant in variants for name, _ in variant.arch})
    columns: dict[str, list[Scalar]] = {
        "target": [variant.target for variant in variants],
        "precision": [variant.precision for variant in variants],
        "plan": [variant.plan.label or "none" for variant in variants],
        "quantizer": [variant.quantizer or "default" for variant in variants],
        "calibration": [variant.calibration or "default" for variant in variants],
        "calibration cases": [variant.calibration_cases or "all" for variant in variants],
        "weight bits": [variant.weight_bits or "default" for variant in variants],
        "training": [variant.training or "ptq" for variant in variants],
        "storage": [variant.storage or "none" for variant in variants],
        "tile": [variant.tile or "whole" for variant in variants],
        "overlap": [variant.overlap or "exact" for variant in variants],
        "width": [variant.width for variant in variants],
        "allocation": [variant.allocation or UNIFORM for variant in variants],
        "recovery epochs": ["none" if item.recovery_epochs is None else item.recovery_epochs for item in variants],
        **{name: [variant.shrink.settings[name] for variant in variants] for name in SHRINK_KEYS},
        **{name: [variant.arch_kwargs.get(name, "none") for variant in variants] for name in arch},
        "threads": [variant.threads for variant in variants],
        "instances": [variant.instances for variant in variants],
        "batch": [variant.max_batch for variant in variants],
        "image codec": [variant.image_codec or "none" for variant in variants],
        "power mode": [variant.power_mode or "unchanged" for variant in variants],
    }
    return {name: values for name, values in columns.items() if len(set(map(repr, values))) > 1}


def is_number(value: Scalar) -> bool:
    """Whether a value can be put on a line with others: a number that is not absurd."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _ABSURD


def importances(
    variants: Sequence[Variant], values: Sequence[Mapping[str, float]], objectives: Sequence[Objective]
) -> Importances:
    """Of ``variants`` with the ``values`` of all ``objectives``, by metric in base units. Positive values to be made small
    are fitted by their logarithm, because what a parameter does to a time or a size is a factor.

    The share of a parameter is what it adds to the variance explained, averaged over orders in which parameters are added
    (Lindeman, Merenda and Gold 1980), times the part of the whole that is more than as many columns explain by chance.
    """
    columns = settings_of(variants)
    terms = {name: _terms(column) for name, column in columns.items()}
    count, width = len(variants), sum(term.shape[1] for term in terms.values())
    if count < FEWEST or count < FEWEST_PER_TERM * (width + 1):
        least = max(FEWEST, FEWEST_PER_TERM * (width + 1))
        return Importances(count, {}, missing=f"Importances need {least} measured variants here; there are {count}.")
    if not terms:
        return Importances(count, {}, missing="There are no importances: the measured variants differ in no parameter.")
    targets = np.array([[row[goal.metric] for goal in objectives] for row in values], dtype=float)
    logarithmic = [goal.sign < 0 and bool(np.all(targets[:, i] > 0)) for i, goal in enumerate(objectives)]
    targets[:, logarithmic] = np.log(targets[:, logarithmic])
    shares = _shares(list(terms.values()), targets)
    return Importances(
        count,
        {goal.metric: dict(zip(terms, map(float, shares[:, i]), strict=True)) for i, goal in enumerate(objectives)},
        tuple(goal.metric for goal, is_log in zip(objectives, logarithmic, strict=True) if is_log),
    )


def _terms(values: Sequence[Scalar]) -> Floats:
    """Columns of the fit for one parameter, shape (variants, terms), each of mean 0 and norm 1: a straight line and a
    parabola for numbers, a column per value but one for anything else."""
    levels = sorted({repr(value) for value in values})
    if len(levels) > 2 and all(map(is_number, values)):
        line = np.array(values, dtype=float)
        line = (line - line.mean()) / line.std()
        columns = [line, line**2]
    else:
        columns = [np.array([repr(value) == level for value in values], dtype=float) for level in levels[1:]]
    centred = np.column_stack(columns) - np.mean(columns, axis=1)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=0), _LEAST), dtype=float)


def _shares(terms: Sequence[Floats], targets: Floats) -> Floats:
    """Shape (parameters, objectives); 0 for an objective that does not vary. Together the adjusted R squared: as many
    columns explain a part of anything by chance."""
    with np.errstate(over="ignore", invalid="ignore"):  # a damaged file may hold absurd values
        spread = np.ptp(targets, axis=0)
        varies = (spread > 0) & np.isfinite(spread)
        centred = np.where(varies, (targets - targets.mean(axis=0)) / np.where(varies, spread, 1.0), 0.0)
    total = np.where(varies, np.sum(centred**2, axis=0), 1.0)
    design = np.column_stack(terms)
    inner, outer = design.T @ design, design.T @ centred
    ends = np.cumsum([0, *(term.shape[1] for term in terms)])
    known: dict[frozenset[int], tuple[Floats, int]] = {frozenset(): (np.zeros(targets.shape[1]), 0)}

    def explained(chosen: frozenset[int]) -> tuple[Floats, int]:
        """R squared with these parameters, and how many independent columns they have."""
        if chosen not in known:
            at = np.concatenate([np.arange(ends[index], ends[index + 1]) for index in sorted(chosen)])
            values, vectors = np.linalg.eigh(inner[np.ix_(at, at)])
            free = values > _LEAST * values[-1]
            along = vectors[:, free].T @ outer[at]
            known[chosen] = np.sum(along**2 / values[free, None], axis=0) / total, int(free.sum())
        return known[chosen]

    found = np.zeros((len(terms), targets.shape[1]))
    orders = _orders(len(terms))
    for order in orders:
        for place, index in enumerate(order):
            found[index] += explained(frozenset(order[: place + 1]))[0] - explained(frozenset(order[:place]))[0]
    whole, columns = explained(frozenset(range(len(terms))))
    by_chance = (1 - whole) * columns / (len(targets) - 1 - columns)
    kept = np.clip(1 - by_chance / np.maximum(whole, _LEAST), 0.0, 1.0)
    return np.asarray(np.clip(found / len(orders) * kept, 0.0, 1.0), dtype=float)


def _orders(count: int) -> list[tuple[int, ...]]:
    """All orders of a few parameters; of more, always the same random ones."""
    if count <= 5:
        return list(itertools.permutations(range(count)))
    rng = np.random.default_rng(0)
    return [tuple(int(index) for index in rng.permutation(count)) for _ in range(_ORDERS)]
