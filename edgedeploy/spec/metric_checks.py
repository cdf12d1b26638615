"""What a study file says of metrics, held against the metrics that there are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import get_args

from edgedeploy.errors import SpecError, nearest
from edgedeploy.records.metric_table import BOARD_METRICS, OF_PACKED, SCENARIO_METRICS
from edgedeploy.records.metrics import Direction, MetricInfo
from edgedeploy.records.units import parse_quantity
from edgedeploy.spec.source import SpecSource


def check_task_metrics(metrics: Mapping[str, MetricInfo]) -> None:
    """A task's metric of a board metric's name would stand where the measured number belongs."""
    for name, info in metrics.items():
        asked = f"metric {name!r} of the task"
        if name in BOARD_METRICS:
            raise SpecError(asked, "a board gives a metric of that name", "Give the task's metric another name")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
            raise SpecError(asked, "it is no name", "Use letters, digits and underscores, such as dice_mean")
        if info.direction not in get_args(Direction):
            found = f"its direction is {info.direction!r}"
            raise SpecError(asked, found, f"Use {' or '.join(map(repr, get_args(Direction)))}")


def check_margin(source: SpecSource, key: str, value: float | str, unit: str, metric: str) -> None:
    """A text has to be a quantity in the metric's unit, and not below zero."""
    if not isinstance(value, str):
        return
    try:
        number = parse_quantity(value, unit)
    except ValueError as exc:
        raise source.error(key, f"{metric}: {exc}") from None
    if number < 0:
        raise source.error(key, f"{metric}: expected a quantity of 0 or more, but got {value!r}")


def known_metric(source: SpecSource, key: str, name: str, table: Mapping[str, MetricInfo]) -> MetricInfo:
    if name in SCENARIO_METRICS[OF_PACKED]:
        found = f"{name} is of packed weights alone, and the baseline's are shipped as they are"
        raise source.error(key, found, "Read it in the report, and choose another metric, such as shipped_bytes")
    if name not in table:
        if name in BOARD_METRICS:
            remedy = f"Add {BOARD_METRICS[name].scenario!r} to scenarios in [measure], and its table if it needs one"
            raise source.error(key, f"{name} comes from a scenario that is not asked for", remedy)
        raise source.error(key, f"nobody produces a metric named {name!r}", nearest(name, table))
    return table[name]
