"""Builds on the workers of a real Dask cluster that have no board: processes of their own on loopback, which are killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import dask_kit
import numpy as np
import pytest
from board_kit import SHAPE, conv_model
from fault_kit import wait_for

from edgedeploy.errors import BuildError
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.interfaces.task import Array
from edgedeploy.lab.builders import build_elsewhere
from edgedeploy.lab.wire import pack_request, unpack_request
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget

pytestmark = pytest.mark.beside

pytest.importorskip("distributed", reason="Dask is not installed: pip install 'edgedeploy[lab]'")


def request_in(folder: Path, cases: int) -> BuildRequest:
    conv_model(folder / "reference.onnx")
    rows = np.random.default_rng(1).normal(size=(cases, *SHAPE)).astype(np.float32)

    def calibration() -> Iterator[dict[str, Array]]:
        return ({"x": row} for row in rows)

    out = TensorSpec("y", "float32", (1, 2, 16, 16))
    return BuildRequest(folder / "reference.onnx", (TensorSpec("x", "float32", SHAPE),), (out,), "int8", calibration)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[Any, dict[str, subprocess.Popen[bytes]]]]:
    """A client and two workers, by name; each has ``tmp_path/NAME`` for its temporary files."""
    from distributed import Client

    with ExitStack() as stack:

        def start(name: str, *arguments: str) -> subprocess.Popen[bytes]:
            place = tmp_path / name
            place.mkdir()
            with (place / "log").open("wb") as log:
                environment = {**os.environ, "TMPDIR": str(place)}
                argv = [sys.executable, "-m", *arguments]
                process = subprocess.Popen(argv, stdout=log, stderr=log, env=environment)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        said = dask_kit.place_of_scheduler(tmp_path)
        start("scheduler", *dask_kit.scheduler(said))
        address = dask_kit.address(said)
        worker = ("distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard")
        workers = {name: start(name, *worker, "--name", name) for name in "ab"}
        client = stack.enter_context(Client(address, timeout=60, set_as_default=False))
        client.wait_for_workers(2, timeout=120)
        yield client, workers


def names_of(client: Any) -> Callable[[], list[str]]:
    return lambda: sorted(client.scheduler_info(n_workers=-1)["workers"])


@pytest.mark.fault(4)
def test_a_killed_worker_loses_no_build(
    cluster: tuple[Any, dict[str, subprocess.Popen[bytes]]], tmp_path: Path
) -> None:
    """SIGKILL in the middle of a build, twice: the other worker builds it, then the coordinator; the files are the same."""
    client, workers = cluster
    (tmp_path / "given").mkdir()
    request, target = request_in(tmp_path / "given", cases=10_000), OnnxRuntimeTarget()
    build = partial(build_elsewhere, client, names_of(client), target, request)

    def at_work() -> list[str]:
        return [name for name in workers if list((tmp_path / name).glob("edgedeploy-build-*/made"))]

    def strike() -> None:
        (struck,) = wait_for("a worker to build", at_work)
        process = workers.pop(struck)
        process.kill()
        process.wait()

    with ThreadPoolExecutor() as pool:
        (tmp_path / "first").mkdir()
        future = pool.submit(build, tmp_path / "first")
        strike()
        wait_for("the other worker to take it", at_work)
        first = future.result(240)
        (tmp_path / "second").mkdir()
        future = pool.submit(build, tmp_path / "second")
        strike()
        second = future.result(240)
    assert first.precision == "int8"
    assert first == second
    for file in first.files:
        assert (tmp_path / "first" / file.name).read_bytes() == (tmp_path / "second" / file.name).read_bytes()


def test_what_arrives_damaged_is_not_built(tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "there").mkdir()
    request = request_in(tmp_path / "given", cases=2)
    for name in ("reference.onnx.data", "reference-tile-0123abcd.onnx"):
        (tmp_path / "given" / name).write_bytes(b"1")
    packed = pack_request(request)
    assert {*packed["files"]} == {"reference.onnx", "reference.onnx.data"}, "weights go along, graphs of tiles do not"
    again = unpack_request(packed, tmp_path / "there")
    assert again.reference.read_bytes() == request.reference.read_bytes()
    both = zip(request.calibration(), again.calibration(), strict=True)
    assert all(np.array_equal(one["x"], other["x"]) for one, other in both)
    sha256, content = packed["files"]["reference.onnx"]
    packed["files"]["reference.onnx"] = (sha256, content[:-1] + b"?")
    with pytest.raises(BuildError, match="damaged"):
        unpack_request(packed, tmp_path / "there")
