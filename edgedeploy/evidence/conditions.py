"""Whether the board stayed the board it was at the start: its power mode, its clocks, its heat, its throttling.

Conditions that the board could not read are not judged; what it could read and what is missing stands in the evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

LEAST_SAMPLES: Final = 8
"""Fewer samples than this have no first and last quarter to compare."""

COOL_MARGIN_C: Final = 2.0
"""How much warmer than before its first run a board may be before the run is repeated."""


def board_cause(environment: Mapping[str, Any], *, max_heating_c: float, max_clock_drift: float) -> str | None:
    """Why the board's own conditions allow no numbers, or None when nothing was found."""
    before, after = (_table(environment.get(name)) for name in ("before", "after"))
    during = _table(environment.get("during"))
    return (
        _power_mode_cause(environment, before, after)
        or _throttling_cause(during)
        or _heating_cause(during, max_heating_c)
        or _clock_cause(during, max_clock_drift)
    )


def cooled_c(environment: Mapping[str, Any]) -> float | None:
    """How cool the board has to be before this run is repeated; None when it has no temperatures."""
    found = _table(_table(environment.get("before")).get("temperatures_c"))
    return max(float(value) for value in found.values()) + COOL_MARGIN_C if found else None


def _power_mode_cause(
    environment: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]
) -> str | None:
    if before.get("power_mode") != after.get("power_mode"):
        return f"the power mode changed from {before.get('power_mode')} to {after.get('power_mode')} during the run"
    for name, asked in _table(environment.get("power_mode_asked")).items():
        for when, found in (("at the start", before.get(name)), ("at the end", after.get(name))):
            if found is not None and str(found) != str(asked):
                return f"{name.replace('_', ' ')} {asked} was asked for, and {when} of the run it was {found}"
    return None


def _throttling_cause(during: Mapping[str, Any]) -> str | None:
    names = during.get("throttling") or ()
    return f"clocks were taken away during the run by {', '.join(names)}" if names else None


def _heating_cause(during: Mapping[str, Any], limit_c: float) -> str | None:
    ends = _first_and_last(during.get("hottest_c") or ())
    if ends is None or ends[1] - ends[0] <= limit_c:
        return None
    return (
        f"the hottest sensor went from {ends[0]:.0f} to {ends[1]:.0f} C during the run; {limit_c:g} C more is "
        "allowed (max_heating_c in [measure]: cool the board, or give it time: cool_down)"
    )


def _clock_cause(during: Mapping[str, Any], limit: float) -> str | None:
    ends = _first_and_last(during.get("cpu_mhz") or ())
    if ends is None or ends[0] <= 0:
        return None
    drift = abs(ends[1] - ends[0]) / ends[0]
    if drift <= limit:
        return None
    return (
        f"the clock of the cores went from {ends[0]:.0f} to {ends[1]:.0f} MHz during the run; "
        f"{100 * limit:.0f} % is allowed (max_clock_drift in [measure]: fix the clock, see governor and power_mode)"
    )


def _first_and_last(values: Sequence[float]) -> tuple[float, float] | None:
    """Medians of the first and the last quarter."""
    if len(values) < LEAST_SAMPLES:
        return None
    quarter = len(values) // 4
    return float(np.median(values[:quarter])), float(np.median(values[-quarter:]))


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
