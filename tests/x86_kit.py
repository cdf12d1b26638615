"""The emulated x86-64 processor with AVX2 and nothing newer, for tests; where it cannot be, a visible skip."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgedeploy.boards.x86 import haswell
from edgedeploy.errors import TargetUnavailable

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "as-avx2"


@functools.cache
def _problem() -> str | None:
    try:
        haswell.check("emulated:x86-avx2")
    except TargetUnavailable as exc:
        return str(exc)
    return None


def need_avx2_emulation() -> None:
    if problem := _problem():
        pytest.skip(problem)


def as_avx2(argv: Sequence[str | Path], timeout_s: float = 300.0) -> subprocess.CompletedProcess[str]:
    """``argv`` and all that it starts, as on that processor."""
    command = [sys.executable, str(SCRIPT), *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)
