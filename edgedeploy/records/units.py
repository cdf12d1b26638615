"""Converts between quantities as people write them (``20 ms``, ``8 MB``, ``15 min``) and base units."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

_SCALES: Final[Mapping[str, Mapping[str, float]]] = {
    "ns": {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9, "min": 60e9, "h": 3600e9},
    "bytes": {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
    "J": {"J": 1, "mJ": 1e-3, "uJ": 1e-6},  # u stands for the micro sign too
    "s": {"s": 1, "min": 60, "h": 3600},
    "px": {"px": 1},
    "percent": {"percent": 1, "%": 1},
    "%/min": {"%/min": 1, "%/h": 1 / 60},
    "/s": {"/s": 1, "/min": 1 / 60},
    "B*s": {"B*s": 1, "KB*s": 1e3, "MB*s": 1e6, "GB*s": 1e9},
    "1": {},
}

_EXAMPLES: Final[Mapping[str, str]] = {
    "ns": "'20 ms'",
    "bytes": "'8 MB'",
    "J": "'15 mJ'",
    "s": "'20 min'",
    "px": "'12 px'",
    "percent": "'1 %'",
    "%/min": "'0.5 %/min'",
    "/s": "'30 /s'",
    "B*s": "'200 MB*s'",
    "1": "0.8 (a bare number)",
}

_TEXT = re.compile(r"\s*([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-z\u00b5\u03bc%/*]*)\s*")


_MICRO: Final = str.maketrans({"\N{MICRO SIGN}": "u", "\N{GREEK SMALL LETTER MU}": "u"})


def parse_quantity(value: float | str, unit: str) -> float:
    """``value`` in the base unit ``unit``. Raises ``ValueError`` whose text says what was expected.

    A bare number is taken for dimensionless units only: a limit of ``20`` on a latency could mean anything.
    """
    expected = f"expected a quantity in {unit if unit != '1' else 'no unit'}, such as {_EXAMPLES.get(unit, unit)}"
    scales = _SCALES.get(unit, {unit: 1.0})
    if isinstance(value, bool):
        raise ValueError(f"{expected}, but got {value!r}")
    if isinstance(value, (int, float)):
        if unit != "1":
            raise ValueError(f"{expected}, but got the bare number {value!r}")
        number, scale = float(value), 1.0
    else:
        match = _TEXT.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValueError(f"{expected}, but got {value!r}")
        suffix = match.group(2).translate(_MICRO)
        if (suffix == "") != (unit == "1") or (suffix and suffix not in scales):
            known = f"; units known here: {', '.join(scales)}" if scales else ""
            raise ValueError(f"{expected}, but got {value!r}{known}")
        number, scale = float(match.group(1)), scales.get(suffix, 1.0)
    if not math.isfinite(number * scale):
        raise ValueError(f"{expected}, but got {value!r}")
    return number * scale


def decimal(value: float, digits: int = 3) -> str:
    """A number without a unit: ``digits`` decimals, or as many significant digits where decimals would leave one at most:
    ``0.846``, ``0.010``, ``6.6e-07``."""
    return f"{value:.{digits}g}" if 0 < abs(value) < 10**-digits else f"{value:.{digits}f}"


def human(value: float, unit: str) -> str:
    """Short text with a unit people read: ``12.3 ms``, ``3.91 MB``, ``0.742``."""
    if unit == "ns":
        for name, scale in (("s", 1e9), ("ms", 1e6), ("\N{MICRO SIGN}s", 1e3)):
            if abs(value) >= scale:
                return f"{value / scale:.3g} {name}"
        return f"{value:.3g} ns"
    if unit == "bytes":
        for name, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
            if abs(value) >= scale:
                return f"{value / scale:.3g} {name}"
        return f"{value:.0f} B"
    if unit == "1":
        return decimal(value)
    return f"{value:.3g} {unit}"


def human_limit(value: float, unit: str, *, at_most: bool) -> str:
    """As :func:`human`, for a limit that ``value`` is to meet: rounded up for an upper limit, down for a lower one, where
    the nearest short text would leave it outside."""
    shown, sign = value, 1 if at_most else -1
    step = 2e-4 if unit == "1" and abs(value) >= 1e-3 else max(2e-4 * abs(value), 0.2 if unit == "bytes" else 0.0)
    for _ in range(64):  # half a unit of the third digit is 25 steps at most
        text = human(shown, unit)
        try:
            inside = sign * parse_quantity(text, unit) >= sign * value
        except ValueError:  # a task's own unit that cannot be written as a limit
            return text
        if inside:
            return text
        shown += sign * step
    return f"{value!r} {unit if unit != '1' else ''}".rstrip()
