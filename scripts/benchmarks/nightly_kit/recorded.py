"""False alarms and what is found, on recorded A/A sessions of this kind of host."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np

from benchmarks.nightly_kit.asked import Asked
from benchmarks.nightly_kit.bars import (
    FOUND_AT_ONCE,
    LAB,
    LARGE,
    MOST_ALARMS,
    NIGHTS,
    SHARE,
    SMALL,
    WITHIN_NIGHTS,
    Nights,
    false_alarms,
    found_after,
    nearest,
)
from benchmarks.nightly_kit.noises import Record, drawn, read_record
from benchmarks.shared.rows import Row, RowMaker
from edgedeploy.evidence.nights import widened

SERIES: Final = 4000
"""Simulated with a planted slowdown."""

AT_MOST: Final = f"at most {MOST_ALARMS:.0f} in {NIGHTS} nights"


def nights_of(record: Record, metric: str = "") -> Nights:
    """Of latency, of CPU time, or of both."""
    return partial(drawn, record, [kind for kind in record.nights if kind.endswith(metric)])


def recorded_noise(asked: Asked) -> Row:
    """What the record is, kind by kind."""
    record = read_record()
    kinds = []
    for kind in record.nights:
        values = record.sessions(kind)
        robust = 1.4826 * float(np.median(np.abs(values - np.median(values))))
        beyond = int((np.abs(values) > SMALL).sum())
        told = f"sd {values.std(ddof=1):.2%}, robust {robust:.2%}, beyond 5 %: {beyond} of {values.size}"
        kinds.append(f"{kind}: {told}, shared by a night {record.shared(kind):.0%}")
    return Row(f"recorded A/A sessions ({record.text})", "; ".join(kinds))


def recorded_false_alarms_of_a_lab(asked: Asked) -> Row:
    """Latency and CPU time of two runtimes, the young nights among them."""
    return _alarms(asked, LAB)


def recorded_false_alarms_of_25(asked: Asked) -> Row:
    return _alarms(asked, 25)


def recorded_false_alarms_of_1000(asked: Asked) -> Row:
    return _alarms(asked, 1000)


def _alarms(asked: Asked, series: int) -> Row:
    labs = max(5, asked.labs * LAB // series) if series > LAB else asked.labs * LAB // series
    found = false_alarms(nights_of(read_record()), series, labs, asked.seed)
    return Row(f"recorded sessions: false alarms of a lab of {series} series", str(found), AT_MOST, found.holds)


def recorded_10_percent(asked: Asked) -> Row:
    nights = found_after(nights_of(read_record(), "latency"), LARGE, SERIES, asked.seed, widened(LAB))
    share = float((nights <= 1).mean())
    what = f"recorded sessions: latency 10 % slower, limits of {LAB} series, found on night 1"
    return Row(what, f"{share:.1%} of {SERIES}", f"{FOUND_AT_ONCE:.0%}", share >= FOUND_AT_ONCE)


def recorded_5_percent(asked: Asked) -> Row:
    nights = found_after(nights_of(read_record(), "latency"), SMALL, SERIES, asked.seed, widened(LAB))
    last = nearest(nights, SHARE)
    what = f"recorded sessions: latency 5 % slower, limits of {LAB} series, nights until found"
    found = f"median {np.median(nights):.0f}, p90 {last:.0f}"
    return Row(what, found, f"p90 within {WITHIN_NIGHTS}", last <= WITHIN_NIGHTS)


ROWS: Final[tuple[RowMaker, ...]] = (
    recorded_noise,
    recorded_false_alarms_of_a_lab,
    recorded_false_alarms_of_25,
    recorded_false_alarms_of_1000,
    recorded_10_percent,
    recorded_5_percent,
)
