"""A lab's board that a Dask worker has: real scheduler, real worker, and this host as the board."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="distributed is not installed: pip install 'edgedeploy[lab]'")

import dask_kit
from night_kit import measured, subject_of, write_bundle

from edgedeploy.boards.care.attempts import Patience
from edgedeploy.errors import SpecError, Unreachable
from edgedeploy.lab.kinds import health_check
from edgedeploy.nightly import cluster
from edgedeploy.nightly.cluster import LabCluster
from edgedeploy.spec.boards import BoardTable
from edgedeploy.spec.lab import board_in

LAB = """\
[lab]
name = "ward"

[[boards]]
name = "here"
kind = "local"
root = "{root}"

[[entries]]
id = "thyroid"
bundle = "bundle"
trust = "key.pub"
"""


@dataclass(frozen=True)
class Started:
    address: str
    lab: Path


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    lab, said = tmp_path / "lab.toml", dask_kit.place_of_scheduler(tmp_path)
    lab.write_text(LAB.format(root=tmp_path / "root"), encoding="utf-8")
    with ExitStack() as stack:

        def start(name: str, *arguments: str) -> None:
            log = stack.enter_context((tmp_path / f"{name}.log").open("wb"))
            child = subprocess.Popen([sys.executable, "-m", *arguments], stdout=log, stderr=log)
            stack.callback(child.wait)
            stack.callback(child.kill)

        start("scheduler", *dask_kit.scheduler(said))
        found = Started(dask_kit.address(said), lab)
        start("worker", "edgedeploy", "work", str(lab), "--board", "here", "--dask", found.address)
        yield found


def test_a_session_runs_on_the_worker_that_has_the_board(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = board_in(started.lab, "here")
    write_bundle(tmp_path / "bundle")
    subject = subject_of(tmp_path)
    with closing(LabCluster(started.address)) as lab:
        board, info = lab.open_board(table)
        assert board.name == info.name == "here" and "onnxruntime" in info.runtimes
        run = lab.runner(board, lambda line: None, health_check(info), Patience())
        found = measured(subject, run)
        assert found.counts, found.cause
        assert found.losses["latency_p50_ns"] != 0.0 and found.golden is not None
        assert found.info == info

        monkeypatch.setattr(cluster, "PROBE_S", 1.0)
        with pytest.raises(Unreachable, match="no worker answered for it within 1 s"):
            lab.open_board(BoardTable(name="gone", kind="local"))


def test_without_a_scheduler_the_night_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 1)
    with pytest.raises(Unreachable, match="no answer"):
        LabCluster("tcp://127.0.0.1:9")


def test_a_board_is_found_in_either_kind_of_file(tmp_path: Path) -> None:
    path = tmp_path / "lab.toml"
    path.write_text(LAB.format(root="r"), encoding="utf-8")
    assert board_in(path, "here").root == "r"
    with pytest.raises(SpecError, match="no board of that name"):
        board_in(path, "cart")
    with pytest.raises(SpecError, match="there is no such file"):
        board_in(tmp_path / "none.toml", "here")
