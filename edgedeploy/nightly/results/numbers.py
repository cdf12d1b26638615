"""How a series' numbers are put to people: a loss as a share of the baseline, or in the metric's own unit."""

from __future__ import annotations

import math
from typing import Final

from edgedeploy.evidence.quantities import heading
from edgedeploy.records.metric_table import BOARD_METRICS
from edgedeploy.records.night import SeriesVerdict

LARGEST_LOG: Final = 20.0
"""A factor of 500 million, beyond which a loss says the same."""


def is_log_ratio(metric: str) -> bool:
    """Whether a loss is the logarithm of candidate over baseline: of what boards tell. A task's metric is a difference."""
    return metric in BOARD_METRICS


def shown(loss: float, metric: str) -> float:
    """What a person reads: percent for a ratio, the difference itself for a task's metric."""
    if not is_log_ratio(metric):
        return loss
    return 100.0 * math.expm1(max(-LARGEST_LOG, min(LARGEST_LOG, loss)))


def unit(metric: str) -> str:
    return "%" if is_log_ratio(metric) else ""


def loss_text(loss: float | None, metric: str) -> str:
    """``+12.3 %``: worse than the baseline; ``-0.004``: better. A dash for a loss that is not there."""
    if loss is None:
        return "\N{EN DASH}"
    value = shown(loss, metric)
    return f"{value:+.1f} %" if is_log_ratio(metric) else f"{value:+.4f}"


def numbers_text(series: SeriesVerdict) -> str:
    """All that is known of a series tonight, a line each."""
    named = (("against the baseline", series.loss), ("limit", series.limit), ("reference", series.reference))
    lines = [f"{heading(series.metric)}: {series.status}, {series.reason}"]
    lines += [f"{name}: {loss_text(value, series.metric)}" for name, value in named if value is not None]
    lines += [f"{name}: {value:.4g}" for name, value in (("spread", series.spread), ("drift", series.drift)) if value]
    return "\n".join([*lines, f"sessions: {series.sessions}", f"nights in the history: {series.nights}"])
