"""The agent on the interpreters that boards have, with the last runtimes that exist for each: real ones, over real SSH."""

from __future__ import annotations

import io
import json
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import agent_pythons
import numpy as np
import onnx
import product_kit
import pytest
import simulated_tensorrt
from board_kit import OUTPUTS_ONLY, SHORT_SCENARIOS, conv_model, make_job, make_payload, patient

from edgedeploy.boards.agent.file import agent_file
from edgedeploy.boards.open import open_board
from edgedeploy.errors import CommandFailed
from edgedeploy.evidence.metrics import scenario_metrics
from edgedeploy.interfaces.board import BoardSession
from edgedeploy.interfaces.target import Target
from edgedeploy.records.job import Job, MeasurePlan, Payload, RawRun
from edgedeploy.reference.export import run_reference
from edgedeploy.reference.parity import check_executed, check_parity
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.targets.litert.target import LiteRtTarget
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
from edgedeploy.targets.openvino.target import OpenVinoTarget
from edgedeploy.testing import models

IMPORT_ALL = """
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import edgedeploy.runtime
names = [found.name for found in pkgutil.walk_packages(edgedeploy.runtime.__path__, "edgedeploy.runtime.")]
for name in names:
    importlib.import_module(name)
print(len(names), edgedeploy.runtime.__file__)
"""
TARGETS: Mapping[str, Callable[[], Target]] = {
    "onnxruntime": OnnxRuntimeTarget,
    "openvino": OpenVinoTarget,
    "litert": LiteRtTarget,
}
PLAN = MeasurePlan(queries=8, warmup=1, block=4, cold_starts=1, time_limit_s=60.0, profile_runs=2)
WITHOUT_PROFILER = {("3.8", "litert"), ("3.9", "litert")}
"""LiteRT's profiler came with a release that these have not got."""


@pytest.mark.beside
@pytest.mark.parametrize("version", agent_pythons.VERSIONS)
def test_every_module_of_the_agent_is_imported(version: str, tmp_path: Path) -> None:
    """By the interpreter alone: numpy and runtimes are imported by whoever opens a session. Warnings of what a later
    Python will refuse are errors."""
    python, _ = find(version)
    zipfile.ZipFile(io.BytesIO(agent_file().data)).extractall(tmp_path)
    folder = tmp_path / "edgedeploy" / "runtime"
    modules = [path for path in folder.rglob("*.py") if path != folder / "__init__.py"]
    argv = [python, "-I", "-W", "error", "-c", IMPORT_ALL, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(len(modules)), str(folder / "__init__.py")]


@pytest.mark.slow
@pytest.mark.beside
@pytest.mark.parametrize("version", list(agent_pythons.PACKAGES))
def test_a_bundle_answers_as_it_was_measured(version: str, tmp_path: Path) -> None:
    """By the files of the agent, which are the whole runtime, with that interpreter's own release of ONNX Runtime."""
    python = made_environment(version)
    zipfile.ZipFile(io.BytesIO(agent_file().data)).extractall(tmp_path / "agent")
    key, trust = product_kit.make_key(tmp_path)
    files = product_kit.for_machine(product_kit.make_files(), platform.machine())
    bundle = product_kit.write_signed(tmp_path / "bundle", files, key)
    frame = tmp_path / "frame.npy"
    np.save(frame, product_kit.frames(1)[0])
    for command in (["activate", bundle, "--root", tmp_path / "root"], ["run", tmp_path / "root" / "current"]):
        argv = [python, "-I", tmp_path / "agent", *command, "--trust", trust]
        argv += ["--frames", frame, "--out", tmp_path / "out"] if command[0] == "run" else []
        done = subprocess.run([str(item) for item in argv], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    ready, answer = map(json.loads, done.stdout.splitlines())
    assert ready["proof"]["cases"] == 2 and answer["shapes"] == {"result": [24, 40]}
    assert set(np.unique(np.load(tmp_path / "out" / "frame.npy"))) <= {0, 1}


def find(version: str) -> tuple[str, str]:
    try:
        return agent_pythons.find(version)
    except agent_pythons.NotHere as exc:
        pytest.skip(str(exc))


def made_environment(version: str) -> Path:
    try:
        return agent_pythons.environment(version)
    except agent_pythons.NotHere as exc:
        pytest.skip(str(exc))


class OldBoard(NamedTuple):
    version: str
    session: BoardSession


@pytest.fixture(scope="module", params=list(agent_pythons.PACKAGES))
def old(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An emulated board whose table names an interpreter of that version."""
    python = made_environment(request.param)
    root = str(tmp_path_factory.mktemp("root"))
    board = patient(open_board({"name": "old", "kind": "emulated", "python": str(python), "root": root}))
    with board.session() as session:
        yield OldBoard(request.param, session)


class Built(NamedTuple):
    model: models.Model
    payload: Payload
    cases: list[dict[str, Any]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Built]:
    """What the targets of this host build of one network, with four cases; each is built once for all interpreters."""
    folder = tmp_path_factory.mktemp("built")
    model = models.two_heads(folder / "model")
    cases = list(models.images(seed=2, count=4))
    np.savez(folder / "cases.npz", image=np.stack([case["image"] for case in cases]))
    shelf: dict[tuple[str, str], Payload] = {}

    def get(target: str, precision: str) -> Built:
        if (target, precision) not in shelf:
            place = folder / f"{target}-{precision}"
            place.mkdir()
            artifact = TARGETS[target]().build(model.request(precision), place)
            shelf[target, precision] = Payload(artifact, place, folder / "cases.npz", 1)
        return Built(model, shelf[target, precision], cases)

    return get


def check_outputs(run: RawRun, built: Built, precision: str) -> None:
    """Against the reference as any measurement is, and for float32 against what this host's own release answers."""
    assert run.outputs is not None
    with np.load(run.outputs) as data:
        found = {name: data[name] for name in data.files}
    expected = [run_reference(built.model.reference, case) for case in built.cases]
    check_parity({name: np.stack([row[name] for row in expected]) for name in expected[0]}, found, precision)
    if precision == "float32":
        payload = built.payload
        artifact = payload.artifact
        session = open_session(artifact.target, payload.folder, artifact.entry, dict(artifact.settings), 1)
        for number, case in enumerate(built.cases):
            for name, values in session.run(case).items():
                np.testing.assert_allclose(found[name][number], values, rtol=1e-4, atol=1e-5)


@pytest.mark.slow  # as all that may have to make an environment first
@pytest.mark.waiting
@pytest.mark.usefixtures("warm_converter")
@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("target", agent_pythons.TARGETS)
def test_what_the_targets_build_is_measured(
    old: OldBoard, built: Callable[[str, str], Built], target: str, precision: str, tmp_path: Path
) -> None:
    made = built(target, precision)
    run = old.session.measure(Job(made.payload, built("onnxruntime", "float32").payload, PLAN), tmp_path)
    assert run.baseline is not None
    for side in (run.candidate, run.baseline):
        assert [len(block) for block in side.blocks_ns] == [4, 4]
        assert min(time_ns for block in side.blocks_ns for time_ns in block) > 0
        assert len(side.cold_starts_ns) == 1 and side.peak_memory_bytes > 10_000_000
    check_outputs(run, made, precision)
    check_executed(precision, run.candidate.executed)
    assert old.session.info.python.startswith(f"{old.version}.")
    assert run.candidate.runtime_version == old.session.info.runtimes[target]
    assert run.layers["baseline"]["layers"]
    if (old.version, target) in WITHOUT_PROFILER:
        assert "2.3 and newer do" in run.layers["candidate"]["missing"]
    else:
        assert sum(layer["ns"] for layer in run.layers["candidate"]["layers"]) > 0


@pytest.mark.slow
@pytest.mark.waiting
def test_tensorrt_is_measured_as_jetpack_5_brings_it(tmp_path: Path) -> None:
    """Python 3.8 and TensorRT 8.5, which is SIMULATED here: its engine is built on the board, before anything is timed."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler on this machine: apt-get install gcc")
    python = simulated_tensorrt.install(
        tmp_path / "jetson", "8.5.2", compiler, interpreter=str(made_environment("3.8"))
    )
    table = {"name": "jetson", "kind": "emulated", "python": python, "root": str(tmp_path / "root")}
    board = patient(open_board(table))
    candidate = make_payload(tmp_path / "candidate", target="tensorrt", settings={"precisions": "float32"})
    with board.session() as session:
        run = session.measure(Job(candidate, make_payload(tmp_path / "baseline"), PLAN), tmp_path)
        assert session.info.runtimes["tensorrt"] == run.candidate.runtime_version == "8.5.2"
        assert session.info.python.startswith("3.8.")
    assert run.candidate.device == simulated_tensorrt.GPU
    assert run.candidate.executed == {"float32": 2} and len(run.candidate.cold_starts_ns) == 1
    assert {layer["operator"] for layer in run.layers["candidate"]["layers"]} == {"Convolution"}
    assert len(simulated_tensorrt.builds(tmp_path / "jetson")) == 1


@pytest.mark.slow
@pytest.mark.waiting
def test_all_scenarios_run(old: OldBoard, tmp_path: Path) -> None:
    plan = MeasurePlan(queries=8, warmup=1, block=4, cold_starts=0, time_limit_s=60.0, scenarios=SHORT_SCENARIOS)
    run = old.session.measure(make_job(tmp_path / "job", plan=plan), tmp_path)
    assert set(run.scenarios) == {item.name for item in SHORT_SCENARIOS}
    _, missing = scenario_metrics(list(run.scenarios), run.candidate, run.scenarios)
    # Few frames carry no far percentile, a host may lack sensors, and all streams and users that are tried may fit; the
    # 64 requests here are too few for a 99th percentile.
    few = {"realtime_result_age_p99_ns", "server_latency_p99_ns"}
    assert missing.keys() <= few | {"sustained_temperature_rise_c", "multi_stream_streams", "users_within_deadline"}


@pytest.mark.slow
@pytest.mark.waiting
def test_a_file_newer_than_the_boards_runtime_is_about_the_board(old: OldBoard, tmp_path: Path) -> None:
    """And no failure of the variant: the same file runs where the runtime is newer."""

    def newest(path: Path) -> None:
        conv_model(path)
        model = onnx.load(str(path))
        model.ir_version = 13
        onnx.save(model, str(path))

    job = make_job(tmp_path / "job", newest, OUTPUTS_ONLY)
    if old.session.info.runtimes["onnxruntime"] != "1.19.2":
        assert old.session.measure(job, tmp_path).outputs is not None
        return
    with pytest.raises(
        CommandFailed, match=r"onnxruntime 1\.19\.2 reads files up to ONNX IR version 10, and .* has 13"
    ):
        old.session.measure(job, tmp_path)


@pytest.mark.beside
@pytest.mark.parametrize("version", ["2.7", "3.6", "3.7"])
def test_an_interpreter_too_old_is_refused_in_one_sentence(version: str, tmp_path: Path) -> None:
    """The agent cannot even be parsed there."""
    python, whole = find(version)
    board = open_board({"name": "cart", "kind": "local", "python": python, "root": str(tmp_path / "root")})
    with pytest.raises(CommandFailed) as caught:
        board.probe()
    assert caught.value.found.startswith(f"{python} is Python {whole}, and the agent needs 3.8 or newer")
    assert "in the board's table: python = " in caught.value.remedy
    assert not (tmp_path / "root").exists()


@pytest.mark.beside
def test_only_interpreters_that_run_are_proposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version manager's stand-ins are there and end at once where nothing is behind them."""
    python, _ = find("3.7")
    for name, line in (("python3.13", "exit 127"), ("python3.12", f'exec "{sys.executable}" "$@"')):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    board = open_board({"name": "cart", "kind": "local", "python": python, "root": str(tmp_path / "root")})
    with pytest.raises(CommandFailed) as caught:
        board.probe()
    assert caught.value.remedy.endswith(f'python = "{tmp_path}/bin/python3.12"')
    assert "python3.13" not in caught.value.found


@pytest.mark.beside
def test_a_program_that_is_no_python_is_said(tmp_path: Path) -> None:
    board = open_board({"name": "cart", "kind": "local", "python": "/bin/true", "root": str(tmp_path / "root")})
    with pytest.raises(CommandFailed, match=r"/bin/true answered nothing: it is no Python.*in the board's table"):
        board.probe()
