"""A board's result, held against the job that it was asked to run: what no board can have measured is refused.

The limits come from the job's plan (how many blocks, queries, cold starts, windows), from what the board says it is (its
cores, its memory), and from this host's own clock: what a run timed is no longer than this host has waited for it. A
failure here is about the board, never about the variant.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.boards.agent.answers import plain
from edgedeploy.boards.agent.scenarios import SCENARIOS, TICK_NS
from edgedeploy.files import array_forms
from edgedeploy.records.forms import DuringForm, EnvironmentForm, LoadedForm, PowerForm, RanProfileForm, SnapshotForm
from edgedeploy.records.job import Job, RawSide
from edgedeploy.runtime.wire.job import MeasurePlan
from edgedeploy.runtime.wire.result import AgentResult
from edgedeploy.runtime.wire.serde import WireError, from_json

LEAST_QUERY_NS: Final = 100
"""Two readings of the clock around an empty call of Python are 110 ns apart, a copy of one number takes 360 and ONNX
Runtime's smallest network 4600 (AMD EPYC, CPython 3.11, 2026-11-29): no session answers faster than an empty call."""

CLOCKS_APART: Final = 0.001
"""Of two monotonic clocks: a crystal is off by 0.01 %, and NTP slews by 0.05 % at most."""

BYTES_PER_NUMBER: Final = 24
"""Of a whole number in JSON, with what is around it: 20 digits, a comma, a space, a sign, a bracket."""

FACTS_BYTES: Final = 32 << 20
"""For what is no series: conditions, and the profiles of two networks of 20,000 layers with 800 bytes each."""

BYTES_PER_S: Final = 16 << 10
"""Of a run, for conditions: two looks a second."""


class Odd(ValueError):
    """The field that cannot be, what it holds, and what was asked for."""


@dataclass(frozen=True)
class Asked:
    """What a result is held against. ``waited_ns`` is how long this host has waited for the run, None where the board's
    clock is not of this world (:data:`~edgedeploy.records.metrics.Clock` ``virtual``)."""

    job: Job
    cores: int
    memory_bytes: int
    waited_ns: int | None

    @property
    def plan(self) -> MeasurePlan:
        return self.job.plan

    def check_span(self, field: str, spent_ns: float) -> None:
        """Raises :class:`Odd` for a time that is longer than the host has waited, or negative."""
        if spent_ns < 0:
            raise Odd(f"{field}: {spent_ns:g} ns, expected 0 or more")
        if self.waited_ns is not None and spent_ns > self.waited_ns * (1 + CLOCKS_APART) + TICK_NS:
            raise Odd(f"{field}: {spent_ns:g} ns, but this host has waited {self.waited_ns} ns in all")


def result_limit_bytes(plan: MeasurePlan) -> int:
    """How long the text of a result can be."""
    numbers = 2 * blocks_of(plan) * (plan.block + 1) + sum(
        SCENARIOS[part.name].most(part.settings, part.limit_s) for part in plan.scenarios if part.name in SCENARIOS
    )
    return FACTS_BYTES + round(BYTES_PER_NUMBER * numbers + BYTES_PER_S * plan.time_limit_s)


def outputs_limit_bytes(job: Job) -> int:
    """How large the outputs can be: twice what the artifact's say, as a runtime may give float64 for float32, and the
    headers."""
    rows = _cases_of(job.candidate.inputs)
    frames = _frames_of(job) if job.candidate.states else 1
    numbers = sum(math.prod(spec.shape) * np.dtype(spec.dtype).itemsize for spec in job.candidate.artifact.outputs)
    return 2 * rows * frames * numbers + 4096 * (1 + len(job.candidate.artifact.outputs))


def blocks_of(plan: MeasurePlan) -> int:
    """Blocks of each side: whole rounds of two."""
    return 2 * -(-plan.queries // (2 * plan.block))


def check_result(result: AgentResult, asked: Asked) -> None:
    """Raises :class:`Odd` unless the result is one of this job."""
    sides = {"candidate": result.candidate, "baseline": result.baseline}
    for name, side in sides.items():
        if (side is None) != (name not in asked.job.sides):
            raise Odd(f"{name}: {'nothing' if side is None else 'something'} came back, and the other was asked for")
    spent_ns = sum(_side_ns(name, side, asked) for name, side in sides.items() if side is not None)
    if {*result.scenarios} != {scenario.name for scenario in asked.plan.scenarios}:
        names = ", ".join(scenario.name for scenario in asked.plan.scenarios) or "none"
        raise Odd(f"scenarios: {', '.join(result.scenarios)[:80] or 'none'}, expected {names}")
    spent_ns += sum(_scenario_ns(scenario.name, scenario.settings, result, asked) for scenario in asked.plan.scenarios)
    asked.check_span("all that was timed", spent_ns)
    _check_environment(result.environment, asked)
    _check_layers(result.layers, asked)
    if (result.outputs is None) == asked.plan.collect_outputs:
        raise Odd(f"outputs: {'none' if result.outputs is None else 'some'}, and the other was asked for")
    if result.outputs is not None and not 0 < result.outputs.size_bytes <= outputs_limit_bytes(asked.job):
        raise Odd(
            f"outputs.size_bytes: {result.outputs.size_bytes}, at most {outputs_limit_bytes(asked.job)} were asked for"
        )


def _side_ns(name: str, side: RawSide, asked: Asked) -> int:
    """The time of a side's queries and cold starts."""
    plan, wanted = asked.plan, blocks_of(asked.plan)
    for field, found in (("blocks_ns", len(side.blocks_ns)), ("cpu_ns", len(side.cpu_ns))):
        if found != wanted:
            raise Odd(f"{name}.{field}: {found} blocks, {wanted} were asked for")
    for place, (block, cpu_ns) in enumerate(zip(side.blocks_ns, side.cpu_ns, strict=True)):
        if len(block) != plan.block:
            raise Odd(f"{name}.blocks_ns[{place}]: {len(block)} queries, {plan.block} were asked for")
        check_times(f"{name}.blocks_ns[{place}]", block)
        if not 0 <= cpu_ns <= asked.cores * (sum(block) + TICK_NS):
            raise Odd(f"{name}.cpu_ns[{place}]: {cpu_ns} in {sum(block)} ns on {asked.cores} cores")
    if len(side.cold_starts_ns) != plan.cold_starts:
        raise Odd(f"{name}.cold_starts_ns: {len(side.cold_starts_ns)}, {plan.cold_starts} were asked for")
    fastest_ns = min((min(block) for block in side.blocks_ns), default=LEAST_QUERY_NS)
    check_times(f"{name}.cold_starts_ns", side.cold_starts_ns, fastest_ns)  # a start ends with a first query
    if not 0 < side.peak_memory_bytes <= asked.memory_bytes:
        raise Odd(f"{name}.peak_memory_bytes: {side.peak_memory_bytes} of the board's {asked.memory_bytes}")
    _check_counts(f"{name}.executed", side.executed.items())
    for field in ("device", "runtime_version", "memory_note"):
        if plain(getattr(side, field)) != getattr(side, field):
            raise Odd(f"{name}.{field}: no text for people")
    return sum(map(sum, side.blocks_ns)) + sum(side.cold_starts_ns)


def check_times(field: str, times_ns: Sequence[int], least_ns: int = LEAST_QUERY_NS) -> None:
    """Raises :class:`Odd` for a time of a query that no query can take."""
    if times_ns and min(times_ns) < least_ns:
        raise Odd(f"{field}: {min(times_ns)} ns, nothing takes less than {least_ns} ns")


def _check_counts(field: str, counts: Iterable[tuple[str, int]]) -> None:
    for name, count in counts:
        if count < 0:
            raise Odd(f"{field}: {count} x {name[:80]}, expected 0 or more")


def _scenario_ns(name: str, settings: Mapping[str, Any], result: AgentResult, asked: Asked) -> int:
    """The time that a scenario's series cover; 0 for one that is not edgedeploy's own."""
    raw = result.scenarios[name]
    if not isinstance(raw, Mapping):
        raise Odd(f"scenarios.{name}: expected an object")
    if name not in SCENARIOS:
        return 0
    kind = SCENARIOS[name]
    try:
        series = from_json(kind.form, raw, kept=True)
        if "cases" in settings:  # of those that there are, none may be left out
            settings = {**settings, "cases": min(settings["cases"], _cases_of(asked.job.candidate.inputs))}
        spent_ns = kind.check(series, settings, asked.cores, asked.memory_bytes, LEAST_QUERY_NS)
    except (WireError, ValueError) as exc:
        raise Odd(f"scenarios.{name}.{exc}") from exc
    asked.check_span(f"scenarios.{name}", spent_ns)
    return spent_ns


def _check_environment(environment: Mapping[str, Any], asked: Asked) -> None:
    try:
        found = from_json(EnvironmentForm, environment, kept=True)
        for when in (found.before, found.after):
            _check_snapshot(from_json(SnapshotForm, when or {}, kept=True))
        during = from_json(DuringForm, {"at_ns": [], **(found.during or {})}, kept=True)
        loaded = from_json(LoadedForm, environment.get("scenarios") or {}, kept=True)
        power = None
        if found.energy is not None and "missing" not in found.energy:
            power = from_json(PowerForm, found.energy, kept=True)
        elif found.energy is not None:
            from_json(RanProfileForm, found.energy, kept=True)  # a reason in words
    except WireError as exc:
        raise Odd(f"environment.{exc}") from exc
    for share in (found.background_cpu_share, loaded.background_cpu_share):
        if share is not None and share < 0:
            raise Odd(f"environment.background_cpu_share: {share:g}, expected 0 or more")
    if during.at_ns:
        _check_ascending("environment.during.at_ns", during.at_ns)
        asked.check_span("environment.during", during.at_ns[-1] - during.at_ns[0])
    if power is not None:
        _check_power(power, asked)


def _check_snapshot(found: SnapshotForm) -> None:
    for name, count in (found.throttle_events or {}).items():
        if count < 0:
            raise Odd(f"environment.throttle_events.{name[:80]}: {count}, expected 0 or more")


def _check_power(power: PowerForm, asked: Asked) -> None:
    times_ns, values = [at for at, _ in power.samples], [value for _, value in power.samples]
    _check_ascending("environment.energy.samples", times_ns)
    if values and (min(values) < 0 or (power.kind == "energy" and any(b < a for a, b in pairwise(values)))):
        raise Odd("environment.energy.samples: a power below zero, or a counter that runs backwards")
    if times_ns:
        asked.check_span("environment.energy.samples", times_ns[-1] - times_ns[0])
    for start_ns, end_ns in power.waits:
        if not start_ns < end_ns:
            raise Odd(f"environment.energy.waits: from {start_ns:g} to {end_ns:g}")
        asked.check_span("environment.energy.waits", end_ns - start_ns)
    for part in power.stretches:
        if part.side not in asked.job.sides:
            raise Odd(f"environment.energy.stretches: side {part.side[:80]!r}, which was not asked for")
        asked.check_span("environment.energy.stretches", part.end_ns - part.start_ns)
        if not 0 < part.queries * LEAST_QUERY_NS <= part.end_ns - part.start_ns:
            raise Odd(f"environment.energy.stretches: {part.queries} queries in {part.end_ns - part.start_ns} ns")


def _check_ascending(field: str, values: Sequence[float]) -> None:
    if any(later <= earlier for earlier, later in pairwise(values)):
        raise Odd(f"{field}: its times do not go forwards")


def _check_layers(layers: Mapping[str, Any], asked: Asked) -> None:
    wanted = {*asked.job.sides} if asked.plan.profile_runs else set()
    if {*layers} != wanted:
        raise Odd(f"layers: of {sorted(layers)}, asked for were {sorted(wanted)}")
    for side, raw in layers.items():
        try:
            profile = from_json(RanProfileForm, raw, kept=True)
        except WireError as exc:
            raise Odd(f"layers.{side}.{exc}") from exc
        if profile.layers is None:
            if not profile.missing:
                raise Odd(f"layers.{side}: neither layers nor a reason")
            continue
        if profile.runs != asked.plan.profile_runs:
            raise Odd(f"layers.{side}.runs: {profile.runs}, {asked.plan.profile_runs} were asked for")
        for layer in profile.layers:
            asked.check_span(f"layers.{side} {layer.name[:80]!r}", layer.ns)


# -- outputs


def check_outputs(path: Path, job: Job) -> None:
    r"""Raises :class:`Odd` for a file that the agent cannot have written: (cases, \*output shape) of real numbers of the
    kind that the artifact's outputs are. Nothing is allocated for it.

    Names and shapes of single cases are for parity to judge: a toolchain may have changed them.
    """
    rows = _cases_of(job.candidate.inputs)
    kinds = {spec.name: np.dtype(spec.dtype).kind for spec in job.candidate.artifact.outputs}
    try:
        found = array_forms(path, outputs_limit_bytes(job), whole=True)
    except ValueError as exc:
        raise Odd(f"outputs.npz: {plain(str(exc))}") from exc
    for name, (shape, dtype) in found.items():
        if not shape or shape[0] != rows:
            raise Odd(f"outputs.npz: {plain(name)[:80]!r} of shape {shape}, {rows} cases were asked for")
        if dtype.kind not in _FAMILY.get(kinds.get(name, "f"), "biuf"):
            raise Odd(
                f"outputs.npz: {plain(name)[:80]!r} holds {dtype.name}, no numbers of the kind that was asked for"
            )


_FAMILY: Final[Mapping[str, str]] = {"f": "f", "b": "biu", "i": "biu", "u": "biu"}
"""Kinds of numpy's types that an output may have: runtimes differ in width and sign."""


def _cases_of(inputs: Path) -> int:
    """How many cases a job has: the first dimension of each of its inputs."""
    return next(shape[0] for shape, _ in array_forms(inputs).values())


def _frames_of(job: Job) -> int:
    """Frames of each case, where a case is a clip: the second dimension of every input that is no state."""
    forms = array_forms(job.candidate.inputs)
    return next(shape[1] for name, (shape, _) in forms.items() if name not in job.candidate.states)
