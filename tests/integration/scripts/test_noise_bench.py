"""The bench that counts false verdicts: real pairs in small, its exact intervals, and no burst that outlives it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import noise
from board_kit import STUDY_LIMIT_S

REPO = Path(__file__).resolve().parents[3]
DOOR = REPO / "scripts/bench.py"


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [(0, 200, 0.0, 0.0183), (2, 200, 0.0012, 0.0357), (190, 200, 0.9104, 0.9758), (200, 200, 0.9817, 1.0)],
)
def test_intervals_are_clopper_and_pearsons(hits: int, of: int, low: float, high: float) -> None:
    assert noise.Share(hits, of).interval() == pytest.approx((low, high), abs=5e-4)


def test_one_pair_of_each_kind_is_measured_kept_and_judged(tmp_path: Path) -> None:
    results = tmp_path / "noise.jsonl"
    argv = [sys.executable, str(DOOR), "noise", str(results), "--pairs", "1"]
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=STUDY_LIMIT_S, check=True)
    (row,) = [json.loads(line) for line in results.read_text().splitlines()]
    for kind in ("same", "slower"):
        assert len(row[kind]["candidate"]) == len(row[kind]["baseline"]) == 84
    assert len(row["sequential"]["candidate"]) == len(row["sequential"]["baseline"]) == 672
    assert "1 pairs of each kind, 672 queries a side" in done.stdout
    assert " of 1 = " in done.stdout


def test_bursts_end_when_whoever_started_them_is_gone() -> None:
    argv = [sys.executable, str(DOOR), "noise", "--burn", str(min(os.sched_getaffinity(0))), "1"]
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    burning = subprocess.Popen(argv, stdin=subprocess.PIPE, env=env)
    assert burning.stdin is not None
    burning.stdin.close()
    assert burning.wait(60) == 0
