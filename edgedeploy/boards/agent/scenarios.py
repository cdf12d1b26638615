"""What the series of each scenario can be, by the settings that the board was sent.

Each check raises ``ValueError``, whose text begins with the field, and returns the time that the series cover in ns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from edgedeploy.records.forms import (
    CurvesForm,
    FlareForm,
    LoadForm,
    MultiStreamForm,
    OfflineForm,
    RealtimeForm,
    ResourcesForm,
    ServerForm,
    SustainedForm,
)
from edgedeploy.runtime.scenarios.earlystopping import slow_allowed
from edgedeploy.runtime.scenarios.queueing import arrivals_ns
from edgedeploy.runtime.scenarios.resources import CASE_FAILURES
from edgedeploy.runtime.scenarios.server import BETWEEN, MOST_LEVELS, sizes
from edgedeploy.runtime.wire.serde import to_json

Settings = Mapping[str, Any]

_KILL_NS: Final = 10_000_000_000
"""What a busy board may take to kill a process and to see it gone."""

TICK_NS: Final = 10_000_000
"""A kernel that counts CPU time by ticks has 100 a second, and may charge one to whoever runs at its end, on each core."""


@dataclass(frozen=True)
class Kind:
    """``check`` gets the series, the settings, the board's cores and memory in bytes, and the least time of a query in ns;
    ``most`` says how many numbers the series can have, by the settings and the limit of the scenario in seconds."""

    form: type[Any]
    check: Callable[[Any, Settings, int, int, int], int]
    most: Callable[[Settings, float], float]


def _windows(settings: Settings) -> int:
    return -(-int(settings["duration_ns"]) // int(settings["window_ns"]))


def _sustained(raw: SustainedForm, settings: Settings, cores: int, memory_bytes: int, least_ns: int) -> int:
    if not 1 <= len(raw.windows) <= _windows(settings):
        raise ValueError(f"windows: {len(raw.windows)}, 1 to {_windows(settings)} fit in")
    if len(raw.conditions) != len(raw.windows) + 1:
        raise ValueError(f"conditions: {len(raw.conditions)} around {len(raw.windows)} windows")
    ends = [*(window.start_ns for window in raw.windows[1:]), None]
    for window, end_ns in zip(raw.windows, ends, strict=True):
        if not least_ns <= window.p50_ns <= window.p90_ns <= window.max_ns or window.queries < 1 or window.start_ns < 0:
            raise ValueError(
                f"windows: {window.queries} queries of {window.p50_ns}, {window.p90_ns}, {window.max_ns} ns"
            )
        if end_ns is not None and end_ns - window.start_ns < settings["window_ns"]:
            raise ValueError(f"windows: one of {end_ns - window.start_ns} ns, {settings['window_ns']} were asked for")
        half = window.queries - window.queries // 2  # at least so many took the median or longer
        if end_ns is not None and half * window.p50_ns > end_ns - window.start_ns:
            raise ValueError(
                f"windows: {window.queries} queries of {window.p50_ns} ns in {end_ns - window.start_ns} ns"
            )
    return raw.windows[-1].start_ns + raw.windows[-1].max_ns


def _realtime(raw: RealtimeForm, settings: Settings, cores: int, memory_bytes: int, least_ns: int) -> int:
    if list(raw.arrivals_ns) != list(settings["arrivals_ns"]) or raw.deadline_ns != settings["deadline_ns"]:
        raise ValueError("arrivals_ns: not those that were asked for")
    frames = len(raw.arrivals_ns)
    seen = [frame for frame, *_ in (*raw.processed, *raw.dropped)] + list(raw.pending)
    if sorted(seen) != list(range(frames)):
        raise ValueError(f"processed: {frames} frames arrived, but {len(seen)} are accounted for")
    before_ns = 0
    for frame, start_ns, end_ns in raw.processed:
        if start_ns < max(before_ns, raw.arrivals_ns[frame]) or end_ns - start_ns < least_ns:
            raise ValueError(f"processed: frame {frame} from {start_ns} to {end_ns} ns")
        before_ns = end_ns
    if any(at_ns < raw.arrivals_ns[frame] for frame, at_ns in raw.dropped) or not 0 <= raw.blocked <= frames:
        raise ValueError("dropped: a frame before it arrived")
    if {*raw.stages_ns} != {*settings["stages"], "inference"}:
        raise ValueError(f"stages_ns: {', '.join(raw.stages_ns)[:80]}")
    for name, times_ns in raw.stages_ns.items():
        if len(times_ns) != len(raw.processed) or (times_ns and min(times_ns) < 0):
            raise ValueError(f"stages_ns.{name}: {len(times_ns)} times for {len(raw.processed)} frames")
    for (_, start_ns, end_ns), *parts in zip(raw.processed, *raw.stages_ns.values(), strict=True):
        if sum(parts) > end_ns - start_ns:
            raise ValueError(f"stages_ns: {sum(parts)} ns of {end_ns - start_ns}")
    return before_ns


def _multi_stream(raw: MultiStreamForm, settings: Settings, cores: int, memory_bytes: int, least_ns: int) -> int:
    if raw.most != settings["most"]:
        raise ValueError(f"most: {raw.most}, {settings['most']} were asked for")
    if not 1 <= len(raw.levels) <= _levels(settings):
        raise ValueError(f"levels: {len(raw.levels)}, 1 to {_levels(settings)} are tried")
    for level in raw.levels:
        if not 1 <= level.streams <= settings["most"] or not 1 <= len(level.latencies_ns) <= settings["queries"]:
            raise ValueError(f"levels: {len(level.latencies_ns)} queries of {level.streams} streams")
        if level.held and len(level.latencies_ns) != settings["queries"]:
            raise ValueError(f"levels: {len(level.latencies_ns)} queries, {settings['queries']} were asked for")
        if min(level.latencies_ns) < least_ns * level.streams:
            raise ValueError(f"levels: {min(level.latencies_ns)} ns for {level.streams} streams")
        if level.late != sum(latency > settings["interval_ns"] for latency in level.latencies_ns):
            raise ValueError(f"levels: {level.late} late queries")
    if raw.streams != max((level.streams for level in raw.levels if level.held), default=0):
        raise ValueError(f"streams: {raw.streams} is not the most that held")
    return sum(sum(level.latencies_ns) for level in raw.levels)


def _levels(settings: Settings) -> int:
    """Doubling to the limit, then halving what lies between."""
    return 2 * int(settings["most"]).bit_length() + 1


def _offline(raw: OfflineForm, settings: Settings, cores: int, memory_bytes: int, least_ns: int) -> int:
    samples, chunks = settings["samples"], settings["chunks"]
    ends = [round(samples * chunk / chunks) for chunk in range(chunks + 1)]
    if list(raw.samples) != [later - earlier for earlier, later in pairwise(ends)]:
        raise ValueError("samples: not those that were asked for")
    if len(raw.elapsed_ns) != chunks:
        raise ValueError(f"elapsed_ns: {len(raw.elapsed_ns)} chunks, {chunks} were asked for")
    for count, elapsed_ns in zip(raw.samples, raw.elapsed_ns, strict=True):
        if elapsed_ns < max(1, count * least_ns):
            raise ValueError(f"elapsed_ns: {elapsed_ns} ns for {count} samples")
    return sum(raw.elapsed_ns)


def _resources(raw: ResourcesForm, settings: Settings, cores: int, memory_bytes: int, least_ns: int) -> int:
    if len(raw.runs) != settings["repeats"]:
        raise ValueError(f"runs: {len(raw.runs)}, {settings['repeats']} were asked for")
    for run in raw.runs:
        _check_curves(run, cores, memory_bytes, settings["inferences"] * least_ns)
    return sum(run.at_ns[-1] for run in raw.runs)


def _flare(raw: FlareForm, settings: Settings, cores: int, memory_bytes: int, least_ns: int) -> int:
    if raw.limit_ns != settings["limit_ns"]:
        raise ValueError(f"limit_ns: {raw.limit_ns}, {settings['limit_ns']} were asked for")
    if len(raw.runs) != settings["cases"]:
        raise ValueError(f"runs: {len(raw.runs)}, {settings['cases']} were asked for")
    for run in raw.runs:
        if run.failed not in ("", *CASE_FAILURES):
            raise ValueError(f"runs: failed by {run.failed[:80]!r}")
        _check_curves(run, cores, memory_bytes, 0 if run.failed else least_ns)
        if not run.failed and run.at_ns[-1] > settings["limit_ns"] + _KILL_NS:
            raise ValueError(f"runs: a case of {run.at_ns[-1]} ns, stuck after {settings['limit_ns']}")
    return sum(run.at_ns[-1] for run in raw.runs)


def _check_curves(run: CurvesForm, cores: int, memory_bytes: int, least_ns: int) -> None:
    columns: tuple[Sequence[int], ...] = (run.at_ns, run.resident_bytes, run.cpu_ns)
    if not run.at_ns or len({len(column) for column in columns}) != 1:
        raise ValueError(f"runs: columns of {', '.join(str(len(column)) for column in columns)}")
    if any(later < earlier for column in (run.at_ns, run.cpu_ns) for earlier, later in pairwise(column)):
        raise ValueError("runs: a clock that goes back")
    if run.at_ns[0] < 0 or run.at_ns[-1] < least_ns:
        raise ValueError(f"runs: {run.at_ns[-1]} ns, nothing takes less than {least_ns} ns")
    if not 0 <= min(run.resident_bytes) <= max(run.resident_bytes) <= memory_bytes:
        raise ValueError(f"runs: {max(run.resident_bytes)} bytes of the board's {memory_bytes}")
    if not 0 <= run.cpu_ns[-1] <= cores * (run.at_ns[-1] + TICK_NS):
        raise ValueError(f"runs: {run.cpu_ns[-1]} ns of CPU time in {run.at_ns[-1]} ns on {cores} cores")


def _server(raw: ServerForm, settings: Settings, cores: int, memory_bytes: int, least_ns: int) -> int:
    for name in ("gaps", "every_ns", "deadline_ns", "percent", "most"):
        if to_json(getattr(raw, name)) != settings[name]:
            raise ValueError(f"{name}: not what was asked for")
    if any(value != settings[name] for name, value in vars(raw.rules).items()):
        raise ValueError("rules: not those that were asked for")
    if not len(raw.levels) <= MOST_LEVELS:
        raise ValueError(f"levels: {len(raw.levels)}, {MOST_LEVELS} are tried at most")
    loads = [*raw.levels, *([raw.at] if raw.at else [])]
    for load in loads:
        _check_load(load, settings, least_ns)
    if raw.users != (0 if raw.cut else max((level.users for level in raw.levels if level.held), default=0)):
        raise ValueError(f"users: {raw.users} are not the most that held")
    stated = 0 if raw.cut else settings["users"] or raw.users
    if (raw.at.users if raw.at else 0) != stated or (raw.at and raw.at.sent != len(settings["gaps"])):
        raise ValueError(f"at: not the load of {stated} users")
    wanted = {(size, busy + 1) for size in sizes(settings["max_batch"]) for busy in range(settings["instances"])}
    if {(cell.batch, cell.busy) for cell in raw.services} != wanted or len(raw.services) != len(wanted):
        raise ValueError("services: not the batches and instances that were asked for")
    after_rests = {(cell.batch, cell.busy) for cell in raw.rested}
    if not after_rests <= wanted or len(raw.rested) != len(after_rests):
        raise ValueError("rested: not the batches and instances that were asked for")
    cells = (*raw.services, *raw.rested)
    if any(not cell.ns or min(cell.ns) < least_ns for cell in cells) or min(raw.wakes_ns, default=0) < 0:
        raise ValueError(f"services: nothing takes less than {least_ns} ns")
    took_ns = sum(sum(cell.ns) for cell in cells if cell.busy == 1)
    return took_ns + sum(_arrivals(settings, load.users)[load.sent - 1] for load in loads)


def _arrivals(settings: Settings, users: int) -> Sequence[int]:
    return arrivals_ns(settings["gaps"], users, settings["every_ns"])


def _check_load(load: LoadForm, settings: Settings, least_ns: int) -> None:
    requests = len(settings["gaps"])
    lost = [*load.shed, *load.pending]
    if not 1 <= load.users <= settings["most"] or not 1 <= load.sent <= requests:
        raise ValueError(f"levels: {load.sent} requests of {load.users} users")
    if (
        len({*lost}) != len(lost)
        or not {*lost} <= {*range(load.sent)}
        or len(load.latencies_ns) + len(lost) != load.sent
    ):
        raise ValueError(f"levels: {load.sent} requests were sent, {len(load.latencies_ns) + len(lost)} accounted for")
    if min(load.latencies_ns, default=least_ns) < least_ns:
        raise ValueError(f"levels: {min(load.latencies_ns)} ns for an answer")
    if load.late != sum(latency > settings["deadline_ns"] for latency in load.latencies_ns):
        raise ValueError(f"levels: {load.late} late answers")
    if (
        not len(load.latencies_ns)
        <= load.batches * settings["max_batch"]
        <= len(load.latencies_ns) * settings["max_batch"]
    ):
        raise ValueError(f"levels: {len(load.latencies_ns)} answers in {load.batches} batches")
    allowed = slow_allowed(requests, settings["percent"])
    held = load.sent == requests and not load.pending and load.late + len(load.shed) <= allowed
    if load.held != held:
        raise ValueError(f"levels: {load.late + len(load.shed)} of {load.sent} missed, {allowed} are allowed")


def _server_numbers(settings: Settings, limit_s: float) -> float:
    """All requests of all loads, and service times with late wakes as often as they are measured."""
    cells = len(sizes(settings["max_batch"])) * settings["instances"] * (settings["instances"] + 1)
    samples = settings["samples"] * (1 + MOST_LEVELS / BETWEEN) + MOST_LEVELS
    return float((MOST_LEVELS + 2) * (len(settings["gaps"]) + 8) + cells * samples)


# A window's conditions are a snapshot, which has a temperature for each of a board's zones.
SCENARIOS: Final[Mapping[str, Kind]] = {
    "sustained": Kind(SustainedForm, _sustained, lambda s, limit_s: 256 * (_windows(s) + 1)),
    "realtime": Kind(RealtimeForm, _realtime, lambda s, limit_s: 10 * len(s["arrivals_ns"])),
    "multi_stream": Kind(MultiStreamForm, _multi_stream, lambda s, limit_s: _levels(s) * (int(s["queries"]) + 4)),
    "offline": Kind(OfflineForm, _offline, lambda s, limit_s: 2 * int(s["chunks"])),
    "flare": Kind(FlareForm, _flare, lambda s, limit_s: 3 * (limit_s * 1e9 / s["period_ns"] + 3 * s["cases"])),
    "server": Kind(ServerForm, _server, _server_numbers),
    "resources": Kind(
        ResourcesForm, _resources, lambda s, limit_s: 3 * (limit_s * 1e9 / s["period_ns"] + 2 * s["repeats"])
    ),
}
"""Those of edgedeploy. What another has measured is read by whoever made it."""
