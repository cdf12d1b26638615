"""What the baseline gave in a variant's own run, block by block between the variant's.

Only these numbers of a baseline may stand beside a variant's times: the baseline's own measurement was another session, in
which the board may have been twice as slow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgedeploy.evidence.metrics import read
from edgedeploy.evidence.series import Run
from edgedeploy.records.job import RawSide
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metric_table import RUN_METRICS


def baseline_beside(item: Measurement) -> dict[str, float]:
    """Metric to value of the baseline in this run, in base units, for what the variant has a value of too.

    Empty when nothing ran beside it, or when it is that baseline itself. Sizes are not in it: they belong to a file and to
    no run. Raises ``MeasurementError`` for values that no clock can give.
    """
    if item.baseline is None or item.digest == item.baseline_variant:
        return {}
    run = run_of_baseline(item.baseline, item.environment)
    found = {}
    for name, row in RUN_METRICS.items():
        if row.relative or name not in item.metrics:
            continue
        sample = read(row, run)
        if not isinstance(sample, str):
            found[name] = sample.value
    return found


def run_of_baseline(baseline: RawSide, environment: Mapping[str, Any]) -> Run:
    """The baseline's side of a run, as metrics of boards are read from it. ``environment`` is the run's."""
    return Run(baseline, power=_of_baseline(environment.get("energy")))


def _of_baseline(power: Any) -> Any:
    """The power series as if the baseline were the candidate, whose energy is read."""
    if not isinstance(power, Mapping) or "stretches" not in power:
        return power
    other = {"baseline": "candidate", "candidate": "baseline"}
    return {
        **power,
        "stretches": [{**part, "side": other.get(part["side"], part["side"])} for part in power["stretches"]],
    }
