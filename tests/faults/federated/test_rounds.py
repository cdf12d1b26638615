"""Rounds of recovery whose sites and server are killed by SIGKILL: real processes of this host, over our own grid."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fault_kit import wait_for

from edgedeploy.errors import DamagedFile
from edgedeploy.federated.recovery import CHECKPOINT, RecoverySettings, recover
from edgedeploy.federated.recovery_processes import ProcessGrid
from edgedeploy.federated.secure_sum import NoAggregate

pytestmark = pytest.mark.waiting

HERE = Path(__file__).parent
START = {"w": np.zeros(3)}
MEAN = (1 * 1 + 2 * 2 + 3 * 3) / 6
"""What a round adds: each site adds its number, and has so many cases."""


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[ProcessGrid]:
    site = str(HERE / "rounds_site.py")
    commands = {node: [sys.executable, site, str(node), str(tmp_path)] for node in (1, 2, 3)}
    with ProcessGrid(commands) as found:
        yield found


def settings(rounds: int, **more: Any) -> RecoverySettings:
    return RecoverySettings(rounds, wait_s=0.01, timeout_s=300, **more)


def log(folder: Path, node: int) -> list[int]:
    return [int(line) for line in (folder / f"{node}.log").read_text().split()]


def test_a_killed_site_is_left_out_of_its_round_and_is_back_in_the_next(tmp_path: Path, grid: ProcessGrid) -> None:
    (tmp_path / "3.kill-2").touch()
    (tmp_path / "server").mkdir()
    done = recover(grid, START, tmp_path / "server", settings(3))
    assert done.done == 3
    assert np.allclose(done.weights["w"], 2 * MEAN + (1 + 4) / 3)
    assert [set(told["cases"]) for told in done.told] == [{"1", "2", "3"}, {"1", "2"}, {"1", "2", "3"}]
    assert "its process ended" in done.told[1]["left_out"]["3"]
    assert log(tmp_path, 3) == [1, 3]


def test_with_too_few_sites_the_round_is_tried_again_and_then_an_error(tmp_path: Path, grid: ProcessGrid) -> None:
    for node in (2, 3):
        (tmp_path / f"{node}.kill-2").touch()
    done = recover(grid, START, tmp_path / "server", settings(2))
    assert done.told[1]["attempts"] == 2
    assert np.allclose(done.weights["w"], 2 * MEAN)
    for node in (2, 3):
        (tmp_path / f"{node}.kill-3").touch()
    with pytest.raises(NoAggregate, match="fewer than 2 sites"):
        recover(grid, START, tmp_path / "server", settings(3, attempts=1))
    again = recover(grid, START, tmp_path / "server", settings(3))
    assert np.allclose(again.weights["w"], 3 * MEAN)


def test_a_killed_server_goes_on_from_its_last_finished_round(tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "rounds_server.py"), str(tmp_path), "3"]
    (tmp_path / "hold-2").touch()
    server = subprocess.Popen(command, stdout=subprocess.PIPE)
    wait_for("the second round", lambda: server.poll() is not None or (tmp_path / "2.in-2").exists())
    server.send_signal(signal.SIGKILL)
    server.communicate()
    assert server.returncode == -signal.SIGKILL
    assert (tmp_path / "server" / CHECKPOINT).is_file()
    (tmp_path / "hold-2").unlink()
    again = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert np.allclose(json.loads(again.stdout), [3, *[3 * MEAN] * 3])
    assert log(tmp_path, 1).count(1) == 1, "a finished round is not trained again"


def test_weights_that_are_no_numbers_are_left_out(tmp_path: Path, grid: ProcessGrid) -> None:
    (tmp_path / "1.nan").touch()
    done = recover(grid, START, tmp_path / "server", settings(1))
    assert np.allclose(done.weights["w"], (4 + 9) / 5)
    assert done.told[0]["left_out"] == {"1": "its weights 'w' are not all finite"}


def test_a_checkpoint_of_other_weights_or_a_damaged_one_is_told(tmp_path: Path, grid: ProcessGrid) -> None:
    recover(grid, START, tmp_path / "server", settings(1))
    with pytest.raises(DamagedFile, match="other weights"):
        recover(grid, {"w": np.ones(3)}, tmp_path / "server", settings(2))
    path = tmp_path / "server" / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DamagedFile):
        recover(grid, START, tmp_path / "server", settings(2))


def test_all_processes_start_before_any_is_written_to(tmp_path: Path) -> None:
    """Each site reads only when the other has started; the message is larger than a pipe holds."""
    code = (
        "import sys, time, pathlib\n"
        "here, other = map(pathlib.Path, sys.argv[1:])\n"
        "here.touch()\n"
        "give_up = time.monotonic() + 60\n"
        "while not other.exists() and time.monotonic() < give_up: time.sleep(0.01)\n"
        "other.exists() and here.with_suffix('.met').touch()\n"
        "other.exists() and sys.stdin.buffer.read(1 << 20)\n"
    )
    places = {1: tmp_path / "1", 2: tmp_path / "2"}
    commands = {node: [sys.executable, "-c", code, str(places[node]), str(places[3 - node])] for node in places}
    with ProcessGrid(commands) as grid, pytest.raises(NoAggregate):
        large = {"w": np.zeros(1 << 17)}
        recover(grid, large, tmp_path, RecoverySettings(1, attempts=1, timeout_s=5))
    assert (tmp_path / "1.met").exists()


def test_a_site_that_reads_nothing_is_left_out_at_the_limit(tmp_path: Path) -> None:
    """As one that is stopped: the server had waited for it to read for ever."""
    commands = {node: [sys.executable, "-c", "import time; time.sleep(3000)"] for node in (1, 2)}
    with ProcessGrid(commands) as grid, pytest.raises(NoAggregate, match="does not read what it is sent"):
        large = {"w": np.zeros(1 << 17)}
        recover(grid, large, tmp_path, RecoverySettings(1, attempts=1, timeout_s=0.5))
