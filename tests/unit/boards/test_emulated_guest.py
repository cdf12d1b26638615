"""What becomes of an emulated board whose keepers end at any moment: it ends with them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fault_kit import wait_for

from edgedeploy.runtime.processes import end_all_with_argument, start_ticks, with_argument

STARTS = """
import os, sys, time
from pathlib import Path
from types import SimpleNamespace
from edgedeploy.boards.emulated import guest

folder, stop_at, calls, kernel = Path(sys.argv[1]), int(sys.argv[2]), [], guest._libc

def prctl(*what):
    calls.append(what)
    if len(calls) == stop_at:
        (folder / "part").write_text(str(os.getppid()))
        (folder / "part").rename(folder / "stopped")
        while not (folder / "go").exists():
            time.sleep(0.01)
    return kernel.prctl(*what) if stop_at else 0

def serve():
    (folder / "serves").touch()
    time.sleep(60)

guest._libc = SimpleNamespace(unshare=lambda flags: 0, prctl=prctl)
guest._map_users = lambda process: None
guest._hold(serve)
"""
"""SIMULATED: without namespaces, which need rights. The processes, their pipes and signals are real."""

NEVER = "0"
"""Stops nowhere, and the kernel ends nobody."""


def living(folder: Path) -> list[int]:
    return [pid for pid in with_argument(str(folder)) if start_ticks(pid) is not None]


@pytest.mark.parametrize("stop_at", [1, 2], ids=["between the two", "the first of the board"])
def test_a_process_whose_parent_dies_before_it_could_ask_to_die_with_it(stop_at: int, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", STARTS, str(tmp_path), str(stop_at)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as keeper:
        try:
            wait_for("it to be about to ask", (tmp_path / "stopped").exists)
            os.kill(int((tmp_path / "stopped").read_text()), signal.SIGKILL)
            keeper.wait()
            (tmp_path / "go").touch()
            wait_for("all of them to end", lambda: not living(tmp_path), patience_s=30.0)
            assert not (tmp_path / "serves").exists()
        finally:
            end_all_with_argument(str(tmp_path))


def test_the_board_has_ended_when_its_keeper_has(tmp_path: Path) -> None:
    """It is ended and waited for. The kernel, which ends it after its parent, takes its time: here it does not."""
    with subprocess.Popen([sys.executable, "-c", STARTS, str(tmp_path), NEVER], stdin=subprocess.PIPE) as keeper:
        try:
            assert keeper.stdin is not None
            wait_for("the board to serve", (tmp_path / "serves").exists)
            keeper.stdin.close()
            keeper.wait()
            assert living(tmp_path) == []
        finally:
            end_all_with_argument(str(tmp_path))
