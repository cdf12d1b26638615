"""What a study wants shown before a variant may be shipped: stated in its file, before anything is measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Final

from pydantic import Field, field_validator

from edgedeploy.records.metric_table import BOARD_METRICS
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.spec.metric_checks import check_margin, known_metric
from edgedeploy.spec.scenarios import Table
from edgedeploy.spec.source import SpecSource

NotNegative = Annotated[float, Field(ge=0, strict=True)]  # true is no number
PerMetric = NotNegative | str | dict[str, NotNegative | str]

MARGIN: Final = "evidence.margin"
LOST_CASE: Final = "evidence.lost_case"
OLDER_MARGIN: Final = "pick.non_inferiority_margin"


class EvidenceTable(Table):
    """What has to be shown of a variant before it may be shipped in the baseline's place."""

    margin: PerMetric | None = None
    """What a variant may lose against the float baseline: a number or a quantity for the first objective of the task,
    or a table metric = margin, each of which has to be shown. Nothing stated, no verdict."""
    lost_case: PerMetric | None = None
    """A case that loses more than this against the baseline counts as lost: a number or a quantity in the unit of the
    first metric of `margin`, or a table with one metric of cases. Ten margins when left out."""
    lost_share: float | None = Field(default=None, gt=0, lt=1)
    """Share of all cases that may be lost: the exact upper bound has to be no larger. When left out, none of the
    measured cases may be lost."""

    @field_validator("margin", "lost_case")
    @classmethod
    def _names_some(cls, value: PerMetric | None) -> PerMetric | None:
        if isinstance(value, dict) and not value:
            raise ValueError('expected a number, a quantity such as "0.5 px", or metric = margin')
        return value

    @field_validator("lost_case")
    @classmethod
    def _one_metric(cls, value: PerMetric | None) -> PerMetric | None:
        if isinstance(value, dict) and len(value) > 1:
            raise ValueError(f"one metric says which cases are lost, but got {', '.join(value)}")
        return value

    def margins(self, older: float | str | None, first: str | None) -> dict[str, float | str]:
        """Metric to what it may lose, as written. ``first`` is the first objective of the task; ``older`` is what
        `[pick] non_inferiority_margin` says, which counts only where `[evidence] margin` says nothing."""
        stated = older if self.margin is None else self.margin
        if isinstance(stated, Mapping):
            return dict(stated)
        return {} if stated is None or first is None else {first: stated}

    def lost_cases(self, first: str | None) -> dict[str, float | str]:
        """The metric by which cases are lost and by how much, as written; empty when nothing is."""
        if isinstance(self.lost_case, Mapping):
            return dict(self.lost_case)
        return {} if self.lost_case is None or first is None else {first: self.lost_case}


def check_evidence(
    source: SpecSource,
    table: EvidenceTable,
    older: float | str | None,
    first: str | None,
    metrics: Mapping[str, MetricInfo],
) -> None:
    """Hold ``table`` and the ``older`` margin against the metrics that there are. ``first`` is the first objective of
    the task, None where all of them are costs."""
    key = OLDER_MARGIN if table.margin is None else MARGIN
    stated = table.margins(older, first)
    lost = table.lost_cases(next(iter(stated), first))
    for place, metric, value in (*_placed(key, table.margin, stated), *_placed(LOST_CASE, table.lost_case, lost)):
        info = known_metric(source, place, metric, metrics)
        if metric in BOARD_METRICS:
            found = f"{metric} is measured on the board, and a margin is of a metric of the task"
            raise source.error(place, found, "Write a limit into [[constraints]]")
        check_margin(source, place, value, info.unit, metric)
    if older is not None and isinstance(older, str) and table.margin is not None and first is not None:
        check_margin(source, OLDER_MARGIN, older, metrics[first].unit, first)


def _placed(
    key: str, written: PerMetric | None, stated: Mapping[str, float | str]
) -> Iterator[tuple[str, str, float | str]]:
    """The key that each value stands at, its metric, and the value."""
    for metric, value in stated.items():
        yield f"{key}.{metric}" if isinstance(written, Mapping) else key, metric, value
