"""Parses and builds an ONNX file by TensorRT for RTX on the CPU, in a separate process (:mod:`.rtx_worker`).

The process is separate so that a native crash does not end a study and printed lines do not break its display. RTX is
only a proxy: the board's TensorRT is another release for another GPU, and an engine built here cannot be loaded without
a driver.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import BuildError, Unsupported
from edgedeploy.targets.tensorrt import rtx_worker
from edgedeploy.targets.tensorrt.proof import Evidence, Level

PACKAGE: Final = "tensorrt-rtx"
TIME_LIMIT_S: Final = 600.0
GPU: Final = "SM86"
"""Desktop Ampere: of the GPUs that RTX builds for, the nearest to Orin (8.7)."""

HARMLESS: Final = (
    re.compile(r"Empty initializer \S+ was provided with non-empty data\. Overriding data to nullptr\.?$"),
    re.compile(r"Make sure (?:input|output) .+ has Int64 binding\.$"),
)
"""Warnings that say nothing about the network. The parser prints the first for tensors without elements (the unused ``roi``
of a Resize) whose data is empty in the file as well; the second tells the caller the type of an input or output."""


class ProxyDied(BuildError):
    """The proxy's process ended without a result, which says nothing about the file."""


class ProxyRefused(Unsupported):
    """The proxy's parser refuses a file that meets the rules. ``by`` names the proxy."""

    def __init__(self, by: str, found: str) -> None:
        super().__init__(f"the parser of {by}", found, "Lint the file; replace what it names")
        self.by = by


@dataclass(frozen=True)
class RtxResult:
    """``errors`` and ``warnings`` are the parser's; ``build_problems`` are the builder's errors and warnings. A warning
    counts as a failure, because TensorRT only warns when it changes what the network computes (UINT8 zero points)."""

    version: str
    parsed: bool
    built: bool
    layers: int
    engine_bytes: int
    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    build_problems: tuple[str, ...]

    @property
    def evidence(self) -> Evidence:
        """Raises :class:`ProxyRefused` when the parser does not take the file. A builder that fails says less, because
        kernels differ between the proxy and the board: the file is ``PARSED`` then."""
        by = f"{PACKAGE} {self.version} on the CPU, for {GPU}"
        doubts = tuple(line for line in self.warnings if not any(known.search(line) for known in HARMLESS))
        if not self.parsed or doubts:
            found = (self.errors or doubts or ("no reason given",))[0]
            raise ProxyRefused(by, found)
        if not self.built or self.build_problems:
            found = (self.build_problems or ("no reason given",))[0]
            return Evidence(Level.PARSED, by, f"the parser took it; no engine: {found[:300]}")
        return Evidence(Level.BUILT, by, "a proxy: the board's release and GPU differ, nothing was run")


def installed_version() -> str | None:
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return None


def check(path: Path) -> RtxResult:
    """Raises :class:`ProxyDied` when the process ends without an answer or takes too long."""
    argv = [sys.executable, "-P", rtx_worker.__file__, str(path), GPU]  # by its file: its package would be imported too
    asked = f"a check of {path.name} by {PACKAGE}"
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False)
    except subprocess.TimeoutExpired as exc:
        raise ProxyDied(asked, f"no answer within {TIME_LIMIT_S:g} s", "Try a smaller network") from exc
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        said = done.stderr.strip().splitlines()
        raise ProxyDied(asked, f"exit status {done.returncode}: {said[-1] if said else 'silence'}", "Check the package")
    data: dict[str, Any] = json.loads(lines[-1])
    data.update({name: tuple(value) for name, value in data.items() if isinstance(value, list)})
    return RtxResult(**data)
