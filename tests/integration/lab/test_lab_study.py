"""One study on several boards at once, over real SSH connections. The boards are this machine, so they take turns."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import warm_cli
from board_kit import STUDY_LIMIT_S

from edgedeploy.study.store import Store

pytestmark = [pytest.mark.beside, pytest.mark.slow]

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"
SECOND = '[[boards]]\nname = "second"\nkind = "emulated"\nserver = "embedded"\nroot = "{root}"\n\n[space]'


def two_boards(folder: Path) -> Path:
    shutil.copy(EXAMPLES / "squares.py", folder)
    text = (EXAMPLES / "squares.toml").read_text(encoding="utf-8")
    text = text.replace("[space]", SECOND.format(root=folder / "root"), 1).replace(', "openvino"]', "]")
    study = folder / "squares.toml"
    study.write_text(text.replace("count = 32", "count = 8"), encoding="utf-8")
    return study


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [*warm_cli.command(), *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=STUDY_LIMIT_S)


def test_boards_share_a_study_and_each_measurement_names_its_board(tmp_path: Path) -> None:
    study, out = two_boards(tmp_path), tmp_path / "out"
    done = run("search", study, "--out", out, "--boards", "loopback,second", "--trials", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    measured = Store(out).measurements()
    assert len({item.digest for item in measured}) == len(measured) == 5
    assert {item.board.name for item in measured} == {"loopback", "second"}
    assert "ratios compare across boards" in done.stdout
    assert Store(out).confirmations()

    front = json.loads(run("front", out, "--json").stdout)
    assert front["board"] == "loopback + second"
    assert {row["board"] for row in front["rows"]} == {"loopback", "second"}

    refused = run("search", study, "--out", out, "--board", "here", "--resume")
    assert refused.returncode == 2
    assert "loopback + second" in refused.stderr

    study.write_text(study.read_text().replace('"latency_ratio"', '"latency_p50_ns"'))
    refused = run("search", study, "--out", tmp_path / "other", "--boards", "loopback,second")
    assert refused.returncode == 2
    assert "compares across boards" in refused.stderr
