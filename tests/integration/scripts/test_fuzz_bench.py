"""`scripts/bench fuzz`: a small share of its cases on every change, and that it finds what it is for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from board_kit import STUDY_LIMIT_S

pytestmark = pytest.mark.beside

REPO = Path(__file__).resolve().parents[3]
SECONDS = float(os.environ.get("EDGEDEPLOY_FUZZ_SECONDS", "12"))
"""More of it: EDGEDEPLOY_FUZZ_SECONDS=120, or `scripts/bench fuzz --seconds 120 --check` every night."""


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(REPO / "scripts" / "bench.py"), "fuzz", *arguments]
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    return subprocess.run(argv, capture_output=True, text=True, env=env, check=False, timeout=SECONDS + STUDY_LIMIT_S)


@pytest.mark.fault(51)
def test_nothing_that_is_damaged_ends_in_anything_but_a_typed_error() -> None:
    done = fuzz("--seconds", str(SECONDS), "--seed", "3", "--check")
    assert (done.returncode, "VIOLATION" in done.stdout) == (0, False), done.stdout + done.stderr
    found = {line.split()[0]: [int(n) for n in line.split()[1:]] for line in done.stdout.splitlines()[1:9]}
    assert set(found) == {"answers", "bundle", "dicom", "folder", "onnx", "study", "tegrastats", "trtexec"}
    assert all(cases > 0 and refused > 0 for cases, refused, *_ in found.values())


def test_a_case_is_repeated_by_its_number() -> None:
    """Of study files, which no recorded run is part of."""
    first, again = (fuzz("--case", "2", "--seed", "3").stdout.splitlines()[0] for _ in range(2))
    assert re.match(r"study, \S+\.toml, \d+ bytes: ", first)
    assert first == again
