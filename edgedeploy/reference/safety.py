"""Checks an ONNX file of unknown origin before edgedeploy loads it.

The check runs in a separate process with limits on memory, processor time and written files, so that a file made to
crash or exhaust a parser harms nothing else. It refuses a file that

- names weights outside its own folder,
- reaches its weights through a link, or
- declares a tensor larger than the limit.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedeploy.errors import DataError, TargetUnavailable
from edgedeploy.reference import safety_child


@dataclass(frozen=True)
class Limits:
    """``file_bytes`` limits the model file and each file of weights, ``tensor_bytes`` any one tensor whose shape is
    known, ``memory_bytes`` and ``cpu_s`` the checking process."""

    file_bytes: int = 1 << 30
    tensor_bytes: int = 2 << 30
    memory_bytes: int = 8 << 30
    cpu_s: int = 60


def check_onnx(path: Path, limits: Limits | None = None) -> None:
    """Raises ``DataError`` for a file that may not be loaded, with the reason; ``TargetUnavailable`` without onnx."""
    limits = limits or Limits()
    asked = f"ONNX file {path}"
    if not path.is_file():
        raise DataError(asked, "there is no such file")
    if path.stat().st_size > limits.file_bytes:
        raise DataError(asked, f"it has {path.stat().st_size} bytes", f"At most {limits.file_bytes} are read")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
        resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_s, limits.cpu_s))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    argv = [sys.executable, "-P", safety_child.__file__, str(path.absolute()), str(limits.tensor_bytes)]
    try:
        done = subprocess.run(
            argv, capture_output=True, preexec_fn=limit, timeout=2 * limits.cpu_s, check=False, cwd="/"
        )
    except subprocess.TimeoutExpired as exc:
        raise DataError(asked, f"looking at it takes longer than {2 * limits.cpu_s} s", "Do not load it") from exc
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", errors="replace").strip().splitlines()[-1:]
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
        raise DataError(asked, f"the process that parses it ended with {how}: {''.join(said)[:300]}", "Do not load it")
    answer: dict[str, Any] = json.loads(done.stdout)
    if "missing" in answer:
        raise TargetUnavailable(asked, answer["missing"], "pip install 'edgedeploy[study]'")
    if answer["problem"] is not None:
        raise DataError(asked, answer["problem"], "Do not load it; export it again from its source")
