"""The process with limits that takes a user's ONNX file in: an order as JSON on standard input, an answer on standard
output: one line of JSON, and then the bytes of the clean copy."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from edgedeploy.errors import DataError, EdgeDeployError, TargetUnavailable
from edgedeploy.records.artifact import TensorSpec

OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "Failed to allocate", "BFCArena", "out of memory")
"""What ONNX Runtime says where memory ends."""


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    order: dict[str, Any] = json.load(sys.stdin)
    try:
        answer, data = _take_in(order)
    except EdgeDeployError as exc:
        answer, data = _told(exc, order), b""
    except (MemoryError, RecursionError) as exc:
        answer, data = _exhausted(order, exc).as_json(), b""
    answers.write(json.dumps(answer).encode() + b"\n" + data)
    answers.flush()
    os._exit(0)  # destructors of runtimes have nothing to add


def _take_in(order: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    try:
        from edgedeploy.reference.clean import clean
    except ModuleNotFoundError as exc:
        found = f"{exc.name} is not installed"
        raise TargetUnavailable(f"model {order['path']}", found, "pip install 'edgedeploy[study]'") from exc
    copy = clean(
        Path(order["path"]),
        {name: tuple(shape) for name, shape in order["shapes"].items()},
        order["constants"],
        file_bytes=order["file_bytes"],
        tensor_bytes=order["tensor_bytes"],
    )
    return {
        "sha256": copy.sha256,
        "inputs": _specs(copy.inputs),
        "outputs": _specs(copy.outputs),
        "notes": list(copy.notes),
        "as_given": copy.as_given,
    }, copy.data


def _specs(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
    return [spec.as_json() for spec in specs]


def _told(exc: EdgeDeployError, order: dict[str, Any]) -> dict[str, str]:
    if any(words in exc.found for words in OUT_OF_MEMORY):
        return _exhausted(order, exc).as_json()
    return exc.as_json()


def _exhausted(order: dict[str, Any], exc: BaseException) -> DataError:
    found = (
        "its graphs are nested too deeply" if isinstance(exc, RecursionError) else "it asks for more memory than it may"
    )
    return DataError(f"model {order['path']}", found, "Do not load it; export it again from its source")
