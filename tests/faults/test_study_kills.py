"""A study is killed at random moments: no variant is lost, none is measured twice, the front is the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
PROGRAM = Path(__file__).with_name("kills.py")


def small_study(folder: Path) -> Path:
    """The example with one target, few cases and few queries, on this host: its trials take about two seconds."""
    text = (EXAMPLES / "squares.toml").read_text()
    for old, new in (
        ('targets = ["onnxruntime", "openvino"]', 'targets = ["onnxruntime"]'),
        ("count = 32", "count = 8"),
        ('kind = "local"', f'kind = "local"\nroot = "{folder / "root"}"'),
        ("queries = 64", "queries = 8"),
        ("cold_starts = 1", "cold_starts = 0"),
    ):
        assert old in text
        text = text.replace(old, new)
    (folder / "squares.py").write_text((EXAMPLES / "squares.py").read_text())
    (folder / "squares.toml").write_text(text)
    return folder / "squares.toml"


def kill_often(folder: Path, kills: int, seed: int, timeout_s: float) -> dict[str, Any]:
    argv = [sys.executable, str(PROGRAM), str(small_study(folder)), str(folder), "here", str(kills), str(seed)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=timeout_s)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert len(found["points_s"]) == kills
    assert sum(end["kills"] for end in found["ends"]) == kills
    return found


@pytest.mark.fault(4, 14)
def test_a_dozen_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    kill_often(tmp_path, kills=12, seed=14, timeout_s=280)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.fault(4, 14)
def test_a_hundred_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    found = kill_often(tmp_path, kills=100, seed=100, timeout_s=3500)
    sys.stdout.write(json.dumps(found["ends"]) + "\n")
