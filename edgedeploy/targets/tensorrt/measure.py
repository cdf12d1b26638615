"""Measures an artifact with a board's ``trtexec``: refuse early, build the engine or find it, time, profile, run cases."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.artifact import Artifact
from edgedeploy.errors import MeasurementError, Unsupported
from edgedeploy.files import write_atomic
from edgedeploy.protocols import Array, Transport
from edgedeploy.targets.parity import check_executed
from edgedeploy.targets.tensorrt.board import CANDIDATES, TrtBoard, probe_board, run_trtexec
from edgedeploy.targets.tensorrt.command import (
    LAYER_INFO,
    Conditions,
    Typing,
    output_command,
    profile_command,
    require_release,
    timing_command,
)
from edgedeploy.targets.tensorrt.dla import DlaRequest, cores_online
from edgedeploy.targets.tensorrt.engine import COMMAND_TIMEOUT_S, Engine, ensure_engine, require_command
from edgedeploy.targets.tensorrt.evidence import Evidence, Level
from edgedeploy.targets.tensorrt.exports import (
    Layer,
    Times,
    executed,
    join,
    read_layers,
    read_outputs,
    read_profile,
    read_times,
)
from edgedeploy.targets.tensorrt.graphview import GraphView
from edgedeploy.targets.tensorrt.lint import Platform, lint
from edgedeploy.targets.tensorrt.log import LogRefused, Run

RUN_TIMEOUT_S: Final = 600.0
EXPORT_LIMIT_BYTES: Final = 1 << 28
SHOW_CLOCKS: Final = ("sudo", "-n", "jetson_clocks", "--show")
SUMMARY_TOLERANCE: Final = 0.01
"""Largest relative difference between trtexec's own median and that of the exported times."""


@dataclass(frozen=True)
class TrtResult:
    """What one board said of one artifact. ``layers`` is empty before TensorRT 8.2; ``logs`` holds every raw log by step;
    ``outputs`` has shape (cases, *output shape) per output; ``notes`` say what could not be looked at, and the remedy."""

    evidence: Evidence
    artifact_digest: str
    board: TrtBoard
    conditions: Conditions
    engine: Engine
    times: Times
    layers: tuple[Layer, ...]
    outputs: Mapping[str, Array]
    logs: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def executed(self) -> dict[str, int]:
        return executed(self.layers)

    def as_json(self) -> dict[str, Any]:
        placement = self.engine.placement
        return {
            "evidence": self.evidence.as_json(),
            "artifact": self.artifact_digest,
            "board": self.board.as_json(),
            "conditions": self.conditions.as_json(),
            "compute_ms": list(self.times.compute_ms),
            "latency_ms": list(self.times.latency_ms),
            "median_ms": self.times.median_ms,
            "p90_ms": self.times.percentile_ms(90),
            "p99_ms": self.times.percentile_ms(99),
            "cov_percent": self.times.cov_percent,
            "executed": self.executed,
            "layers": [vars(layer) for layer in self.layers],
            "placement": None if placement is None else placement.as_json(),
            "engine_warnings": list(self.engine.warnings),
            "notes": list(self.notes),
        }


def measure_on_board(
    transport: Transport,
    artifact: Artifact,
    folder: Path,
    cases: Iterable[Mapping[str, Array]],
    *,
    root: str,
    conditions: Conditions | None = None,
    dla: DlaRequest | None = None,
    keep_logs: Path | None = None,
    candidates: tuple[str, ...] = CANDIDATES,
    sysroot: str = "",
) -> TrtResult:
    """``root`` is a folder of ours on the board (absolute); ``cases`` are model-ready inputs, batch 1; ``keep_logs`` a
    folder here for every raw log, the refused one included.

    Refused before anything is built: a board without trtexec (``TargetUnavailable``), a release whose rules the file
    breaks (``Unsupported``). Then ``LogRefused``, ``ForeignPlan``, ``Unstable``, ``MeasurementError`` or ``BoardError``.
    """
    board = probe_board(transport, candidates=candidates, sysroot=sysroot)
    require_release(board.version)
    model = folder / artifact.entry
    view = GraphView.open(model)
    _require_rules(view, artifact.precision, board, dla)
    notes = () if dla is None else _core_notes(transport, board, dla)
    typing = Typing.of(view, artifact.precision)
    try:
        engine = ensure_engine(transport, board, model, typing=typing, root=root, dla=dla)
        with _work_folder(transport, root) as work:
            bench = _Bench(transport, board, engine, work, dla)
            result = _measure(bench, artifact, cases, conditions or Conditions(), typing, notes)
    except LogRefused as exc:
        _keep(keep_logs, {f"refused {exc.cause}": exc.log})
        raise
    _keep(keep_logs, result.logs)
    return result


def require_comparable(first: TrtResult, second: TrtResult) -> None:
    """Raises ``MeasurementError`` for results of different GPUs, majors, conditions, or levels of proof."""
    for what, one, other in (
        ("GPU", first.board.gpu, second.board.gpu),
        ("TensorRT major", first.board.version.major, second.board.version.major),
        ("conditions", first.conditions, second.conditions),
        ("level", first.evidence.level, second.evidence.level),
    ):
        if one != other:
            raise MeasurementError(f"two results of one {what}", f"{one} and {other}", "Measure both the same way")


def level_of(board: TrtBoard, run: Run) -> Evidence:
    """``MEASURED`` only for a run that names the GPU it ran on, which no simulation may claim."""
    device = run.device.get("Selected Device")
    if board.simulated:
        return Evidence(Level.LINT, "a simulation of trtexec", "no GPU: its numbers are made up")
    if device is None or run.compute_capability is None:
        raise LogRefused("incomplete", "it does not name the GPU it ran on", run.text)
    return Evidence(Level.MEASURED, f"trtexec of TensorRT {board.version.exact}", f"on {device}")


@dataclass(frozen=True)
class _Bench:
    transport: Transport
    board: TrtBoard
    engine: Engine
    work: str
    dla: DlaRequest | None

    def run(self, argv: list[str], *, timed: bool) -> Run:
        return run_trtexec(self.transport, argv, timed=timed, timeout_s=RUN_TIMEOUT_S)

    def export(self, name: str) -> str:
        data = self.transport.read_bytes(
            f"{self.work}/{name}", timeout_s=COMMAND_TIMEOUT_S, limit_bytes=EXPORT_LIMIT_BYTES
        )
        if data is None:
            raise MeasurementError(f"{name} of trtexec", "it was not written", "Run it again")
        return data.decode("utf-8", errors="replace")

    def time(self, conditions: Conditions) -> tuple[Run, Times]:
        argv = timing_command(
            self.board.trtexec,
            self.board.version,
            plan=self.engine.plan,
            times=f"{self.work}/times.json",
            conditions=conditions,
            dla=self.dla,
        )
        run = self.run(argv, timed=True)
        times = read_times(self.export("times.json"), warmup_ms=conditions.warmup_ms)
        printed = run.spreads["gpu_compute"].median_ms
        if abs(times.median_ms - printed) > SUMMARY_TOLERANCE * printed:
            found = f"the exported times have {times.median_ms:g} ms"
            raise LogRefused("inconsistent", f"its median is {printed:g} ms, {found}", run.text)
        times.require_stable()
        return run, times

    def profile(self) -> tuple[str | None, tuple[Layer, ...]]:
        if self.board.version < LAYER_INFO:
            return None, ()
        argv = profile_command(
            self.board.trtexec,
            self.board.version,
            plan=self.engine.plan,
            profile=f"{self.work}/profile.json",
            layers=f"{self.work}/layers.json",
            dla=self.dla,
        )
        run = self.run(argv, timed=False)
        layers = read_layers(self.export("layers.json"))
        return run.text, join(layers, read_profile(self.export("profile.json")))

    def answer(self, artifact: Artifact, case: Mapping[str, Array]) -> tuple[str, dict[str, Array]]:
        """One case through the engine. Inputs travel as raw bytes in the layout of the model."""
        inputs = {}
        for index, spec in enumerate(artifact.inputs):
            path = f"{self.work}/input-{index}.bin"
            data = np.ascontiguousarray(case[spec.name], dtype=spec.dtype).tobytes()
            self.transport.write_bytes(path, data, timeout_s=COMMAND_TIMEOUT_S)
            inputs[spec.name] = path
        self.transport.run(["rm", "-f", f"{self.work}/outputs.json"], timeout_s=COMMAND_TIMEOUT_S)
        argv = output_command(
            self.board.trtexec,
            self.board.version,
            plan=self.engine.plan,
            inputs=inputs,
            outputs=f"{self.work}/outputs.json",
            dla=self.dla,
        )
        run = self.run(argv, timed=False)
        return run.text, read_outputs(self.export("outputs.json"), artifact.outputs)


def _require_rules(view: GraphView, precision: str, board: TrtBoard, dla: DlaRequest | None) -> None:
    platform = Platform(board.version, precision, dla is not None, board.compute_capability)
    errors = lint(view, platform).errors
    if errors:
        found = "; ".join(str(finding) for finding in errors)
        raise Unsupported(f"{precision} on TensorRT {board.version} of {board.gpu}", found, errors[0].remedy)


@contextmanager
def _work_folder(transport: Transport, root: str) -> Iterator[str]:
    work = f"{root}/runs/{uuid.uuid4().hex}"
    require_command(transport, ["mkdir", "-p", "-m", "700", work])
    try:
        yield work
    finally:
        transport.run(["rm", "-rf", work], timeout_s=COMMAND_TIMEOUT_S)


def _keep(folder: Path | None, logs: Mapping[str, str]) -> None:
    if folder is not None:
        for step, text in logs.items():
            write_atomic(folder / f"{step.replace(' ', '-')}.log", text.encode())


def _core_notes(transport: Transport, board: TrtBoard, dla: DlaRequest) -> tuple[str, ...]:
    """``jetson_clocks --show`` changes nothing, but wants root: without it, trtexec itself has to notice a missing core.

    Raises ``Unsupported`` for a core that is not there.
    """
    done = transport.run([*SHOW_CLOCKS], timeout_s=COMMAND_TIMEOUT_S)
    if done.exit_status != 0:
        said = done.stderr.decode("utf-8", errors="replace").strip().splitlines()
        why = said[-1] if said else f"exit status {done.exit_status}"
        return (
            f"DLA cores online: unavailable ({' '.join(SHOW_CLOCKS)}: {why}). "
            "On the board: let its user run /usr/bin/jetson_clocks by sudo without a password",
        )
    cores = cores_online(done.stdout.decode("utf-8", errors="replace"))
    if dla.core not in cores:
        found = f"{board.gpu} has {', '.join(map(str, cores)) or 'none'} online"
        raise Unsupported(f"DLA core {dla.core}", found, "Choose another core, or run it on the GPU")
    return ()


def _measure(
    bench: _Bench,
    artifact: Artifact,
    cases: Iterable[Mapping[str, Array]],
    conditions: Conditions,
    typing: Typing,
    notes: tuple[str, ...],
) -> TrtResult:
    run, times = bench.time(conditions)
    profile_log, layers = bench.profile()
    if layers:
        check_executed(artifact.precision, executed(layers), typing.precisions[1:])
    logs = {"build": bench.engine.build_log or "", "times": run.text, "profile": profile_log or ""}
    rows = []
    for number, case in enumerate(cases):
        logs[f"case {number}"], answer = bench.answer(artifact, case)
        rows.append(answer)
    outputs = {spec.name: np.stack([row[spec.name] for row in rows]) for spec in artifact.outputs} if rows else {}
    return TrtResult(
        evidence=level_of(bench.board, run),
        artifact_digest=artifact.digest,
        board=bench.board,
        conditions=conditions,
        engine=bench.engine,
        times=times,
        layers=layers,
        outputs=outputs,
        logs={step: text for step, text in logs.items() if text},
        notes=notes,
    )
