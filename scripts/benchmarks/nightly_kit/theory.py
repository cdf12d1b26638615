"""The same bars on made-up noise, half of whose variance is a night's: where they hold, and where they conflict."""

from __future__ import annotations

from functools import partial
from typing import Final

from benchmarks.nightly_kit.asked import Asked
from benchmarks.nightly_kit.bars import LAB, MOST_ALARMS, Alarms, Power, false_alarms, power
from benchmarks.nightly_kit.noises import made_up
from benchmarks.shared.rows import Row, RowMaker
from edgedeploy.evidence.nights import widened

SD: Final = 0.013
"""Of a session, as A/A sessions on a shared host were seen to have."""

SDS: Final = (0.013, 0.014, 0.015, 0.016, 0.018, 0.020)
SERIES: Final = 4000
BARS: Final = f"at most {MOST_ALARMS:.0f} in 100 nights; 10 %: 95 % on night 1; 5 %: p90 within 5"


def normal(asked: Asked) -> Row:
    return _row(asked, "normal")


def t4(asked: Asked) -> Row:
    return _row(asked, "t4")


def ar(asked: Asked) -> Row:
    return _row(asked, "AR .4")


def disturbed(asked: Asked) -> Row:
    return _row(asked, "disturbed")


def t4_nights(asked: Asked) -> Row:
    """No limit tells a whole night that is truly 5 % slower from a regression; it has no bar."""
    alarms, found = _both(asked, "t4 nights", SD)
    what = f"whole nights of t4, sd {SD:.1%}: the tail is of the night itself, so that reruns share it (no bar)"
    return Row(what, f"{alarms}; {found}")


def conflict(asked: Asked) -> Row:
    """From which noise on the limits that keep the alarms cost what is found."""
    told = []
    for sd in SDS:
        alarms, found = _both(asked, "normal", sd)
        word = "all hold" if alarms.holds and found.holds else "conflict"
        told.append(f"{sd:.1%}: {alarms.mean:.2f}, {found.at_once:.0%}, p90 {found.p90:.0f} ({word})")
    what = (
        f"normal noise by its sd: alarms of {LAB} series, 10 % on night 1, nights for 5 % (alarms come first, no bar)"
    )
    return Row(what, "; ".join(told))


def _row(asked: Asked, kind: str) -> Row:
    alarms, found = _both(asked, kind, SD)
    return Row(f"{kind}, sd {SD:.1%}, lab of {LAB} series", f"{alarms}; {found}", BARS, alarms.holds and found.holds)


def _both(asked: Asked, kind: str, sd: float) -> tuple[Alarms, Power]:
    nights = partial(made_up, kind, sd)
    return (
        false_alarms(nights, LAB, asked.labs, asked.seed),
        power(nights, SERIES, asked.seed, widened(LAB)),
    )


ROWS: Final[tuple[RowMaker, ...]] = (normal, t4, ar, disturbed, t4_nights, conflict)
