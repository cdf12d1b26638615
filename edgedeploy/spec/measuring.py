"""``[measure]``: how long and how often a board is timed, and when a run counts as disturbed."""

from __future__ import annotations

from pydantic import Field

from edgedeploy.records.job import MeasurePlan
from edgedeploy.records.metrics import QUERIES_FOR_PERCENTILE
from edgedeploy.spec.scenarios import Scenarios, Seconds


class MeasureTable(Scenarios):
    """How a board is timed, and when a run counts as disturbed."""

    queries: int = Field(default=MeasurePlan.queries, ge=8, le=1_000_000)
    """Timed inferences of each variant, in interleaved blocks with as many of the baseline. A 90th percentile needs 64, a
    99th 662, a 99.9th 6636."""
    warmup: int = Field(default=MeasurePlan.warmup, ge=0, le=10_000)
    """Inferences before the timing."""
    block: int = Field(default=MeasurePlan.block, ge=1, le=1000)
    """Inferences of one side before the other side has its turn."""
    cold_starts: int = Field(default=MeasurePlan.cold_starts, ge=0, le=100)
    """How often the first inference after a fresh start is timed."""
    time_limit: Seconds = Field(default=MeasurePlan.time_limit_s, gt=0)
    """A run that takes longer is stuck, which is a failure of the variant."""
    retries: int = Field(default=2, ge=0, le=10)
    """How often an invalid run is repeated before it is kept as invalid."""
    max_drift: float = Field(default=0.25, gt=0)
    """A run is invalid when the baseline's median latency differs between its first and its second half by more than this
    share."""
    max_spread: float = Field(default=0.35, gt=0)
    """A run is invalid when the baseline's blocks scatter by more than this share of their median."""
    max_background_cores: float = Field(default=0.5, gt=0)
    """A run is invalid when other processes of the board use more cores than this. Raise it on a machine that is never
    idle: the baseline beside each variant is disturbed as the variant is, and intervals become wider."""
    max_heating_c: float = Field(default=15.0, gt=0)
    """A run is invalid when the board gets warmer by more degrees Celsius than this."""
    max_clock_drift: float = Field(default=0.15, gt=0)
    """A run is invalid when the CPU's clock changes by more than this share of its first value."""
    cool_down: Seconds = Field(default=60.0, ge=0)
    """How long a board may cool down to its temperature before the first run, before an invalid run is repeated."""

    @property
    def timed_queries(self) -> int:
        """``queries``, or more if the percentile of the single stream needs more."""
        if "single_stream" not in self.scenarios:
            return self.queries
        return max(self.queries, QUERIES_FOR_PERCENTILE[self.single_stream.percentile])
