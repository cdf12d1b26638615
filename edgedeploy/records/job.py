"""What a board is asked to run, and the raw series that come back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgedeploy.records.artifact import Artifact


@dataclass(frozen=True)
class Payload:
    """One artifact's folder with the inputs it is run on.

    ``inputs`` is an ``.npz`` of one array per model input, stacked along a new first axis: shape (cases, \\*input shape).
    """

    artifact: Artifact
    folder: Path
    inputs: Path
    threads: int


@dataclass(frozen=True)
class ProtocolPlan:
    """A measuring protocol to run on the board. ``settings`` are what the agent's class of that name takes; a run longer
    than ``limit_s`` is stuck, and a failure of the variant."""

    name: str
    settings: Mapping[str, Any]
    limit_s: float


@dataclass(frozen=True)
class MeasurePlan:
    """How to measure. ``queries`` 0 skips timing (outputs only); ``cold_starts`` 0 skips cold start.

    Timing alternates candidate and baseline in ABBA order, ``block`` timed queries at a time after one untimed query,
    until each has at least ``queries``. ``time_limit_s`` bounds the whole job on the board, its ``protocols`` included,
    which run on the candidate alone. ``cool_to_c`` lets the board cool down to that temperature first, for at most
    ``cool_down_s``. ``power_mode`` pairs what is set (``governor``, ``nvpmodel``) with its value, for both sides alike.
    ``profile_runs`` inferences of each side are profiled layer by layer at the end, apart from everything that is timed.
    """

    queries: int = 662
    warmup: int = 10
    block: int = 8
    cold_starts: int = 3
    collect_outputs: bool = True
    time_limit_s: float = 900.0
    protocols: tuple[ProtocolPlan, ...] = ()
    cool_to_c: float | None = None
    cool_down_s: float = 0.0
    power_mode: tuple[tuple[str, str], ...] = ()
    profile_runs: int = 0


@dataclass(frozen=True)
class Job:
    """One exclusive run on a board: a candidate, and the baseline it is interleaved with (None: nothing to compare)."""

    candidate: Payload
    baseline: Payload | None
    plan: MeasurePlan


@dataclass(frozen=True)
class RawSide:
    """Raw series of one side of a run. ``blocks_ns`` holds the timed queries block by block, in the order they ran;
    ``cpu_ns`` the process CPU time of each block (all threads); ``executed`` counts layers by the precision that ran;
    ``memory_note`` says what ``peak_memory_bytes`` leaves out, empty for nothing."""

    blocks_ns: tuple[tuple[int, ...], ...]
    cpu_ns: tuple[int, ...]
    cold_starts_ns: tuple[int, ...]
    peak_memory_bytes: int
    executed: Mapping[str, int]
    device: str
    runtime_version: str
    memory_note: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "blocks_ns": [list(block) for block in self.blocks_ns],
            "cpu_ns": list(self.cpu_ns),
            "cold_starts_ns": list(self.cold_starts_ns),
            "peak_memory_bytes": self.peak_memory_bytes,
            "executed": dict(self.executed),
            "device": self.device,
            "runtime_version": self.runtime_version,
            "memory_note": self.memory_note,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RawSide:
        return cls(
            blocks_ns=tuple(tuple(int(n) for n in block) for block in data["blocks_ns"]),
            cpu_ns=tuple(int(n) for n in data["cpu_ns"]),
            cold_starts_ns=tuple(int(n) for n in data["cold_starts_ns"]),
            peak_memory_bytes=int(data["peak_memory_bytes"]),
            executed={str(k): int(v) for k, v in data["executed"].items()},
            device=str(data["device"]),
            runtime_version=str(data["runtime_version"]),
            memory_note=str(data.get("memory_note", "")),
        )


@dataclass(frozen=True)
class RawRun:
    """What came back from a board for one :class:`Job`.

    ``environment`` holds the agent's ``before`` and ``after`` snapshots and its ``background_cpu_share``; ``outputs`` is
    an ``.npz`` in this host's file system (output name -> array (cases, \\*output shape)) or None; ``phases_ns`` says
    where the time went: ``upload``, ``run``, ``collect``, ``wait``. ``protocols`` maps each protocol to its raw series,
    ``layers`` each side to its profile.
    """

    candidate: RawSide
    baseline: RawSide | None
    environment: Mapping[str, Any]
    outputs: Path | None
    phases_ns: Mapping[str, int]
    protocols: Mapping[str, Any] = field(default_factory=dict)
    layers: Mapping[str, Any] = field(default_factory=dict)
