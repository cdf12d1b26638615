"""How sure a metric of a whole split is: it is computed again on resampled cases while the outputs are at hand.

Fronts are made of stored measurements alone, and a measurement keeps no outputs at full precision. So the draws are made
when it is measured. Which cases are drawn is decided by the cases' ids and groups alone: every variant and the baseline see
the same draws, and are compared draw by draw.

A draw can leave a metric undefined (AUROC where only one class was drawn). Such a draw is left out on both sides of a
comparison; when fewer than ``MIN_DEFINED`` of the draws remain, there is no interval and no bound: the split has too few
cases of some class to say how sure the number is.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from edgedeploy.errors import MeasurementError
from edgedeploy.evidence.bootstrap import MIN_UNITS, generator
from edgedeploy.records.draws import SplitDraws

SPLIT_RESAMPLES: Final = 1000

Score = Callable[[Sequence[int]], Mapping[str, float | None]]
"""The metrics of the cases at these places; a place may stand there more than once."""


def numbered(groups: Mapping[str, str]) -> dict[str, int]:
    """The group of each case as a number, in the order of case ids: no name of a patient is kept with a measurement."""
    numbers: dict[str, int] = {}
    return {case: numbers.setdefault(groups[case], len(numbers)) for case in sorted(groups)}


def split_score(score: Score, names: Sequence[str], cases: int) -> tuple[dict[str, float], dict[str, str]]:
    """The metrics of the whole split, and why others are not there."""
    found = score(range(cases))
    metrics, missing = {}, {}
    for name in names:
        value = _finite(found.get(name), name)
        if value is not None:
            metrics[name] = value
        else:
            missing[name] = "undefined for the split" if name in found else "the task's score() does not give it"
    return metrics, missing


def split_draws(
    score: Score,
    names: Sequence[str],
    ids: Sequence[str],
    groups: Mapping[str, int] | None = None,
    resamples: int = SPLIT_RESAMPLES,
) -> dict[str, SplitDraws]:
    """The metrics on ``resamples`` draws of the cases with these ``ids``, whole groups at a time where there are some;
    nothing for fewer than ``MIN_UNITS`` cases or groups."""
    units = _units(ids, groups or {})
    if len(units) < MIN_UNITS or not names:
        return {}
    drawn = hashlib.sha256(repr([[ids[place] for place in unit] for unit in units]).encode()).hexdigest()[:16]
    rng = generator(0, "split", drawn)
    values = np.full((len(names), resamples), np.nan)
    for column in range(resamples):
        chosen = rng.integers(0, len(units), len(units))
        found = score([place for unit in chosen for place in units[unit]])
        for row, name in enumerate(names):
            value = _finite(found.get(name), name)
            if value is not None:
                values[row, column] = value
    return {name: SplitDraws.of(f"{drawn} x{resamples}", values[row]) for row, name in enumerate(names)}


def _units(ids: Sequence[str], groups: Mapping[str, int]) -> list[list[int]]:
    """Places that are drawn together, in an order that the ids decide."""
    units: dict[str | int, list[int]] = {}
    for place in sorted(range(len(ids)), key=lambda place: ids[place]):
        units.setdefault(groups.get(ids[place], ids[place]), []).append(place)
    return list(units.values())


def _finite(value: float | None, name: str) -> float | None:
    if value is not None and not math.isfinite(value):
        raise MeasurementError(
            f"score {name} of the split",
            f"the task's score() gave {value}",
            "None stands for undefined, NaN for nothing",
        )
    return None if value is None else float(value)
