"""``edgedeploy doctor --board``: what a board is and what is worth building for it, before anything is built."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.beside

STUDY = Path(__file__).resolve().parents[1] / "examples" / "squares.toml"


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgedeploy", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_board_says_which_precisions_are_worth_trying() -> None:
    done = doctor("--board", "local", "--json")
    found = {finding["what"]: finding["found"] for finding in json.loads(done.stdout)}
    assert done.returncode == 0
    assert "cores" in found["board local"]
    assert "accelerators: " in found["board local"]
    for target in ("onnxruntime", "openvino"):
        assert {part.split(" (")[0] for part in found[f"board local, {target}"].split("; ")} >= {"float32", "int8"}


def test_the_board_of_a_study_is_looked_at_alone() -> None:
    done = doctor(str(STUDY), "--board", "here", "--json")
    assert {finding["what"].split(",")[0] for finding in json.loads(done.stdout)} == {"board here"}


def test_an_unknown_board_names_the_near_miss() -> None:
    done = doctor(str(STUDY), "--board", "her")
    assert done.returncode == 2
    assert "Did you mean 'here'" in done.stderr
    assert "Traceback" not in done.stderr
