"""What a run gives numbers from: its series by name, each checked, or the reason why one is not there.

Every series is checked before it becomes a number: NaN, Inf, zero and negative values raise ``MeasurementError``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np

from edgedeploy.errors import MeasurementError
from edgedeploy.evidence.energy import Energy, energy_of
from edgedeploy.evidence.statistics import (
    Blocks,
    Floats,
    block_medians,
    cpu_per_query,
    pair_ratios,
    require_positive,
)
from edgedeploy.records.artifact import Artifact
from edgedeploy.records.job import RawSide
from edgedeploy.records.measurement import Measurement
from edgedeploy.runtime.scenarios.schedule import Replay

NO_QUERIES: Final = "no timed queries were asked for"
NO_BASELINE: Final = "no baseline ran beside it"


@dataclass(frozen=True)
class Neighbours:
    """Observations that follow one another and are not independent, in blocks that are drawn whole. ``noun`` is one of
    them, in the plural."""

    blocks: Blocks
    noun: str = "observations"

    @cached_property
    def ordered(self) -> Floats:
        """All of them, ascending."""
        return np.sort(np.array([value for block in self.blocks for value in block], dtype=np.float64))


@dataclass(frozen=True)
class Repeats:
    """Independent observations; shape (repeats,)."""

    values: Floats


@dataclass(frozen=True)
class Pairs:
    """A numerator and a denominator each; shape (pairs, 2). ``scale`` brings their ratio to the metric's unit."""

    pairs: Floats
    scale: float = 1.0


@dataclass(frozen=True)
class Course:
    """Values over time, in the metric's unit and unit of time."""

    at: Floats
    values: Floats


Series = Neighbours | Repeats | Pairs | Course | float


@dataclass(frozen=True, eq=False)
class Run:
    """What came back from a board, as far as numbers are made of it. ``power`` is what the agent recorded of the board's
    power, ``scenarios`` the raw series of scenarios, ``images`` the bytes of each case's coded image. A series is read
    once."""

    candidate: RawSide
    baseline: RawSide | None = None
    artifact: Artifact | None = None
    power: Mapping[str, Any] | None = None
    scenarios: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, measurement: Measurement) -> Run:
        power = measurement.environment.get("energy")
        return cls(
            measurement.candidate,
            measurement.baseline,
            measurement.artifact,
            power,
            measurement.scenarios,
            measurement.images,
        )

    def scenario(self, name: str) -> Mapping[str, Any]:
        """The raw series of a scenario. Raises ``MeasurementError`` when the board sent none."""
        if name not in self.scenarios:
            found = "the board sent nothing for it"
            raise MeasurementError(f"measure {name}", found, "Run it again; keep the agent's log")
        raw: Mapping[str, Any] = self.scenarios[name]
        return raw

    @cached_property
    def replay(self) -> Replay:
        """What became of every frame. Raises ``MeasurementError`` unless all of them are accounted for."""
        try:
            return Replay.from_json(self.scenario("realtime"))
        except ValueError as exc:
            raise MeasurementError("measure realtime", str(exc), "The run is void") from exc

    @cached_property
    def latencies(self) -> Neighbours | None:
        blocks = [block for block in self.candidate.blocks_ns if block]
        require_positive([value for block in blocks for value in block], "latency")
        return Neighbours(blocks, "queries") if blocks else None

    @cached_property
    def block_medians(self) -> Floats:
        return block_medians(self.candidate)

    @cached_property
    def cpu_per_query(self) -> Floats:
        return cpu_per_query(self.candidate)


Reader = Callable[[Run], Series | str | None]
"""Gives the series, or the reason why it is not there; None where the metric's own reason says it."""


def _latencies(run: Run) -> Series | None:
    return run.latencies


def _latency_ratios(run: Run) -> Series | str | None:
    """Over adjacent block pairs, which cancels what both sides suffered at the same time."""
    if run.baseline is None:
        return NO_BASELINE
    ratios = pair_ratios(run.block_medians, block_medians(run.baseline))
    return Repeats(ratios) if ratios.size else None


def _cpu_times(run: Run) -> Series | str | None:
    if run.cpu_per_query.size:
        return Repeats(run.cpu_per_query)
    return None if run.candidate.blocks_ns else NO_QUERIES


def _cpu_time_ratios(run: Run) -> Series | str | None:
    if run.baseline is None:
        return NO_BASELINE
    if not run.block_medians.size:
        return NO_QUERIES
    ratios = pair_ratios(run.cpu_per_query, cpu_per_query(run.baseline))
    return Repeats(ratios) if ratios.size else None


def _cold_starts(run: Run) -> Series | None:
    starts = require_positive(run.candidate.cold_starts_ns, "cold start")
    return Repeats(starts) if starts.size else None


def _peak_memory(run: Run) -> Series | str:
    peak_bytes = float(require_positive([run.candidate.peak_memory_bytes], "peak memory")[0])
    return run.candidate.memory_note or peak_bytes


def _size(run: Run) -> Series | None:
    return None if run.artifact is None else float(require_positive([run.artifact.size_bytes], "size")[0])


def _shipped(run: Run) -> Series | None:
    """What goes over the link to a device."""
    if run.artifact is None:
        return None
    return float(require_positive([run.artifact.shipped_bytes or run.artifact.size_bytes], "shipped bytes")[0])


def _decoding(run: Run) -> Series | None:
    """CPU times of decoding packed weights, on the host."""
    if run.artifact is None or not run.artifact.decode_ns:
        return None
    return Repeats(require_positive(run.artifact.decode_ns, "decoding"))


def _image_bytes(run: Run) -> Series | None:
    sizes = require_positive(list(run.images.values()), "size of an image")
    return float(sizes.mean()) if sizes.size else None


def _energy(run: Run) -> Series | str | None:
    if run.power is None:
        return None
    energy = energy_of(run.power, "candidate")
    return energy.energy_j if isinstance(energy, Energy) else energy


RUN_SERIES: Final[Mapping[str, Reader]] = {
    "latencies": _latencies,
    "latency ratios": _latency_ratios,
    "CPU times": _cpu_times,
    "CPU time ratios": _cpu_time_ratios,
    "cold starts": _cold_starts,
    "peak memory": _peak_memory,
    "size": _size,
    "shipped": _shipped,
    "decoding": _decoding,
    "image bytes": _image_bytes,
    "energy": _energy,
}
"""What every run gives, timed or not."""
