"""Reads an engine's outputs by TensorRT's Python API, if the board has it: exact bytes instead of printed numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.errors import MeasurementError
from edgedeploy.files import parsed
from edgedeploy.interfaces.board import Transport
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.runtime.sessions.tensorrt import case as tensorrt_case
from edgedeploy.targets.tensorrt.version import TrtVersion

RUNNER: Final = Path(tensorrt_case.__file__)
NAMED_TENSORS: Final = TrtVersion(8, 5)
TIMEOUT_S: Final = 120.0


@dataclass(frozen=True)
class PythonApi:
    """The board's Python and the path of our runner. If the API cannot be used, ``reason`` says why and the rest is
    empty."""

    python: str = ""
    runner: str = ""
    reason: str = ""

    @property
    def present(self) -> bool:
        return not self.reason


def find_api(transport: Transport, version: TrtVersion, python: str, work: str) -> PythonApi:
    """Upload the runner into ``work`` on the board and query its release, which must equal that of trtexec."""
    if version < NAMED_TENSORS:
        return PythonApi(reason=f"the Python API of TensorRT {version} names no tensors")
    runner = f"{work}/{RUNNER.name}"
    transport.put(RUNNER, runner, timeout_s=TIMEOUT_S)
    done = transport.run([python, runner], timeout_s=TIMEOUT_S)
    if done.exit_status != 0:
        return PythonApi(reason=f"{python} on the board: {_last_line(done.stderr)}")
    try:
        found = str(parsed(done.stdout)["tensorrt"])
    except (ValueError, KeyError, RecursionError):
        return PythonApi(reason=f"{python} on the board answers {done.stdout[:100]!r}")
    if not f"{found}.".startswith(f"{version}."):
        return PythonApi(reason=f"its Python API is of TensorRT {found}, trtexec of {version}")
    return PythonApi(python, runner)


def run_case(
    transport: Transport,
    api: PythonApi,
    plan: str,
    inputs: Mapping[str, str],
    specs: tuple[Sequence[TensorSpec], Sequence[TensorSpec]],
    work: str,
) -> tuple[str, dict[str, Array]]:
    """The runner's log and the engine's outputs. ``inputs`` maps tensor to file on the board; ``specs`` are those of
    the inputs and of the outputs. Raises ``MeasurementError`` or ``BoardError``."""
    outputs = {spec.name: f"{work}/output-{index}.bin" for index, spec in enumerate(specs[1])}
    transport.run(["rm", "-f", *outputs.values()], timeout_s=TIMEOUT_S)
    case = {"plan": plan, "inputs": _listed(specs[0], inputs), "outputs": _listed(specs[1], outputs)}
    transport.write_bytes(f"{work}/case.json", json.dumps(case).encode(), timeout_s=TIMEOUT_S)
    done = transport.run([api.python, api.runner, f"{work}/case.json"], timeout_s=TIMEOUT_S)
    if done.exit_status != 0:
        raise MeasurementError("one case by TensorRT's Python API", _last_line(done.stderr), "Run it again")
    found = {spec.name: _array(transport, outputs[spec.name], spec) for spec in specs[1]}
    return done.stderr.decode("utf-8", errors="replace"), found


def _listed(specs: Sequence[TensorSpec], paths: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"name": spec.name, "path": paths[spec.name], "bytes": _size(spec)} for spec in specs]


def _array(transport: Transport, path: str, spec: TensorSpec) -> Array:
    data = transport.read_bytes(path, timeout_s=TIMEOUT_S, limit_bytes=_size(spec))
    if data is None or len(data) != _size(spec):
        found = "nothing" if data is None else f"{len(data)} bytes"
        raise MeasurementError(f"{_size(spec)} bytes of output {spec.name!r}", found, "Run it again")
    array: Array = np.frombuffer(data, dtype=spec.dtype).reshape(spec.shape)
    return array


def _size(spec: TensorSpec) -> int:
    return int(np.prod(spec.shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize


def _last_line(data: bytes) -> str:
    lines = data.decode("utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "silence"
