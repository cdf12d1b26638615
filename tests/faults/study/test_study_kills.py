"""A study is killed at random moments: no variant is lost or measured twice, the front is that of an undisturbed run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from board_kit import STUDY_LIMIT_S, need_sshd, squares_study

pytestmark = pytest.mark.waiting

REPO = Path(__file__).resolve().parents[3]
PROGRAM = Path(__file__).with_name("kills.py")

BOARDS = """\
[[boards]]
name = "loopback"
kind = "emulated"
server = "embedded"

[[boards]]
name = "here"
kind = "local"
"""
BOARD = """\
[[boards]]
name = "board"
kind = "ssh"
host = "127.0.0.1"
port = @port@
identity = "@identity@"
known_hosts = "@known_hosts@"
python = "@python@"
root = "@root@"
"""
SECOND = """
[[boards]]
name = "second"
kind = "local"
root = "@second@"
"""
FEW = (
    ('targets = ["onnxruntime", "openvino"]', 'targets = ["onnxruntime"]'),
    ("kernel = [3, 5]", "kernel = [3]"),
    ("trials = 6", "trials = 4"),
)


def finite_study(folder: Path, *others: tuple[str, str]) -> Path:
    """The example over SSH with few cases and few queries. It ends when every variant of its space has an outcome, in
    whatever order they were proposed."""
    return squares_study(
        folder,
        (BOARDS, BOARD),
        ("count = 32", "count = 8"),
        ("queries = 64", "queries = 8"),
        ("cold_starts = 1", "cold_starts = 0"),
        *others,
    )


def kill_often(study: Path, kills: int, seed: int, timeout_s: float, *options: str) -> dict[str, Any]:
    need_sshd()
    argv = [sys.executable, str(PROGRAM), str(study), str(study.parent), str(kills), str(seed), *options]
    path = os.pathsep.join([str(REPO), str(REPO / "tests"), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=timeout_s, env=env)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert sum(found["hits"].values()) == kills == sum(end["kills"] for end in found["ends"])
    return found


@pytest.mark.fault(4, 14)
def test_fifteen_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    """Three of each kind; the hundred below take more moments."""
    found = kill_often(finite_study(tmp_path, *FEW), kills=15, seed=14, timeout_s=STUDY_LIMIT_S)
    assert set(found["hits"]) == {"host", "supervisor", "worker", "session", "daemon"}


@pytest.mark.fault(4, 14)
def test_kills_of_a_study_on_two_boards(tmp_path: Path) -> None:
    """Several jobs are under way at each kill; no board is left held, and none of its processes is left."""
    study = finite_study(tmp_path, *FEW, ("[space]", f"{SECOND}\n[space]"))
    kill_often(study, 4, 7, STUDY_LIMIT_S, "--boards=board,second")
    assert set(json.loads((tmp_path / "study-0" / "study.json").read_text())["boards"]) == {"board", "second"}


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.fault(4, 14)
def test_a_hundred_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    """Two targets, 16 variants, and the pauses that the product makes."""
    study = finite_study(tmp_path, ("trials = 6", "trials = 16"))
    found = kill_often(study, 100, 100, 3500, "--patient")
    sys.stdout.write(json.dumps(found) + "\n")
