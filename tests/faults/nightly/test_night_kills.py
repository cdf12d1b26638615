"""A night is killed at six moments: no session is lost or kept twice, the verdicts are those of an undisturbed night."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from board_kit import STUDY_LIMIT_S

REPO = Path(__file__).resolve().parents[3]
PROGRAM = Path(__file__).with_name("night_kills.py")


@pytest.mark.fault(4)
@pytest.mark.timeout(STUDY_LIMIT_S)
def test_a_night_that_is_killed_loses_and_doubles_nothing(tmp_path: Path) -> None:
    paths = os.pathsep.join([str(REPO), str(REPO / "tests")])
    ran = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=STUDY_LIMIT_S,
        env={**os.environ, "PYTHONPATH": paths},
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = json.loads(ran.stdout.splitlines()[-1])
    assert told["kills"] == 6 and told["sessions"] == 6
