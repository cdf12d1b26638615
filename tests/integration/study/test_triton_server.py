"""A repository for Triton's Python backend, loaded and asked by a real Triton server.

``nvidia-pytriton`` brings the server; it needs a numpy of its own (below 2), so it has an environment of its own, which
``EDGEDEPLOY_TRITON`` names: ``python -m venv DIR; DIR/bin/pip install nvidia-pytriton onnxruntime; DIR/bin/pip install
--no-deps -e .``
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from board_kit import SHAPE, make_payload

from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.study.oneshot.repository import Served, write_repository

pytestmark = pytest.mark.waiting

START_LIMIT_S = 60.0


def environment() -> Path:
    named = os.environ.get("EDGEDEPLOY_TRITON")
    if not named:
        pytest.skip("EDGEDEPLOY_TRITON names no environment with nvidia-pytriton, which brings a Triton server")
    return Path(named)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Where a server answers that has loaded one artifact, and the folder of that artifact."""
    home = environment()
    (package,) = home.glob("lib/python3.*/site-packages/pytriton/tritonserver")
    python = package.parents[2].name.removeprefix("python")
    folder = tmp_path_factory.mktemp("triton")
    payload = make_payload(folder / "job")
    write_repository("triton-python", Served("conv", payload.artifact, payload.folder, 1), folder / "repository")
    backend = shutil.copytree(package / "backends" / "python", folder / "backends" / "python")
    stub = shutil.copy(package / "python_backend_stubs" / python / "triton_python_backend_stub", backend)
    server = shutil.copy(package / "bin" / "tritonserver", folder)
    for program in (stub, server):
        Path(program).chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    libraries = str(package.parents[1] / "nvidia_pytriton.libs")
    variables = {**os.environ, "PATH": f"{home / 'bin'}:{os.environ['PATH']}", "LD_LIBRARY_PATH": libraries}
    options = [f"--model-repository={folder / 'repository'}", f"--backend-directory={folder / 'backends'}"]
    options += ["--http-address=127.0.0.1", f"--http-port={port}", "--allow-grpc=false", "--allow-metrics=false"]
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen([server, *options], env=variables, stdout=log, stderr=log)
    try:
        yield ready(running, f"http://127.0.0.1:{port}/v2", folder / "log"), payload.folder
    finally:
        running.terminate()
        running.wait(30)


def ready(running: subprocess.Popen[bytes], at: str, log: Path) -> str:
    ends = time.monotonic() + START_LIMIT_S
    while time.monotonic() < ends and running.poll() is None:
        try:
            with urllib.request.urlopen(f"{at}/health/ready", timeout=2):
                return at
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"the server did not start:\n{log.read_text(errors='replace')[-3000:]}")


def ask(at: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{at}/{path}", data), timeout=10) as answer:
        return json.load(answer)


def test_a_triton_server_answers_as_the_session_that_was_measured(address: tuple[str, Path]) -> None:
    at, artifact = address
    assert ask(at, "models/conv/config")["instance_group"][0]["kind"] == "KIND_CPU"
    case = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    asked = {"name": "x", "shape": list(SHAPE), "datatype": "FP32", "data": case.ravel().tolist()}
    (found,) = ask(at, "models/conv/infer", {"inputs": [asked]})["outputs"]
    session = open_session("onnxruntime", artifact, "model.onnx", {}, 1)
    wanted = session.run({"x": case})["y"]
    np.testing.assert_allclose(np.reshape(found["data"], found["shape"]), wanted, rtol=1e-5, atol=1e-6)
