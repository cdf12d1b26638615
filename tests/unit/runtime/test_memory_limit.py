"""Who ended a process that had a control group of its own: its limit, or somebody else's lack of memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from edgedeploy.runtime.agent.memory_limit import clear_left, ended_by

LIMIT_BYTES = 500_000_000
KILLED = "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"
PEAKS = ("memory.max_usage_in_bytes", "memory.memsw.max_usage_in_bytes")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"memory.events": "low 0\nhigh 0\nmax 31\noom 1\noom_kill 1\n"}, True),
        ({"memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 1\n"}, False),  # the machine's memory was gone
        ({"memory.events": "low 0\nhigh 0\nmax 31\noom 0\noom_kill 0\n"}, False),  # reclaimed, and nobody ended
        ({"memory.oom_control": KILLED, "memory.max_usage_in_bytes": "499990528\n"}, True),
        ({"memory.oom_control": KILLED, **dict.fromkeys(PEAKS, "499990528\n")}, True),
        ({"memory.oom_control": KILLED, **dict.fromkeys(PEAKS, "410000000\n")}, False),
        ({"memory.oom_control": "under_oom 0\noom_kill 0\n", **dict.fromkeys(PEAKS, "499990528\n")}, False),
        ({}, False),
    ],
)
def test_only_a_group_that_was_at_its_limit_ended_its_process(
    files: Mapping[str, str], expected: bool, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="ascii")
    assert ended_by(tmp_path, LIMIT_BYTES) is expected


def test_groups_that_a_killed_supervisor_left_are_removed(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, in_use, own = f"edgedeploy-{gone.pid}-0a", f"edgedeploy-{gone.pid}-0b", f"edgedeploy-{os.getpid()}-0c"
    for name in (left, in_use, own, "edgedeploy-theirs", "somebody-else"):
        (tmp_path / name).mkdir()
    (tmp_path / in_use / "inside").touch()
    clear_left(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {in_use, own, "edgedeploy-theirs", "somebody-else"}
