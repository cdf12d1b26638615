"""A board table's power mode, set for a real run of the agent on this host and put back after it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import simulated_nvpmodel
from board_kit import make_job, patient

from edgedeploy.boards.open import open_board
from edgedeploy.errors import CommandFailed
from edgedeploy.interfaces.board import Board

pytestmark = pytest.mark.beside


def local_board(root: Path, **table: object) -> Board:
    return patient(open_board({"name": "here", "kind": "local", "root": str(root), "python": sys.executable, **table}))


@pytest.mark.skipif(os.geteuid() != 0, reason="nvpmodel is run through sudo without root")
def test_a_simulated_mode_holds_for_the_run_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    mode = simulated_nvpmodel.install(programs, 2)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    with local_board(tmp_path / "root", nvpmodel=0).session() as session:
        raw = session.measure(make_job(tmp_path / "job"), tmp_path)
        assert mode.read_text() == "2\n"
    assert raw.environment["power_mode_asked"] == {"power_mode": "MODE_0 (0)"}
    assert Path(f"{mode}.log").read_text().split() == ["0", "2"]


@pytest.mark.skipif(Path("/sys/devices/system/cpu/cpu0/cpufreq").exists(), reason="this host has cpufreq")
def test_a_governor_that_the_board_lacks_refuses_the_run(tmp_path: Path) -> None:
    board = local_board(tmp_path / "root", governor="performance")
    with board.session() as session, pytest.raises(CommandFailed, match="no cpufreq") as caught:
        session.measure(make_job(tmp_path / "job"), tmp_path)
    assert "sudoers" in caught.value.remedy
