"""Looks at an ONNX file of unknown origin in a process with limits, before edgedeploy loads it.

The process has limits on memory, processor time and written files, so that a file made to crash or exhaust a parser
harms nothing else. A file is refused that

- names weights outside its own folder,
- reaches its weights through a link that leads out of it, or
- declares a tensor larger than the limit, in its graph or in a graph inside a node.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

from edgedeploy.errors import DataError, TargetUnavailable
from edgedeploy.reference import safety_child
from edgedeploy.reference.no_network import leave_network
from edgedeploy.reference.ready import ready
from edgedeploy.runtime.files import sha256_file


@dataclass(frozen=True)
class Limits:
    """``file_bytes`` limits the model file and each file of weights, ``tensor_bytes`` any one tensor whose shape is
    known, ``memory_bytes`` and ``cpu_s`` the checking process. With ``each`` that process counts ``cpu_s`` anew for each
    case that it runs."""

    file_bytes: int = 1 << 30
    tensor_bytes: int = 2 << 30
    memory_bytes: int = 8 << 30
    cpu_s: int = 60
    each: bool = False


LEAST_OF_READY_BYTES: Final = 1 << 30
"""Below so much memory a process is started for the look: what a fork of the process that is ready has already would not
count."""

_MOST_REMEMBERED: Final = 4096

_found_sound: set[tuple[str, str, Limits]] = set()
"""Digests of files that this process had looked at, with the limits. A study, its builds and their checks come to one file
many times, and each look is a process of its own. The process that looks takes the digest of the very bytes that it parsed.
A file whose weights lie in others is looked at each time: links and those others may change."""


def check_onnx(path: Path, limits: Limits | None = None) -> None:
    """Raises ``DataError`` for a file that may not be loaded, with the reason; ``TargetUnavailable`` without onnx."""
    limits = limits or Limits()
    asked = f"ONNX file {path}"
    check_size(asked, path, limits.file_bytes)
    if _found_sound and (sha256_file(path), path.suffix, limits) in _found_sound:
        return
    argv = [sys.executable, "-P", safety_child.__file__, str(path.absolute()), str(limits.tensor_bytes)]
    answer: dict[str, Any] = json.loads(run_limited(asked, argv, limits))
    if "missing" in answer:
        raise TargetUnavailable(asked, answer["missing"], "pip install 'edgedeploy[study]'")
    if answer["problem"] is not None:
        raise unsafe(asked, answer["problem"])
    if answer["alone"] and len(_found_sound) < _MOST_REMEMBERED:
        _found_sound.add((answer["sha256"], path.suffix, limits))


def check_size(asked: str, path: Path, most_bytes: int) -> None:
    """Raises ``DataError`` for a file that is not there or too large."""
    if not path.is_file():
        raise DataError(asked, "there is no such file", "Paths are relative to the study file")
    if path.stat().st_size > most_bytes:
        raise DataError(asked, f"it has {path.stat().st_size} bytes", f"At most {most_bytes} are read")


def unsafe(asked: str, found: str) -> DataError:
    return DataError(asked, found, "Do not load it; export it again from its source")


def run_limited(asked: str, argv: Sequence[str], limits: Limits, source: IO[bytes] | int = subprocess.DEVNULL) -> bytes:
    """Standard output of a process with limits, and without a network where the kernel can take it, that reads ``source``.
    Raises ``DataError`` when the process dies, which is what a file made to harm a parser brings about."""

    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    env = {**os.environ, **single}
    patience = None if limits.each else patience_s(limits.cpu_s)
    try:
        done = _looked(argv, limits, source, env, patience)
    except subprocess.TimeoutExpired as exc:
        raise DataError(
            asked, f"looking at it takes longer than {patience_s(limits.cpu_s)} s", "Do not load it"
        ) from exc
    if done.returncode != 0:
        last = done.stderr.decode("utf-8", errors="replace").strip().splitlines()[-1:]
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
        text = f"the process that parses it ended with {how}: {''.join(last)[:300]}".rstrip(": ")
        if -done.returncode in (signal.SIGXCPU, signal.SIGALRM):
            text = f"looking at it takes more than {limits.cpu_s} s of processor time"
        raise DataError(asked, text, "Do not load it")
    return done.stdout


def _looked(
    argv: Sequence[str], limits: Limits, source: IO[bytes] | int, env: Mapping[str, str], patience: float | None
) -> subprocess.CompletedProcess[bytes]:
    """By a fork of the process that is ready, or by a process of its own. Raises ``subprocess.TimeoutExpired``."""
    if limits.memory_bytes >= LEAST_OF_READY_BYTES:
        opened = Path(os.devnull).open("rb") if isinstance(source, int) else contextlib.nullcontext(source)  # noqa: SIM115
        with opened as stream:
            at = stream.tell()
            done = ready.run(argv, asdict(limits), stream.fileno(), env, patience)
            if done is not None:
                return done
            stream.seek(at)  # the position is shared with whoever began to read
    return subprocess.run(
        argv,
        stdin=source,
        capture_output=True,
        preexec_fn=lambda: hold(limits),
        timeout=patience,
        check=False,
        cwd="/",
        env=env,
    )


def hold(limits: Limits) -> None:
    """Hold this process to its limits from now on, and take the network from it."""
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_s, resource.RLIM_INFINITY if limits.each else limits.cpu_s + 5))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    leave_network()


def patience_s(cpu_s: int) -> int:
    """How long a process may take for so much processor time beside others that want the same cores."""
    return 30 + 4 * cpu_s
