"""Makes a clean copy of a user's ONNX file, from which artifacts are then built.

The file is not trusted: all that parses, folds or runs it happens in a process with limits (:mod:`.take_in_child`), and
this process sees the copy alone. What no target supports (an open dimension, a custom operator, a text input) is refused,
and the error names the tensor or operator. What is done to the copy stands in :mod:`.clean`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgedeploy import errors
from edgedeploy.errors import DataError, EdgeDeployError, OpenShape, Setting, Unsupported
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.reference.ready import child_command
from edgedeploy.reference.safety import Limits, check_size, run_limited

MAX_MODEL_BYTES: Final = 1 << 30
"""Largest model including its weights. protobuf's own limit is 2 GiB; edge boards hold far less."""

MEMORY_BYTES: Final = 4 << 30
MEMORY_PER_BYTE: Final = 10
"""The process may use this much memory: a fixed part, and so many bytes for each byte of the model and its folder's
files, because model, copy, and ONNX Runtime's weights of both are in memory at once."""

CPU_S: Final = 120

SHAPES: Final = "task.options.shapes"
"""The table of a study file that names shapes of inputs: errors are about its keys."""


@dataclass(frozen=True)
class TakenIn:
    """The clean copy. ``sha256`` is that of the original with its weights; ``notes`` say what was changed. ``as_given``
    says why the copy is computed in the precisions that the file itself has, empty for a float32 or float16 network."""

    data: bytes
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    notes: tuple[str, ...]
    as_given: str = ""


def take_in(
    path: Path,
    shapes: Mapping[str, Sequence[int]],
    constants: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
) -> TakenIn:
    """A clean copy of the model at ``path``.

    ``shapes`` maps input names to shapes and fixes their open dimensions; ``constants`` maps input names to a number (or
    nested lists of them), which the copy holds in the place of that input.

    Raises ``DataError`` for a file that is not a model, reads outside its folder or exhausts its limits, ``SpecError`` for
    shapes and constants that do not fit, ``Unsupported`` for what no target supports.
    """
    asked = f"model {path}"
    check_size(asked, path, MAX_MODEL_BYTES)
    limits = limits or Limits(MAX_MODEL_BYTES, memory_bytes=memory_bytes(path), cpu_s=CPU_S)
    order = {
        "path": str(path.absolute()),
        "shapes": {name: list(shape) for name, shape in shapes.items()},
        "constants": dict(constants or {}),
        "file_bytes": limits.file_bytes,
        "tensor_bytes": limits.tensor_bytes,
    }
    argv = child_command("edgedeploy.reference.take_in_child")
    with tempfile.TemporaryFile(prefix="edgedeploy-") as stream:
        stream.write(json.dumps(order).encode())
        stream.seek(0)
        head, _, data = run_limited(asked, argv, limits, stream).partition(b"\n")
    answer: dict[str, Any] = json.loads(head)
    if "error" in answer:
        raise _error(answer)
    inputs, outputs = (tuple(TensorSpec.from_json(item) for item in answer[side]) for side in ("inputs", "outputs"))
    return TakenIn(data, answer["sha256"], inputs, outputs, tuple(answer["notes"]), answer["as_given"])


def _error(answer: Mapping[str, Any]) -> EdgeDeployError:
    """The error that the process told, of the same class and with the same values."""
    kind = getattr(errors, answer["error"], DataError)
    asked = Setting(**answer["setting"]) if answer["setting"] else answer["asked"]
    if (shape := answer["open_shape"]) is not None:
        sizes = None if shape["sizes"] is None else tuple(shape["sizes"])
        return Unsupported(asked, answer["found"], answer["remedy"], OpenShape(shape["name"], sizes))
    found: EdgeDeployError = kind(asked, answer["found"], answer["remedy"])
    return found


def memory_bytes(path: Path) -> int:
    """What a process may use that runs the model, never much more than most of this host's memory."""
    size_bytes = min(MAX_MODEL_BYTES, sum(_size(near) for near in path.parent.iterdir()))
    host_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(MEMORY_BYTES + MEMORY_PER_BYTE * size_bytes, max(MEMORY_BYTES, host_bytes * 3 // 4))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:  # a link that leads nowhere
        return 0
