"""How often the rules of the pick are wrong, simulated with the code that picks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from benchmarks.evidence_kit.asked import Asked
from benchmarks.shared.rows import Row, RowMaker
from edgedeploy.evidence.bootstrap import times_drawn
from edgedeploy.evidence.noninferiority import LEVEL, Differences, Floats, holm_levels, lost_cases

MARGIN: Final = 0.02
SPREAD: Final = 0.03
"""Standard deviation of a case's difference."""

FALSE_BAR: Final = 0.06
CAUGHT_BAR: Final = 0.85
ALPHA: Final = 1 - LEVEL
TABLES: Final = 8
"""Tables of draws that the repeats share: a study has one, which its seed decides."""

Simulated = Callable[[np.random.Generator, int], Floats]
"""Differences of so many repeats; shape (repeats, cases)."""


def at_the_margin(cases: int) -> Simulated:
    """Independent normal differences that lose just the margin."""
    return lambda rng, repeats: rng.normal(-MARGIN, SPREAD, (repeats, cases))


def grouped_at_the_margin(groups: int, each: int, icc: float) -> Simulated:
    """As :func:`at_the_margin`, with the correlation ``icc`` within a group."""

    def simulated(rng: np.random.Generator, repeats: int) -> Floats:
        shared = rng.normal(0, SPREAD * math.sqrt(icc), (repeats, groups, 1))
        own = rng.normal(0, SPREAD * math.sqrt(1 - icc), (repeats, groups, each))
        return np.asarray((shared + own).reshape(repeats, -1) - MARGIN)

    return simulated


def p_values(gains: Floats, seed: int, groups: Sequence[int] | None = None) -> list[float]:
    """Of each repeat that more than the margin is lost, as the pick computes it from its draws."""
    found = []
    for table, part in enumerate(np.array_split(gains, TABLES)):
        units = part if groups is None else part.reshape(len(part), len(set(groups)), -1).mean(axis=2)
        times = times_drawn(seed + table, units.shape[1])
        for row, drawn in zip(part, units @ times / units.shape[1], strict=True):
            held = Differences.of_cases(row, drawn, groups)
            assert held is not None
            found.append(held.p_value(MARGIN))
    return found


def false_share(simulated: Simulated, asked: Asked, groups: Sequence[int] | None = None) -> float:
    """In how many repeats a variant that loses just the margin is called non-inferior."""
    gains = simulated(np.random.default_rng(asked.seed), asked.repeats)
    return float(np.mean(np.array(p_values(gains, asked.seed, groups)) <= ALPHA))


def false_of_any(variants: int, cases: int, asked: Asked) -> float:
    """In how many repeats any of ``variants``, which all lose just the margin, is called non-inferior after Holm's steps.
    Half of the variance of their differences is shared: the same cases are hard for all."""
    rng = np.random.default_rng(asked.seed)
    wrong = 0
    for repeat in range(asked.repeats):
        shared = rng.normal(0, SPREAD * math.sqrt(0.5), (1, cases))
        gains = rng.normal(0, SPREAD * math.sqrt(0.5), (variants, cases)) + shared - MARGIN
        found = p_values(gains, repeat % TABLES)
        wrong += any(shown for shown, _ in holm_levels({str(i): value for i, value in enumerate(found)}).values())
    return wrong / asked.repeats


def caught_share(cases: int, broken: float, asked: Asked) -> tuple[float, float]:
    """Where a share ``broken`` of all cases loses 0.3 and the others nothing on average: in how many repeats the mean is
    called non-inferior by a margin of 0.05, and in how many of these the second endpoint (at most ``broken`` may lose more
    than 0.1) refuses the variant."""
    rng = np.random.default_rng(asked.seed)
    gains = rng.normal(0, SPREAD, (asked.repeats, cases)) - 0.3 * (rng.random((asked.repeats, cases)) < broken)
    shown = caught = 0
    for start, value in zip(gains, p_values(gains + 0.05 - MARGIN, asked.seed), strict=True):
        if value > ALPHA:
            continue
        named = {f"{place:03d}": float(gain) for place, gain in enumerate(start)}
        found = lost_cases(named, (), metric="dice", more_than=0.1, allowed=broken)
        assert found is not None
        shown, caught = shown + 1, caught + (not found.shown)
    return shown / asked.repeats, caught / max(1, shown)


def _false_row(what: str, share: float, asked: Asked) -> Row:
    found = f"{share:.1%} of {asked.repeats} (standard error {_error(share, asked.repeats):.2%})"
    return Row(
        f"false \u201cnon-inferior\u201d at the margin: {what}", found, f"<= {FALSE_BAR:.0%}", share <= FALSE_BAR
    )


def _error(share: float, repeats: int) -> float:
    return math.sqrt(share * (1 - share) / repeats)


def false_at_20_cases(asked: Asked) -> Row:
    return _false_row("20 cases", false_share(at_the_margin(20), asked), asked)


def false_at_40_cases(asked: Asked) -> Row:
    return _false_row("40 cases", false_share(at_the_margin(40), asked), asked)


def false_at_8_groups_of_5(asked: Asked) -> Row:
    groups = [place // 5 for place in range(40)]
    share = false_share(grouped_at_the_margin(8, 5, 0.3), asked, groups)
    return _false_row("8 groups of 5, ICC 0.3", share, asked)


def false_of_any_of_20_variants(asked: Asked) -> Row:
    few = Asked(repeats=max(1, asked.repeats // 4), seed=asked.seed)
    return _false_row("any of 20 variants, 40 cases, after Holm", false_of_any(20, 40, few), few)


def broken_cases_caught(asked: Asked) -> Row:
    shown, caught = caught_share(60, 0.05, asked)
    runs = round(shown * asked.repeats)
    found = (
        f"{caught:.1%} of {runs} runs in which the mean was shown (standard error {_error(caught, max(1, runs)):.2%})"
    )
    what = "5 % of cases broken behind a good mean, 60 cases: refused by the second endpoint"
    return Row(what, found, f">= {CAUGHT_BAR:.0%}", caught >= CAUGHT_BAR)


ROWS: Final[tuple[RowMaker, ...]] = (
    false_at_20_cases,
    false_at_40_cases,
    false_at_8_groups_of_5,
    false_of_any_of_20_variants,
    broken_cases_caught,
)
