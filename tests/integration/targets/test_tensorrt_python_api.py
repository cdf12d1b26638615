"""Outputs by TensorRT's Python API: the runner that goes to the board, against a SIMULATION of the API. No GPU runs here."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simulated_tensorrt
import simulated_trtexec
from small_onnx import convolutional, feeds, request

from edgedeploy.boards.local import LocalTransport
from edgedeploy.errors import MeasurementError
from edgedeploy.records.artifact import Artifact
from edgedeploy.reference.export import open_onnx
from edgedeploy.targets.tensorrt import TensorRtTarget, TrtResult, measure_on_board
from edgedeploy.targets.tensorrt.trtexec.pyapi import RUNNER, PythonApi, run_case

pytestmark = pytest.mark.beside

ORIN = {"code": "100300", "build": 30, "gpu": "Orin", "capability": "8.7"}


@pytest.fixture(scope="module")
def compiler() -> str:
    found = shutil.which("cc")
    if found is None:
        pytest.skip("no C compiler on this machine: apt-get install gcc")
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Path]:
    folder = tmp_path_factory.mktemp("built")
    path = convolutional(folder / "reference.onnx")
    return TensorRtTarget().build(request(path, "float32"), folder / "artifact"), folder


def measure(built: tuple[Artifact, Path], board: Path, python: str, **settings: Any) -> TrtResult:
    artifact, folder = built
    trtexec = simulated_trtexec.install(board / "bin", **{**ORIN, **settings})
    (board / "proc" / "device-tree").mkdir(parents=True, exist_ok=True)
    (board / "proc" / "device-tree" / "model").write_bytes(b"NVIDIA Jetson Orin\0")
    (board / "proc" / "device-tree" / "compatible").write_bytes(b"nvidia,tegra234\0")
    return measure_on_board(
        LocalTransport(),
        artifact,
        folder / "artifact",
        feeds(artifact.inputs[0], count=2),
        root=str(board / "root"),
        candidates=(trtexec,),
        sysroot=str(board),
        python=python,
    )


def wanted(built: tuple[Artifact, Path]) -> Any:
    session = open_onnx(built[1] / "reference.onnx", threads=1)
    return np.stack([session.run(["out"], feed)[0] for feed in feeds(built[0].inputs[0], count=2)])


def calls(board: Path) -> str:
    return (board / "bin" / "calls.log").read_text(encoding="utf-8")


def test_outputs_come_from_the_python_api(built: tuple[Artifact, Path], compiler: str, tmp_path: Path) -> None:
    python = simulated_tensorrt.install(tmp_path / "python", "10.3.0", compiler)
    result = measure(built, tmp_path, python)
    assert result.outputs_by == "TensorRT's Python API"
    np.testing.assert_allclose(result.outputs["out"], wanted(built), rtol=1e-5, atol=1e-6)
    assert "--exportOutput" not in calls(tmp_path)
    assert all("SIMULATION" in result.logs[f"case {number}"] for number in range(2))
    assert list((tmp_path / "root" / "runs").iterdir()) == []


def test_without_the_api_trtexec_gives_them_and_the_reason_is_kept(
    built: tuple[Artifact, Path], compiler: str, tmp_path: Path
) -> None:
    other = simulated_tensorrt.install(tmp_path / "other", "8.6.1", compiler)
    no_cuda = simulated_tensorrt.install(tmp_path / "nocuda", "10.3.0", compiler, cuda=False)
    for python, told in (
        ("/nowhere/python3", "No such file"),
        (other, "of TensorRT 8.6.1, trtexec of 10.3.0"),
        (no_cuda, "CUDA"),
    ):
        result = measure(built, tmp_path, python)
        assert result.outputs_by.startswith("trtexec"), python
        assert told in result.outputs_by
        np.testing.assert_allclose(result.outputs["out"], wanted(built), rtol=1e-4, atol=1e-5)


def test_releases_without_named_tensors_are_not_asked(tmp_path: Path) -> None:
    path = convolutional(tmp_path / "old.onnx", opset=13)
    old = TensorRtTarget().build(request(path, "float32"), tmp_path / "built" / "artifact")
    result = measure((old, tmp_path / "built"), tmp_path, "/nowhere/python3", code="8201")
    assert "names no tensors" in result.outputs_by


def test_an_api_that_fails_midway_is_an_error(built: tuple[Artifact, Path], compiler: str, tmp_path: Path) -> None:
    """No falling back then: what it said is the finding."""
    python = simulated_tensorrt.install(tmp_path / "python", "10.3.0", compiler)
    (tmp_path / "foreign.plan").write_bytes(b"native code of somebody else")
    specs = (built[0].inputs, built[0].outputs)
    (tmp_path / "in.bin").write_bytes(bytes(4 * 3 * 16 * 16))
    api = PythonApi(python, str(RUNNER))
    with pytest.raises(MeasurementError, match="does not load the engine"):
        run_case(
            LocalTransport(),
            api,
            str(tmp_path / "foreign.plan"),
            {"image": str(tmp_path / "in.bin")},
            specs,
            str(tmp_path),
        )


def test_the_runner_uses_names_that_nvidias_package_has() -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="no package of NVIDIA's here: pip install tensorrt-rtx")
    text = RUNNER.read_text(encoding="utf-8")
    for kind, owner in (("engine", trt.ICudaEngine), ("context", trt.IExecutionContext), ("runtime", trt.Runtime)):
        used = set(re.findall(rf"\b{kind}\.(\w+)", text))
        assert used and used <= set(dir(owner)), kind
    assert set(re.findall(r"\btrt\.(\w+)", text)) <= set(dir(trt))
