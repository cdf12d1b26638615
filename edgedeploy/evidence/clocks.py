"""Numbers of a board whose clock is not a board's: what it may say is kept, and each time says why it is not there."""

from __future__ import annotations

from edgedeploy.artifact import Artifact
from edgedeploy.evidence.statistics import board_metrics
from edgedeploy.measurement import Clock, RawSide, not_told_by


def emulated_metrics(candidate: RawSide, artifact: Artifact, clock: Clock) -> tuple[dict[str, float], dict[str, str]]:
    """As :func:`board_metrics`, for a clock that is not ``wall``.

    On a virtual clock the process's CPU time is its instruction count: time that the server or the kernel took between
    is not in it, which a reading of the clock itself would have.
    """
    metrics, missing = board_metrics(candidate, None, artifact)
    if clock == "virtual" and "cpu_time_ns" in metrics:
        metrics["virtual_ns"] = metrics["cpu_time_ns"]
        del missing["virtual_ns"]
    reasons = not_told_by(clock)
    missing |= reasons
    return {name: value for name, value in metrics.items() if name not in reasons}, missing
