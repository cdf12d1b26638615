"""A study is killed at random moments: no variant is lost, none is measured twice, the front is the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from board_kit import STUDY_LIMIT_S
from fault_kit import local_board

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"
PROGRAM = Path(__file__).with_name("kills.py")


def small_study(folder: Path, *others: tuple[str, str]) -> Path:
    """The example with few cases and few queries: its trials take about two seconds."""
    text = (EXAMPLES / "squares.toml").read_text()
    for old, new in (
        ("count = 32", "count = 8"),
        ('kind = "local"', f'kind = "local"\nroot = "{folder / "root"}"'),
        ('kind = "emulated"', f'kind = "emulated"\nroot = "{folder / "root"}"'),
        ("queries = 64", "queries = 8"),
        ("cold_starts = 1", "cold_starts = 0"),
        *others,
    ):
        assert old in text
        text = text.replace(old, new)
    (folder / "squares.py").write_text((EXAMPLES / "squares.py").read_text())
    (folder / "squares.toml").write_text(text)
    return folder / "squares.toml"


def kill_often(study: Path, board: str, kills: int, seed: int, timeout_s: float) -> dict[str, Any]:
    argv = [sys.executable, str(PROGRAM), str(study), str(study.parent), board, str(kills), str(seed)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=timeout_s)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert len(found["points_s"]) == kills
    assert sum(end["kills"] for end in found["ends"]) == kills
    return found


@pytest.mark.fault(4, 14)
def test_a_dozen_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    """One target on this host."""
    study = small_study(tmp_path, ('targets = ["onnxruntime", "openvino"]', 'targets = ["onnxruntime"]'))
    kill_often(study, "here", kills=12, seed=14, timeout_s=STUDY_LIMIT_S)


@pytest.mark.fault(4, 14)
def test_kills_of_a_study_on_two_boards(tmp_path: Path) -> None:
    """Several jobs are under way at each kill; no board is left held, and none of its processes is left."""
    second = f'[[boards]]\nname = "second"\nkind = "local"\nroot = "{tmp_path / "second"}"\n\n[space]'
    study = small_study(
        tmp_path, ('targets = ["onnxruntime", "openvino"]', 'targets = ["onnxruntime"]'), ("[space]", second)
    )
    kill_often(study, "here,second", kills=3, seed=7, timeout_s=STUDY_LIMIT_S)
    assert set(json.loads((tmp_path / "study-0" / "study.json").read_text())["boards"]) == {"here", "second"}
    for root in (tmp_path / "root", tmp_path / "second"):
        assert list(root.glob("jobs/*")) == []
        board = local_board(root, wait_s=0.0)
        with board.session() as session:
            assert session.info.identity


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.fault(4, 14)
def test_a_hundred_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    """Two targets, over SSH."""
    found = kill_often(small_study(tmp_path), "loopback", kills=100, seed=100, timeout_s=3500)
    sys.stdout.write(json.dumps(found) + "\n")
