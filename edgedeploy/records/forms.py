"""The forms of what a board tells as plain JSON: its conditions, its power, its layers, and the series of scenarios.

:func:`edgedeploy.runtime.wire.serde.from_json` holds data to them, with ``kept``: a board may tell more than is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class StretchForm:
    side: str
    start_ns: int
    end_ns: int
    queries: int


@dataclass(frozen=True)
class PowerForm:
    source: str
    scope: str
    kind: Literal["power", "energy"]
    samples: tuple[tuple[float, float], ...]
    waits: tuple[tuple[float, float], ...]
    stretches: tuple[StretchForm, ...]


@dataclass(frozen=True)
class EnvironmentForm:
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    during: Mapping[str, Any] | None = None
    energy: Mapping[str, Any] | None = None
    background_cpu_share: float | None = None


@dataclass(frozen=True)
class SnapshotForm:
    """Conditions at one moment, as far as they are judged."""

    governor: str | None = None
    power_mode: str | None = None
    temperatures_c: Mapping[str, float] | None = None
    throttle_events: Mapping[str, int] | None = None


@dataclass(frozen=True)
class DuringForm:
    """Conditions between the blocks."""

    at_ns: tuple[int, ...]
    hottest_c: tuple[float, ...] = ()
    cpu_mhz: tuple[float, ...] = ()
    throttling: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadedForm:
    """Conditions around the scenarios."""

    background_cpu_share: float | None = None
    after: SnapshotForm | None = None


@dataclass(frozen=True)
class RanLayerForm:
    """A layer as its runtime names it; ``sources`` are names of what it was fused from."""

    name: str
    operator: str
    kernel: str
    device: str
    sources: tuple[str, ...]
    ns: int


@dataclass(frozen=True)
class RanProfileForm:
    layers: tuple[RanLayerForm, ...] | None = None
    missing: str | None = None
    runs: int = 0


# -- scenarios


@dataclass(frozen=True)
class WindowForm:
    start_ns: int
    queries: int
    p50_ns: int
    p90_ns: int
    max_ns: int


@dataclass(frozen=True)
class SustainedForm:
    windows: tuple[WindowForm, ...]
    conditions: tuple[SnapshotForm, ...]


@dataclass(frozen=True)
class CodedForm:
    """What the board decoded: ``bytes`` of each of ``frames`` images, by ``codec`` (empty: they are not coded)."""

    codec: str
    frames: int
    bytes: tuple[int, ...]
    largest_difference: int
    decoder: str


@dataclass(frozen=True)
class RealtimeForm:
    arrivals_ns: tuple[int, ...]
    deadline_ns: int
    processed: tuple[tuple[int, int, int], ...]
    dropped: tuple[tuple[int, int], ...]
    pending: tuple[int, ...]
    blocked: int
    stages_ns: Mapping[str, tuple[int, ...]]
    coded: CodedForm | None = None


@dataclass(frozen=True)
class LevelForm:
    streams: int
    held: bool
    late: int
    latencies_ns: tuple[int, ...]


@dataclass(frozen=True)
class MultiStreamForm:
    streams: int
    most: int
    levels: tuple[LevelForm, ...]


@dataclass(frozen=True)
class OfflineForm:
    samples: tuple[int, ...]
    elapsed_ns: tuple[int, ...]


@dataclass(frozen=True)
class CurvesForm:
    at_ns: tuple[int, ...]
    resident_bytes: tuple[int, ...]
    cpu_ns: tuple[int, ...]


@dataclass(frozen=True)
class ResourcesForm:
    runs: tuple[CurvesForm, ...]


@dataclass(frozen=True)
class CaseCurvesForm(CurvesForm):
    failed: str


@dataclass(frozen=True)
class FlareForm:
    limit_ns: int
    runs: tuple[CaseCurvesForm, ...]


@dataclass(frozen=True)
class LoadForm:
    users: int
    sent: int
    held: bool
    late: int
    batches: int
    shed: tuple[int, ...]
    pending: tuple[int, ...]
    latencies_ns: tuple[int, ...]


@dataclass(frozen=True)
class ServiceForm:
    """Service times of batches of that size while so many instances were busy."""

    batch: int
    busy: int
    ns: tuple[int, ...]


@dataclass(frozen=True)
class RulesForm:
    max_batch: int
    max_wait_ns: int
    capacity: int
    instances: int


@dataclass(frozen=True)
class ServerForm:
    users: int
    cut: bool
    levels: tuple[LoadForm, ...]
    at: LoadForm | None
    services: tuple[ServiceForm, ...]
    rested: tuple[ServiceForm, ...]
    wakes_ns: tuple[int, ...]
    gaps: tuple[int, ...]
    every_ns: int
    deadline_ns: int
    percent: float
    most: int
    rules: RulesForm
