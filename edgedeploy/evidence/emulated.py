"""Numbers of a board whose clock is not a board's: what it may say is kept, and each time says why it is not there."""

from __future__ import annotations

from edgedeploy.evidence.statistics import board_metrics, cpu_per_query
from edgedeploy.records.artifact import Artifact
from edgedeploy.records.job import RawSide
from edgedeploy.records.metrics import Clock, not_told_by


def emulated_metrics(candidate: RawSide, artifact: Artifact, clock: Clock) -> tuple[dict[str, float], dict[str, str]]:
    """As :func:`board_metrics`, for a clock that is not ``wall``.

    On a virtual clock the process's CPU time is its instruction count: time that the server or the kernel took between
    is not in it, which a reading of the clock itself would have. Of the blocks the smallest counts: interrupts within a
    block add to its count, nothing takes from it, and how many fall into a block differs from boot to boot.
    """
    metrics, missing = board_metrics(candidate, None, artifact)
    counts = cpu_per_query(candidate)
    if clock == "virtual" and counts.size:
        metrics["virtual_ns"] = float(counts.min())
        del missing["virtual_ns"]
    reasons = not_told_by(clock)
    missing |= reasons
    return {name: value for name, value in metrics.items() if name not in reasons}, missing
