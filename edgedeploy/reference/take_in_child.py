"""The process with limits that takes a user's ONNX file in: an order as JSON on standard input, an answer on standard
output: one line of JSON, and then the bytes of the clean copy."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgedeploy.errors import DataError, EdgeDeployError, TargetUnavailable, Unsupported
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.runtime.faults import lacks_memory


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    order: dict[str, Any] = json.load(sys.stdin)
    try:
        answer, data = _take_in(order)
    except EdgeDeployError as exc:
        answer, data = _told(exc, order), b""
    except (MemoryError, RecursionError) as exc:
        answer, data = _answer(_exhausted(order, exc)), b""
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


def _told(exc: EdgeDeployError, order: dict[str, Any]) -> dict[str, Any]:
    return _answer(_exhausted(order, exc) if any(map(lacks_memory, _causes(exc))) else exc)


def _causes(exc: BaseException) -> Iterator[BaseException]:
    while (below := exc.__cause__ or exc.__context__) is not None:
        yield below
        exc = below


def _answer(exc: EdgeDeployError) -> dict[str, Any]:
    """What :func:`edgedeploy.reference.take_in.take_in` raises again."""
    shape = exc.open_shape if isinstance(exc, Unsupported) else None
    return {
        **exc.as_json(),
        "setting": asdict(exc.setting) if exc.setting else None,
        "open_shape": asdict(shape) if shape else None,
    }


def _exhausted(order: dict[str, Any], exc: BaseException) -> DataError:
    found = (
        "its graphs are nested too deeply" if isinstance(exc, RecursionError) else "it asks for more memory than it may"
    )
    return DataError(f"model {order['path']}", found, "Do not load it; export it again from its source")
