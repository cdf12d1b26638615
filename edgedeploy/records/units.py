"""Converts between quantities as people write them (``20 ms``, ``8 MB``, ``15 min``) and base units."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Context, Decimal
from fractions import Fraction
from typing import Final

_SCALES: Final[Mapping[str, Mapping[str, int | Fraction]]] = {
    "ns": {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9},
    "bytes": {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
    "J": {"J": 1, "mJ": Fraction(1, 10**3), "uJ": Fraction(1, 10**6)},  # u stands for the micro sign too
    "s": {"s": 1, "min": 60, "h": 3600},
    "px": {"px": 1},
    "percent": {"percent": 1, "%": 1},
    "%/min": {"%/min": 1, "%/h": Fraction(1, 60)},
    "/s": {"/s": 1, "/min": Fraction(1, 60)},
    "B*s": {"B*s": 1, "KB*s": 10**3, "MB*s": 10**6, "GB*s": 10**9},
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

_SHOWN: Final[Mapping[str, Sequence[tuple[str, float]]]] = {
    "ns": (("s", 1e9), ("ms", 1e6), ("\N{MICRO SIGN}s", 1e3)),
    "bytes": (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)),
}
"""Units that a number is shown in from 1 on, the largest first."""

_FIXED: Final[Mapping[str, Decimal]] = {"": Decimal("0.001"), "B": Decimal(1)}
"""Distance of the numbers that are shown by decimals, by the unit shown. All others have three significant digits."""

_THREE_DIGITS: Final = Context(prec=3)

_EXACT: Final = Context(prec=50, traps=[])
"""More digits than a float has. What is beyond a decimal's exponents is infinite or nothing, not an error."""

_MICRO: Final = str.maketrans({"\N{MICRO SIGN}": "u", "\N{GREEK SMALL LETTER MU}": "u"})


def parse_quantity(value: float | str, unit: str) -> float:
    """``value`` in the base unit ``unit``. Raises ``ValueError`` whose text says what was expected.

    A bare number is taken for dimensionless units only: a limit of ``20`` on a latency could mean anything.
    """
    expected = f"expected a quantity in {unit if unit != '1' else 'no unit'}, such as {_EXAMPLES.get(unit, unit)}"
    scales = _SCALES.get(unit, {unit: 1})
    if isinstance(value, bool):
        raise ValueError(f"{expected}, but got {value!r}")
    if isinstance(value, (int, float)):
        if unit != "1":
            raise ValueError(f"{expected}, but got the bare number {value!r}")
        number = float(value)
    else:
        match = _TEXT.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValueError(f"{expected}, but got {value!r}")
        suffix = match.group(2).translate(_MICRO)
        if (suffix == "") != (unit == "1") or (suffix and suffix not in scales):
            known = f"; units known here: {', '.join(scales)}" if scales else ""
            raise ValueError(f"{expected}, but got {value!r}{known}")
        number = _scaled(match.group(1), Fraction(scales.get(suffix, 1)))
    if not math.isfinite(number):
        raise ValueError(f"{expected}, but got {value!r}")
    return number


def _scaled(text: str, scale: Fraction) -> float:
    """The float that is nearest: the product of the nearest float and a scale can be another one, beyond a limit that the
    text names."""
    product = _EXACT.multiply(_EXACT.create_decimal(text), Decimal(scale.numerator))
    return float(_EXACT.divide(product, Decimal(scale.denominator)))


def decimal(value: float, digits: int = 3) -> str:
    """A number without a unit: ``digits`` decimals, or as many significant digits where decimals would leave one at most:
    ``0.846``, ``0.010``, ``6.6e-07``."""
    return f"{value:.{digits}g}" if 0 < abs(value) < 10**-digits else f"{value:.{digits}f}"


def human(value: float, unit: str) -> str:
    """Short text with a unit people read: ``12.3 ms``, ``3.91 MB``, ``0.742``."""
    if unit == "1":
        return decimal(value)
    for name, scale in _SHOWN.get(unit, ()):
        text = f"{value / scale:.3g}"
        if abs(float(text)) >= 1:  # of the text: 999.6 KB are 1 MB, not 1e+03 KB
            return f"{text} {name}"
    return f"{value:.0f} B" if unit == "bytes" else f"{value:.3g} {unit}"


def human_limit(value: float, unit: str, *, at_most: bool) -> str:
    """As :func:`human`, for a limit that ``value`` is to meet: the next number of as many digits, above for an upper limit
    and below for a lower one, where the nearest one would leave it outside."""
    text = human(value, unit)
    try:
        read = parse_quantity(text, unit)
        if read >= value if at_most else read <= value:
            return text
        number, _, name = text.partition(" ")
        step = None if unit == "1" and abs(value) < 1e-3 else _FIXED.get(name)
        following = parse_quantity(f"{_following(Decimal(number), step, up=at_most)} {name}", unit)
        return human(following, unit)  # 1000 of a unit are 1 of the next
    except ValueError:  # a task's own unit that cannot be written as a limit
        return text


def _following(shown: Decimal, step: Decimal | None, *, up: bool) -> Decimal:
    """The next number that :func:`human` can show: by a fixed ``step``, or of three significant digits."""
    if step is not None:
        return shown + step if up else shown - step
    return _THREE_DIGITS.next_plus(shown) if up else _THREE_DIGITS.next_minus(shown)
