"""Small models, jobs and boards for the tests of the runtime and of boards."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedeploy.boards.emulated.board import find_sshd, serve
from edgedeploy.boards.local import LocalTransport
from edgedeploy.boards.ssh.transport import SshTransport
from edgedeploy.interfaces.board import Board, Transport
from edgedeploy.records.artifact import Artifact, TensorSpec
from edgedeploy.records.job import Job, MeasurePlan, Payload
from edgedeploy.spec.scenarios import (
    FlareTable,
    MultiStreamTable,
    OfflineTable,
    RealtimeTable,
    ResourcesTable,
    ServerTable,
    SustainedTable,
)

SHAPE = (1, 3, 16, 16)
TRANSPORTS = ("local", "embedded", "sshd")

STUDY_LIMIT_S = 560.0
"""After which a study in a process of its own counts as hung. No test judges its speed: two cores without AVX-512 on which
other work runs take many times what idle new ones take, and boards whose int8 sums saturate are asked more often."""

MACHINE_WAIT_S = 600.0
"""How long a job without a study waits for the machine: emulated boards of tests that run beside it have it for minutes."""

EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "examples"

OUTPUTS_ONLY = MeasurePlan(queries=0, cold_starts=0, time_limit_s=60.0)
ENDLESS = MeasurePlan(queries=50_000_000, warmup=1, block=1000, cold_starts=0, time_limit_s=300.0)

ASLEEP = RealtimeTable(rate_hz=4.0, frames=4000, deadline="1 s")  # type: ignore[arg-type]
ENDLESS_ASLEEP = MeasurePlan(queries=0, cold_starts=0, time_limit_s=300.0, scenarios=(ASLEEP.plan(Path()),))
"""A run that leaves the processor to others, for a test in which it goes on for long: it mostly waits for its next frame."""

SHORT_REALTIME = RealtimeTable(
    rate_hz=400.0,
    frames=80,
    deadline="20 ms",  # type: ignore[arg-type]
    stages=("decode", "resize", "overlay"),
    frame_rows=60,
    frame_columns=80,
)
SHORT_SERVER = ServerTable.model_validate(
    {"deadline": "1 s", "percentile": 90, "queries": 64, "every": "0.1 s", "most": 50, "samples": 8}
)
SHORT_SCENARIOS = (
    SustainedTable(duration="1 s", window="0.1 s").plan(),  # type: ignore[arg-type]
    SHORT_REALTIME.plan(Path()),
    MultiStreamTable(interval="2 ms", percentile=90, queries=64, most=8).plan(),  # type: ignore[arg-type]
    OfflineTable(samples=100, chunks=7).plan(),
    FlareTable(cases=2, period="10 ms").plan(),  # type: ignore[arg-type]
    SHORT_SERVER.plan(Path()),
    ResourcesTable(inferences=3, repeats=2, period="10 ms").plan(),  # type: ignore[arg-type]
)
"""Every scenario as a study file would have it, but short."""


def patient(board: Board) -> Board:
    """The board, which waits as long for this machine as tests beside this one may have it."""
    board._options = replace(board._options, wait_s=MACHINE_WAIT_S)  # type: ignore[attr-defined]
    return board


def need_sshd() -> None:
    if find_sshd() is None:
        pytest.skip("no sshd on this machine: apt-get install openssh-server")


@contextlib.contextmanager
def open_transport(kind: str) -> Iterator[Transport]:
    """A transport of each kind in ``TRANSPORTS``, to this machine."""
    if kind == "local":
        with contextlib.closing(LocalTransport()) as transport:
            yield transport
        return
    if kind == "sshd":
        need_sshd()
    with (
        serve(kind) as target,
        contextlib.closing(SshTransport(target, connect_timeout_s=120.0, stall_s=60.0)) as transport,
    ):
        yield transport


def save_model(path: Path, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto]) -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "tiny",
        [value("x", TensorProto.FLOAT, SHAPE)],
        [value("y", TensorProto.FLOAT, None)],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def conv_model(path: Path) -> None:
    """Two convolutions: 3 -> 8 -> 2 channels."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(size=(8, 3, 3, 3)).astype(np.float32), "w1"),
        numpy_helper.from_array(rng.normal(size=(2, 8, 3, 3)).astype(np.float32), "w2"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["y"], pads=[1] * 4),
    ]
    save_model(path, nodes, weights)


def nan_model(path: Path) -> None:
    """The logarithm of negative numbers."""
    one = numpy_helper.from_array(np.float32([1.0]), "one")
    nodes = [
        helper.make_node("Abs", ["x"], ["a"]),
        helper.make_node("Add", ["a", "one"], ["b"]),
        helper.make_node("Neg", ["b"], ["n"]),
        helper.make_node("Log", ["n"], ["y"]),
    ]
    save_model(path, nodes, [one])


def constant_model(path: Path) -> None:
    """Zero times the input."""
    zero = numpy_helper.from_array(np.float32([0.0]), "zero")
    save_model(path, [helper.make_node("Mul", ["x", "zero"], ["y"])], [zero])


def huge_model(path: Path) -> None:
    """Asks for 4 TB."""
    shape = numpy_helper.from_array(np.int64([1_000_000, 1_000_000]), "shape")
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["h"]),
        helper.make_node("ReduceMax", ["h"], ["m"], keepdims=0),
        helper.make_node("Add", ["x", "m"], ["y"]),
    ]
    save_model(path, nodes, [shape])


def hungry_model(path: Path, rows: int = 300) -> None:
    """Fills 4 MB a row at each run, 1.2 GB in all: the size depends on the input, so that nothing is folded away when it
    is loaded."""
    shape = numpy_helper.from_array(np.int64([rows, 1_000_000]), "shape")
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Expand", ["m", "shape"], ["h"]),
        helper.make_node("Sqrt", ["h"], ["s"]),
        helper.make_node("ReduceMax", ["s"], ["t"], keepdims=0),
        helper.make_node("Add", ["x", "t"], ["y"]),
    ]
    save_model(path, nodes, [shape])


def broken_model(path: Path) -> None:
    path.write_bytes(b"this is no model")


def make_payload(
    folder: Path,
    write: Callable[[Path], None] = conv_model,
    *,
    target: str = "onnxruntime",
    settings: dict[str, str] | None = None,
    cases: int = 6,
    threads: int = 1,
) -> Payload:
    """An artifact of one model with random inputs, in ``folder``."""
    place = folder / "artifact"
    place.mkdir(parents=True)
    write(place / "model.onnx")
    artifact = Artifact.of_folder(
        place,
        target=target,
        precision="float32",
        entry="model.onnx",
        inputs=(TensorSpec("x", "float32", SHAPE),),
        outputs=(TensorSpec("y", "float32", (1, 2, 16, 16)),),
        settings=settings or {},
        reference_sha256="0" * 64,
        built_with={},
    )
    inputs = folder / "inputs.npz"
    rng = np.random.default_rng(1)
    np.savez(inputs, x=rng.normal(size=(cases, *SHAPE)).astype(np.float32))
    return Payload(artifact, place, inputs, threads)


def make_job(folder: Path, write: Callable[[Path], None] = conv_model, plan: MeasurePlan = OUTPUTS_ONLY) -> Job:
    return Job(make_payload(folder, write), None, plan)


def squares_study(folder: Path, *changes: tuple[str, str]) -> Path:
    """The example study with other lines, in a file of its own beside its task. Without cold starts, which are half of the
    time for which a run of so small a network has the machine, and the other tests have to wait."""
    shutil.copy(EXAMPLES / "squares.py", folder)
    text = (EXAMPLES / "squares.toml").read_text()
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    text = text.replace("cold_starts = 1", "cold_starts = 0")
    path = folder / "study.toml"
    path.write_text(text)
    return path
