"""Measures an artifact with a board's ``trtexec``: check it, build the engine or find it, time, profile, run cases."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.errors import MeasurementError, Unsupported
from edgedeploy.files import write_atomic
from edgedeploy.interfaces.board import Transport
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import Artifact
from edgedeploy.reference.parity import check_executed
from edgedeploy.targets.tensorrt.lint import Platform, lint_file
from edgedeploy.targets.tensorrt.proof import Evidence, Level
from edgedeploy.targets.tensorrt.target import planned
from edgedeploy.targets.tensorrt.trtexec.board import CANDIDATES, TrtBoard, probe_board, run_trtexec
from edgedeploy.targets.tensorrt.trtexec.command import (
    LAYER_INFO,
    Conditions,
    output_command,
    profile_command,
    require_release,
    timing_command,
)
from edgedeploy.targets.tensorrt.trtexec.dla import DlaRequest, cores_online
from edgedeploy.targets.tensorrt.trtexec.engine import COMMAND_TIMEOUT_S, Engine, ensure_engine, require_command
from edgedeploy.targets.tensorrt.trtexec.exports import (
    EngineLayer,
    Times,
    executed,
    join,
    read_layers,
    read_outputs,
    read_profile,
    read_times,
)
from edgedeploy.targets.tensorrt.trtexec.log import LogRefused, Run
from edgedeploy.targets.tensorrt.trtexec.pyapi import PythonApi, find_api, run_case

RUN_TIMEOUT_S: Final = 600.0
EXPORT_LIMIT_BYTES: Final = 1 << 28
SHOW_CLOCKS: Final = ("sudo", "-n", "jetson_clocks", "--show")
SUMMARY_TOLERANCE: Final = 0.01
"""Largest relative difference between trtexec's own median and that of the exported times."""


@dataclass(frozen=True)
class TrtResult:
    """Results of one artifact on one board.

    ``layers`` is empty before TensorRT 8.2; ``logs`` holds every raw log by step; ``outputs`` has shape (cases, *output
    shape) per output, and ``outputs_by`` names the tool that gave them; ``notes`` say what could not be checked on the
    board, with the remedy.
    """

    evidence: Evidence
    artifact_digest: str
    board: TrtBoard
    conditions: Conditions
    engine: Engine
    times: Times
    layers: tuple[EngineLayer, ...]
    outputs: Mapping[str, Array]
    outputs_by: str
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
            "outputs_by": self.outputs_by,
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
    python: str = "python3",
) -> TrtResult:
    """Measure an artifact on a board. ``root`` is edgedeploy's folder on the board (absolute); ``cases`` are
    model-ready inputs with batch size 1; ``keep_logs`` is a local folder for every raw log, also refused ones. Outputs
    come from TensorRT's Python API if the board's ``python`` has it, else from trtexec.

    Before anything is built it raises ``TargetUnavailable`` for a board without trtexec, and ``Unsupported`` for a
    release whose rules the file breaks. Later it raises ``LogRefused``, ``ForeignPlan``, ``Unstable``,
    ``MeasurementError`` or ``BoardError``.
    """
    board = probe_board(transport, candidates=candidates, sysroot=sysroot)
    require_release(board.version)
    model = folder / artifact.entry
    _lint(model, artifact.precision, board, dla)
    notes = () if dla is None else core_notes(transport, board, dla)
    bench = _Bench(transport, board, f"{root}/runs/{uuid.uuid4().hex}", dla, python)
    try:
        result = _on_board(bench, artifact, model, cases, root, conditions or Conditions())
        result = replace(result, notes=notes)
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
    """The level of proof of a run: ``MEASURED`` only if it names its GPU and is not a simulation."""
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
    work: str
    dla: DlaRequest | None
    python: str

    def run(self, argv: list[str], *, timed: bool) -> Run:
        return run_trtexec(self.transport, argv, timed=timed, timeout_s=RUN_TIMEOUT_S)

    def export(self, name: str) -> str:
        data = self.transport.read_bytes(
            f"{self.work}/{name}", timeout_s=COMMAND_TIMEOUT_S, limit_bytes=EXPORT_LIMIT_BYTES
        )
        if data is None:
            raise MeasurementError(f"{name} of trtexec", "it was not written", "Run it again")
        return data.decode("utf-8", errors="replace")

    def time(self, plan: str, conditions: Conditions) -> tuple[Run, Times]:
        argv = timing_command(
            self.board.trtexec,
            self.board.version,
            plan=plan,
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

    def profile(self, plan: str) -> tuple[str | None, tuple[EngineLayer, ...]]:
        if self.board.version < LAYER_INFO:
            return None, ()
        argv = profile_command(
            self.board.trtexec,
            self.board.version,
            plan=plan,
            profile=f"{self.work}/profile.json",
            layers=f"{self.work}/layers.json",
            dla=self.dla,
        )
        run = self.run(argv, timed=False)
        layers = read_layers(self.export("layers.json"))
        return run.text, join(layers, read_profile(self.export("profile.json")))

    def answer(
        self, api: PythonApi, plan: str, artifact: Artifact, case: Mapping[str, Array]
    ) -> tuple[str, dict[str, Array]]:
        """One case through the engine. Inputs travel as raw bytes in the layout of the model."""
        inputs = {}
        for index, spec in enumerate(artifact.inputs):
            path = f"{self.work}/input-{index}.bin"
            data = np.ascontiguousarray(case[spec.name], dtype=spec.dtype).tobytes()
            self.transport.write_bytes(path, data, timeout_s=COMMAND_TIMEOUT_S)
            inputs[spec.name] = path
        if api.present:
            return run_case(self.transport, api, plan, inputs, (artifact.inputs, artifact.outputs), self.work)
        exported = f"{self.work}/outputs.json"
        self.transport.run(["rm", "-f", exported], timeout_s=COMMAND_TIMEOUT_S)
        argv = output_command(
            self.board.trtexec, self.board.version, plan=plan, inputs=inputs, outputs=exported, dla=self.dla
        )
        run = self.run(argv, timed=False)
        return run.text, read_outputs(self.export("outputs.json"), artifact.outputs)


def _lint(model: Path, precision: str, board: TrtBoard, dla: DlaRequest | None) -> None:
    platform = Platform(board.version, precision, dla is not None, board.compute_capability)
    errors = lint_file(model, platform).errors
    if errors:
        found = "; ".join(str(finding) for finding in errors)
        raise Unsupported(f"{precision} on TensorRT {board.version} of {board.gpu}", found, errors[0].remedy)


def _on_board(
    bench: _Bench,
    artifact: Artifact,
    model: Path,
    cases: Iterable[Mapping[str, Array]],
    root: str,
    conditions: Conditions,
) -> TrtResult:
    precisions = (artifact.precision, *planned(artifact))
    engine = ensure_engine(bench.transport, bench.board, model, precisions=precisions, root=root, dla=bench.dla)
    require_command(bench.transport, ["mkdir", "-p", "-m", "700", bench.work])
    try:
        return _measure(bench, engine, artifact, cases, conditions)
    finally:
        bench.transport.run(["rm", "-rf", bench.work], timeout_s=COMMAND_TIMEOUT_S)


def _keep(folder: Path | None, logs: Mapping[str, str]) -> None:
    if folder is not None:
        for step, text in logs.items():
            write_atomic(folder / f"{step.replace(' ', '-')}.log", text.encode())


def core_notes(transport: Transport, board: TrtBoard, dla: DlaRequest) -> tuple[str, ...]:
    """``jetson_clocks --show`` changes nothing but needs root; without root, only trtexec can notice a missing core.

    Raises ``Unsupported`` for a core that is not online.
    """
    done = transport.run(SHOW_CLOCKS, timeout_s=COMMAND_TIMEOUT_S)
    if done.exit_status != 0:
        said = done.stderr.decode("utf-8", errors="replace").strip().splitlines()
        why = said[-1] if said else f"exit status {done.exit_status}"
        remedy = "On the board: allow its user to run jetson_clocks by sudo without a password"
        return (f"DLA cores online: unavailable ({' '.join(SHOW_CLOCKS)}: {why}). {remedy}",)
    cores = cores_online(done.stdout.decode("utf-8", errors="replace"))
    if dla.core not in cores:
        found = f"{board.gpu} has {', '.join(map(str, cores)) or 'none'} online"
        raise Unsupported(f"DLA core {dla.core}", found, "Choose another core, or run it on the GPU")
    return ()


def _measure(
    bench: _Bench, engine: Engine, artifact: Artifact, cases: Iterable[Mapping[str, Array]], conditions: Conditions
) -> TrtResult:
    run, times = bench.time(engine.plan, conditions)
    profile_log, layers = bench.profile(engine.plan)
    if layers:
        check_executed(artifact.precision, executed(layers), planned(artifact))
    logs = {"build": engine.build_log or "", "times": run.text, "profile": profile_log or ""}
    api = (
        find_api(bench.transport, bench.board.version, bench.python, bench.work)
        if bench.dla is None
        else PythonApi(reason="engines on DLA are run by it")
    )
    rows = []
    for number, case in enumerate(cases):
        logs[f"case {number}"], answer = bench.answer(api, engine.plan, artifact, case)
        rows.append(answer)
    outputs = {spec.name: np.stack([row[spec.name] for row in rows]) for spec in artifact.outputs} if rows else {}
    return TrtResult(
        evidence=level_of(bench.board, run),
        artifact_digest=artifact.digest,
        board=bench.board,
        conditions=conditions,
        engine=engine,
        times=times,
        layers=layers,
        outputs=outputs,
        outputs_by="TensorRT's Python API" if api.present else f"trtexec ({api.reason})",
        logs={step: text for step, text in logs.items() if text},
    )
