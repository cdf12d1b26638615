"""What a metric is: a task's own (:class:`MetricInfo`), and a board's, which is a row of ``records/metric_table.py``."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Final, Literal

from edgedeploy.runtime.scenarios.earlystopping import queries_needed

Direction = Literal["minimize", "maximize"]

Clock = Literal["wall", "virtual", "none"]
"""What a board's times are: real; a count of instructions, 1 ns each; or an emulator's pace, of which no number is made."""

QUERIES_FOR_PERCENTILE: Final[Mapping[float, int]] = {50: 1, 90: 64, 99: 662, 99.9: 6636}
"""The percentiles that a study file may name, and the fewest queries before each may be stated at 99 % confidence (MLPerf
LoadGen's early-stopping bound, which ``runtime/scenarios/earlystopping.py`` computes). The median is stated from the
first query on."""

Statistic = Literal["percentile", "bound", "maximum", "median", "minimum", "ratio", "share", "slope", "value"]

_OF_PERCENT: Final = ("percentile", "bound")
_UPPER_CASE: Final = ("nsd", "hd95", "iou", "auc", "auroc", "psnr", "ssim", "mae")
_WRITTEN: Final = {**{word: word.upper() for word in _UPPER_CASE}, "map": "mAP"}
_UNITS_IN_NAMES: Final = ("px", "mm", "ns", "bytes", "db")


@dataclass(frozen=True)
class MetricInfo:
    """What a metric is: its better direction, its unit (``ns``, ``bytes``, ``px``, ``1``) and one line for people. ``bound``
    is the best value that there can be, such as 1 of a Dice; None where there is none, or nobody says so. ``yes_or_no``
    says whether each case's value is 0 or 1, as of a right or wrong answer, and not one between, as a Dice is; None where
    nobody says so."""

    direction: Direction
    unit: str
    text: str
    bound: float | None = None
    yes_or_no: bool | None = None

    @property
    def best(self) -> float | None:
        """The best value that there can be: ``bound``, else that of a mean of zeros and ones; None where it is unknown."""
        if self.bound is None and self.yes_or_no:
            return 1.0 if self.direction == "maximize" else 0.0
        return self.bound

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MetricInfo:
        """Keys that this version does not know are left out; older files lack those that have a default."""
        known = (item for item in fields(MetricInfo) if item.default is MISSING or item.name in data)
        return MetricInfo(**{item.name: data[item.name] for item in known})


@dataclass(frozen=True)
class Source:
    """Where a number comes from: a series by its name in ``evidence/metrics.py``, and what is made of it.

    ``percentile``, ``bound`` (the early-stopping estimate: the percentile is below it at 99 % confidence) and ``maximum``
    are of observations in blocks of neighbours; ``median`` and ``minimum`` of independent repeats; ``ratio`` and ``share``
    (of events) of pairs; ``slope`` of points over time; ``value`` is a number as it stands. ``percent`` belongs to the
    first two.
    """

    series: str
    statistic: Statistic = "value"
    percent: float | None = None

    def __post_init__(self) -> None:
        if (self.percent is not None) != (self.statistic in _OF_PERCENT):
            raise ValueError(f"`percent` goes with {' and '.join(_OF_PERCENT)}, but got {self}")

    @property
    def observations(self) -> int:
        """Fewest observations that the statistic may be stated from."""
        return 0 if self.percent is None else _needed(self.percent)

    @property
    def has_spread(self) -> bool:
        """Whether drawing the observations anew says how sure the number is."""
        return self.statistic not in ("value", "maximum")


@functools.cache
def _needed(percent: float) -> int:
    known = QUERIES_FOR_PERCENTILE.get(percent)
    return queries_needed(percent) if known is None else known


@dataclass(frozen=True, kw_only=True)
class Metric(MetricInfo):
    """One row of the table: a metric that a board produces."""

    name: str
    direction: Direction = "minimize"
    source: Source
    heading: str = ""
    """Column title; derived from the name when left out."""
    scenario: str | None = None
    """The scenario that a study has to ask for; None for what every run gives."""
    missing: str = "this run's settings do not give it"
    """The reason why there is none, where the series is not there and knows no better one."""
    not_by_clock: Mapping[Clock, str] = field(default_factory=dict)
    """The clocks by which a board cannot tell it, each with the reason."""
    not_emulated: str = ""
    """Why no emulated board has it, whatever its clock; empty where one may."""
    shown: Literal["quantity", "times"] = "quantity"
    """With its unit, or as so many times something else."""
    signed: bool = False
    """Its values may be below zero, and so may a limit on it."""
    exact: bool = False
    """Taken as it is: two values differ by what they differ by."""
    strict: bool = False
    """One-sided bounds on it have the higher level of times (``TIME_LEVEL`` in ``evidence/bootstrap.py``)."""
    relative: bool = False
    """Over the baseline's in the same session, so that the baseline's own value says nothing."""
    across_boards: bool = False
    """Compares across boards of one kind: the baseline ran interleaved on the same board, or nothing ran."""
    key: bool = False
    """Shown beside the objectives wherever a variant is summed up."""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a metric needs a name")
        object.__setattr__(self, "heading", self.heading or derived_heading(self.name))

    @property
    def best(self) -> float | None:
        """No time, size or share is negative."""
        return 0.0 if self.direction == "minimize" and not self.signed else super().best

    @property
    def queries(self) -> int:
        """Fewest timed queries that a study has to ask for; 0 where their number does not decide."""
        return self.source.observations if self.source.series == "latencies" else 0


def derived_heading(name: str) -> str:
    """Title of a metric that brings none: ``dice_mean`` is Dice mean, ``hd95_nerve_px`` is HD95 nerve."""
    words = name.split("_")
    if len(words) > 1 and words[-1] in _UNITS_IN_NAMES:
        words = words[:-1]
    first = _WRITTEN.get(words[0], words[0].capitalize())
    return " ".join([first, *words[1:]])
