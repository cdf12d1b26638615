"""What a board is asked to measure, what it says, and what is kept of it.

Nothing here runs anything: these are the frozen nouns that travel between the floors. All times are integer
nanoseconds of a monotonic clock, all sizes bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from edgedeploy.artifact import Artifact
from edgedeploy.variant import Variant
from edgedeploy.weightbits import WeightBits

Provenance = Literal["measured", "emulated", "predicted", "bound"]
Direction = Literal["minimize", "maximize"]
Clock = Literal["wall", "virtual", "none"]
"""What a board's times are: real; a count of instructions, 1 ns each; or an emulator's pace, of which no number is made."""

SCHEMA_VERSION: Final = 1

QUERIES_FOR_PERCENTILE: Final[Mapping[float, int]] = {50: 1, 90: 64, 99: 662, 99.9: 6636}
"""Fewest queries before a percentile may be stated at 99 % confidence (MLPerf LoadGen's early-stopping bound, which
``runtime/scenarios/earlystopping.py`` computes). The median is stated from the first query on."""


@dataclass(frozen=True)
class MetricInfo:
    """What a metric is: its better direction, its unit (``ns``, ``bytes``, ``px``, ``1``) and one line for people."""

    direction: Direction
    unit: str
    text: str


RUN_METRICS: Final[Mapping[str, MetricInfo]] = {
    "latency_p50_ns": MetricInfo("minimize", "ns", "median steady latency of one inference"),
    "latency_p90_ns": MetricInfo("minimize", "ns", "90th percentile of the steady latency (64 queries or more)"),
    "latency_p99_ns": MetricInfo("minimize", "ns", "99th percentile of the steady latency (662 queries or more)"),
    "latency_ratio": MetricInfo("minimize", "1", "median latency over the baseline's, interleaved in one session"),
    "cpu_time_ns": MetricInfo("minimize", "ns", "CPU time of all threads per inference"),
    "cpu_time_ratio": MetricInfo("minimize", "1", "CPU time over the baseline's, interleaved in one session"),
    "cold_start_ns": MetricInfo("minimize", "ns", "process start to first output, median of the repeats"),
    "peak_memory_bytes": MetricInfo("minimize", "bytes", "peak resident memory of the process that runs it"),
    "virtual_ns": MetricInfo("minimize", "ns", "instructions of one inference, 1 ns each (emulated; no board's time)"),
    "size_bytes": MetricInfo("minimize", "bytes", "size of the artifact's files"),
    "energy_j": MetricInfo("minimize", "J", "energy of one inference (null without a sensor)"),
}
"""Metrics that every board measurement produces; a task adds its own accuracy metrics."""

PROTOCOL_METRICS: Final[Mapping[str, Mapping[str, MetricInfo]]] = {
    "single_stream": {
        "latency_p999_ns": MetricInfo(
            "minimize", "ns", "99.9th percentile of the steady latency (6636 queries or more)"
        ),
        "latency_max_ns": MetricInfo("minimize", "ns", "slowest steady query that was seen"),
        "latency_p90_bound_ns": MetricInfo("minimize", "ns", "90 % of queries are no slower, at 99 % confidence"),
        "latency_p99_bound_ns": MetricInfo("minimize", "ns", "99 % of queries are no slower, at 99 % confidence"),
        "latency_p999_bound_ns": MetricInfo("minimize", "ns", "99.9 % of queries are no slower, at 99 % confidence"),
    },
    "sustained": {
        "sustained_latency_p50_ns": MetricInfo("minimize", "ns", "median of the windows' median latencies"),
        "sustained_slope_percent_per_min": MetricInfo("minimize", "%/min", "growth of the windows' median latency"),
        "sustained_slowdown_ratio": MetricInfo("minimize", "1", "median latency of the last fifth over the first"),
        "sustained_temperature_rise_c": MetricInfo(
            "minimize", "C", "largest rise of a thermal zone from first to last"
        ),
    },
    "realtime": {
        "realtime_deadline_miss_percent": MetricInfo("minimize", "percent", "frames without a result in time"),
        "realtime_drop_percent": MetricInfo("minimize", "percent", "frames that were dropped for newer ones"),
        "realtime_result_age_p50_ns": MetricInfo("minimize", "ns", "median age of a frame when its result is ready"),
        "realtime_result_age_p99_ns": MetricInfo("minimize", "ns", "99th percentile of the age (662 results or more)"),
        "realtime_result_age_max_ns": MetricInfo("minimize", "ns", "oldest frame when its result was ready"),
        "realtime_shown_age_mean_ns": MetricInfo("minimize", "ns", "age of the newest result, mean over time"),
        "realtime_jitter_ns": MetricInfo("minimize", "ns", "mean change of the age from one result to the next"),
        "realtime_decode_ns": MetricInfo("minimize", "ns", "median time to decode a frame"),
        "realtime_resize_ns": MetricInfo("minimize", "ns", "median time to resize a frame"),
        "realtime_inference_ns": MetricInfo("minimize", "ns", "median time of the inference between arrivals"),
        "realtime_overlay_ns": MetricInfo("minimize", "ns", "median time to draw the result on the frame"),
    },
    "multi_stream": {
        "multi_stream_streams": MetricInfo("maximize", "streams", "most streams that hold the deadline together"),
    },
    "offline": {
        "offline_throughput_per_s": MetricInfo(
            "maximize", "/s", "inferences a second when all samples are there at once"
        ),
    },
    "resources": {
        "resources_memory_area_byte_s": MetricInfo(
            "minimize", "B*s", "area under the curve of resident memory of a run"
        ),
        "resources_cpu_area_core_s": MetricInfo("minimize", "s", "area under the curve of cores in use: CPU seconds"),
        "resources_duration_ns": MetricInfo("minimize", "ns", "whole run: process start, load and all inferences"),
    },
}
"""What each measuring protocol adds when a study names it in ``[measure] protocols``."""

ACROSS_BOARDS: Final = frozenset({"latency_ratio", "cpu_time_ratio", "size_bytes"})
"""Board metrics that compare across boards of one kind: the baseline ran interleaved on the same board, or nothing ran."""

BOARD_METRICS: Final[Mapping[str, MetricInfo]] = {
    **RUN_METRICS,
    **{name: info for table in PROTOCOL_METRICS.values() for name, info in table.items()},
}
"""Every metric that a board can produce, asked for or not: what is not here belongs to the task."""

TIMES: Final = (
    *("latency_p50_ns", "latency_p90_ns", "latency_p99_ns", "latency_ratio"),
    *("cpu_time_ns", "cpu_time_ratio", "cold_start_ns"),
)


def not_told_by(clock: Clock) -> dict[str, str]:
    """The metrics that a board with this clock cannot give, each with the reason."""
    if clock == "wall":
        return {"virtual_ns": 'instructions are counted by an emulated board alone (machine = "arm64-system")'}
    if clock == "virtual":
        return dict.fromkeys(TIMES, "an emulated processor counts instructions (virtual_ns); that is no board's time")
    reason = "the pace and the memory of an instruction emulator are no board's"
    return dict.fromkeys((*TIMES, "peak_memory_bytes", "virtual_ns"), reason)


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


@dataclass(frozen=True)
class BoardInfo:
    """Identity and abilities of a board as its probe found them.

    ``identity`` names the physical machine (a digest of its machine id); ``boot_id`` the boot; ``runtimes`` maps target
    name to runtime version; ``isa`` the instruction sets that matter here (``avx2``, ``avx512_vnni``, ``amx_int8`` ...),
    ``isa_known`` those that its probe looked for (empty in records of probes that did not say).
    ``accelerators`` are what it has beside its CPU (``GPU ...``, ``DLA ...``, ``NPU ...``), used or not.
    ``power_modes`` maps the modes that may be asked for to what sets them (``governor``, ``nvpmodel``).
    """

    name: str
    provenance: Provenance
    identity: str
    boot_id: str
    cpu: str
    arch: str
    isa: tuple[str, ...]
    cores: int
    memory_bytes: int
    os: str
    python: str
    runtimes: Mapping[str, str]
    governor: str | None
    notes: tuple[str, ...] = ()
    clock: Clock = "wall"
    power_modes: Mapping[str, str] = field(default_factory=dict)
    serial: str = ""
    image: str = ""
    accelerators: tuple[str, ...] = ()
    isa_known: tuple[str, ...] = ()

    def unlike(self, other: BoardInfo) -> tuple[str, ...]:
        """In what this board is of another kind than ``other``: numbers of boards of one kind may stand on one front."""
        return (*self.other_hardware(other), *self.other_software(other))

    def other_hardware(self, other: BoardInfo) -> tuple[str, ...]:
        rest = self._others(other, ("provenance", "clock", "cores", "accelerators"))
        return (*self.other_processor(other), *rest)

    def other_processor(self, other: BoardInfo) -> tuple[str, ...]:
        """Which flags it has decides which kernels its runtimes take, and so what they compute."""
        return (*self._others(other, ("cpu", "arch")), *self._other_flags(other))

    def other_software(self, other: BoardInfo) -> tuple[str, ...]:
        return self._others(other, ("image", "python", "runtimes", "governor"))

    def _others(self, other: BoardInfo, names: tuple[str, ...]) -> tuple[str, ...]:
        found = [name for name in names if getattr(self, name) != getattr(other, name)]
        return tuple(f"{name} {getattr(self, name)!r}, not {getattr(other, name)!r}" for name in found)

    def _other_flags(self, other: BoardInfo) -> tuple[str, ...]:
        """Only flags that both probes looked for tell two processors apart. One that did not say looked for those it has."""
        ours, theirs = set(self.isa), set(other.isa)
        if self.isa_known or other.isa_known:
            both = set(self.isa_known or self.isa) & set(other.isa_known or other.isa)
            ours, theirs = ours & both, theirs & both
        apart = (("without", theirs - ours), ("with", ours - theirs))
        words = [f"{word} {', '.join(sorted(flags))}" for word, flags in apart if flags]
        return (f"CPU flags {' and '.join(words)}",) if words else ()

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "clock": self.clock,
            "provenance": self.provenance,
            "identity": self.identity,
            "boot_id": self.boot_id,
            "cpu": self.cpu,
            "arch": self.arch,
            "isa": list(self.isa),
            "isa_known": list(self.isa_known),
            "cores": self.cores,
            "memory_bytes": self.memory_bytes,
            "os": self.os,
            "python": self.python,
            "runtimes": dict(self.runtimes),
            "governor": self.governor,
            "notes": list(self.notes),
            "power_modes": dict(self.power_modes),
            "serial": self.serial,
            "image": self.image,
            "accelerators": list(self.accelerators),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BoardInfo:
        values = dict(data)
        values["isa"] = tuple(values["isa"])
        for name in ("notes", "accelerators", "isa_known"):
            values[name] = tuple(values.get(name, ()))
        return cls(**values)


@dataclass(frozen=True)
class Measurement:
    """The evidence for one variant on one board: enough to rebuild every number of the report.

    ``metrics`` holds finite numbers only; a metric that could not be had is in ``missing`` with its reason. ``cases``
    maps case id to the task's metrics for that case (None where the task's rule says undefined). ``valid`` is False for
    a run whose conditions drifted; ``cause`` says how. ``protocols`` holds the raw series of the measuring protocols,
    ``layers`` what ran where and how long on each side (``evidence/layers.py``).
    """

    variant: Variant
    artifact: Artifact
    board: BoardInfo
    provenance: Provenance
    split: str
    valid: bool
    cause: str | None
    metrics: Mapping[str, float]
    missing: Mapping[str, str]
    cases: Mapping[str, Mapping[str, float | None]]
    candidate: RawSide
    baseline: RawSide | None
    baseline_variant: str | None
    environment: Mapping[str, Any]
    parity: Mapping[str, float]
    phases_ns: Mapping[str, int]
    notes: tuple[str, ...] = ()
    created_utc: str = ""
    protocols: Mapping[str, Any] = field(default_factory=dict)
    layers: Mapping[str, Any] = field(default_factory=dict)
    weight_bits: WeightBits | None = None
    schema: int = field(default=SCHEMA_VERSION)

    def __post_init__(self) -> None:
        for name, value in self.metrics.items():
            if not math.isfinite(value):
                raise ValueError(f"metric {name} is {value}: a measurement holds finite numbers only")

    @property
    def digest(self) -> str:
        return self.variant.digest

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": self.schema,
            "variant": self.variant.as_json(),
            "variant_digest": self.variant.digest,
            "artifact": self.artifact.as_json(),
            "board": self.board.as_json(),
            "provenance": self.provenance,
            "split": self.split,
            "valid": self.valid,
            "cause": self.cause,
            "metrics": dict(self.metrics),
            "missing": dict(self.missing),
            "cases": {case: dict(values) for case, values in self.cases.items()},
            "candidate": self.candidate.as_json(),
            "baseline": self.baseline.as_json() if self.baseline else None,
            "baseline_variant": self.baseline_variant,
            "environment": dict(self.environment),
            "parity": dict(self.parity),
            "phases_ns": dict(self.phases_ns),
            "notes": list(self.notes),
            "created_utc": self.created_utc,
            "protocols": dict(self.protocols),
            "layers": dict(self.layers),
            "weight_bits": self.weight_bits.as_json() if self.weight_bits else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measurement:
        """Raises ``ValueError`` for a schema this version does not know."""
        if data["schema"] != SCHEMA_VERSION:
            raise ValueError(f"measurement schema {data['schema']!r}, this version reads {SCHEMA_VERSION}")
        return cls(
            variant=Variant.from_json(data["variant"]),
            artifact=Artifact.from_json(data["artifact"]),
            board=BoardInfo.from_json(data["board"]),
            provenance=data["provenance"],
            split=str(data["split"]),
            valid=bool(data["valid"]),
            cause=data["cause"],
            metrics=dict(data["metrics"]),
            missing=dict(data["missing"]),
            cases={case: dict(values) for case, values in data["cases"].items()},
            candidate=RawSide.from_json(data["candidate"]),
            baseline=RawSide.from_json(data["baseline"]) if data["baseline"] else None,
            baseline_variant=data["baseline_variant"],
            environment=dict(data["environment"]),
            parity=dict(data["parity"]),
            phases_ns={str(k): int(v) for k, v in data["phases_ns"].items()},
            notes=tuple(data["notes"]),
            created_utc=str(data["created_utc"]),
            protocols=dict(data.get("protocols", {})),
            layers=dict(data.get("layers", {})),
            weight_bits=WeightBits.from_json(data["weight_bits"]) if data.get("weight_bits") else None,
        )


@dataclass(frozen=True)
class Failure:
    """A variant that gave no number, and why. ``kind`` is the error's class name, ``phase`` where it happened.

    Only failures that are data about the variant are kept here; a board that went away is not one of them.
    """

    variant: Variant
    kind: str
    phase: str
    message: str
    created_utc: str
    schema: int = field(default=SCHEMA_VERSION)

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": self.schema,
            "variant": self.variant.as_json(),
            "variant_digest": self.variant.digest,
            "kind": self.kind,
            "phase": self.phase,
            "message": self.message,
            "created_utc": self.created_utc,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Failure:
        return cls(
            variant=Variant.from_json(data["variant"]),
            kind=str(data["kind"]),
            phase=str(data["phase"]),
            message=str(data["message"]),
            created_utc=str(data["created_utc"]),
        )
