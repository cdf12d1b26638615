"""Power modes as values of a search, on this host with a simulated nvpmodel: set for a run, the same for both sides, put
back also after kill -9, and checked against the board before anything starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import simulated_nvpmodel
from board_kit import ENDLESS, MACHINE_WAIT_S, make_job
from fault_kit import local_board
from small_onnx import convolutional

import edgedeploy
from edgedeploy.errors import CommandFailed, SpecError
from edgedeploy.records.artifact import MANIFEST
from edgedeploy.runtime.processes import end_all_with_argument
from edgedeploy.runtime.sensors.powermode import JOURNAL
from edgedeploy.study.store import Store

pytestmark = [pytest.mark.beside, pytest.mark.slow]

STUDY = """\
[study]
name = "modes"
targets = ["onnxruntime"]

[task]
kind = "onnx"
model = "model.onnx"

[task.options]
calibration = "cases.npz"
selection = "more.npz"
confirmation = "last.npz"

[[boards]]
name = "here"
kind = "{kind}"
{table}

[space]
power_mode = ["MODE_0", "MODE_2"]

[[objectives]]
metric = "latency_p50_ns"

[budget]
trials = 2

[measure]
queries = 16
warmup = 1
cold_starts = 0
max_drift = 50.0
max_spread = 50.0
max_background_cores = 64.0
"""
MODES = "< POWER_MODEL ID=0 NAME=MODE_0 >\n< POWER_MODEL ID=2 NAME=MODE_2 >\n< POWER_MODEL ID=3 NAME=MODE_3 >\n"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="nvpmodel is run through sudo without root")


@pytest.fixture
def simulated_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the simulated nvpmodel keeps its mode in; it starts in mode 3."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return simulated_nvpmodel.install(programs, 3)


def python_with_modes(folder: Path) -> Path:
    """A Python of the board that sees a made-up ``/etc/nvpmodel.conf`` over this host's ``/etc``, in a private mount."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare on this machine: apt-get install util-linux")
    layer = folder / "etc"
    layer.mkdir()
    (layer / "nvpmodel.conf").write_text(MODES)
    python = folder / "python"
    mount = f"mount -t overlay none -o lowerdir={layer}:/etc /etc"
    python.write_text(f'#!/bin/sh\nexec {unshare} -m sh -c \'{mount} && exec "$@"\' sh {sys.executable} "$@"\n')
    python.chmod(0o755)
    if subprocess.run([str(python), "-c", "pass"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not allow a private overlay over /etc")
    return python


def write_study(folder: Path, kind: str, **table: str) -> Path:
    convolutional(folder / "model.onnx", named=False)
    for seed, name in enumerate(("cases", "more", "last")):
        rows = np.random.default_rng(seed).random((6, 1, 3, 16, 16)).astype(np.float32)
        np.savez(folder / f"{name}.npz", image=rows)
    path = folder / "study.toml"
    lines = "\n".join(f'{key} = "{value}"' for key, value in {"root": str(folder / "root"), **table}.items())
    path.write_text(STUDY.format(kind=kind, table=lines if kind == "local" else ""))
    return path


@needs_root
def test_each_variant_runs_in_its_mode_and_the_board_gets_its_own_back(tmp_path: Path, simulated_mode: Path) -> None:
    study = write_study(tmp_path, "local", python=str(python_with_modes(tmp_path)))
    result = edgedeploy.load_study(study).run(edgedeploy.RunOptions(out=tmp_path / "out", confirm=False))
    measured = Store(tmp_path / "out").measurements()
    asked = {item.variant.power_mode: item.environment["power_mode_asked"]["power_mode"] for item in measured}
    assert asked == {"MODE_0": "MODE_0 (0)", "MODE_2": "MODE_2 (2)"}
    assert len({item.artifact.digest for item in measured}) == 1, "a mode changes no artifact"
    assert len(list((tmp_path / "out/artifacts").rglob(MANIFEST))) == 1
    assert all(item.baseline is not None for item in measured)
    assert simulated_mode.read_text() == "3\n"
    assert Path(f"{simulated_mode}.log").read_text().split() == ["0", "3", "2", "3"]
    assert [row.variant.power_mode for row in result.front.baselines] == ["MODE_0"]
    assert "same power mode as the variant beside it" in result.report().read_text(encoding="utf-8")


@needs_root
def test_a_mode_that_the_board_lacks_is_refused_before_anything_starts(tmp_path: Path, simulated_mode: Path) -> None:
    study = write_study(tmp_path, "local", python=str(python_with_modes(tmp_path)))
    study.write_text(study.read_text().replace('"MODE_2"]', '"MAXN"]'))
    message = r"space\.power_mode: board 'here' has no power mode 'MAXN' .* It has: MODE_0, MODE_2, MODE_3"
    with pytest.raises(SpecError, match=message):
        edgedeploy.load_study(study).run(edgedeploy.RunOptions(out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    assert not Path(f"{simulated_mode}.log").exists()


def test_an_emulated_board_has_no_modes_of_its_own(tmp_path: Path) -> None:
    study = write_study(tmp_path, "emulated")
    with pytest.raises(SpecError, match=r"no power mode 'MODE_0' that can be set\. It has: none"):
        edgedeploy.load_study(study).run(edgedeploy.RunOptions(out=tmp_path / "out"))


@needs_root
@pytest.mark.fault(21, simulated="nvpmodel: a program that keeps its mode in a file")
def test_a_job_that_is_killed_is_put_right_with_the_end_of_its_session(tmp_path: Path, simulated_mode: Path) -> None:
    """The job with its supervisor and workers is killed as a crash would, in the middle of its blocks."""
    root = tmp_path / "root"
    board = local_board(root, wait_s=MACHINE_WAIT_S)
    job = make_job(tmp_path / "job", plan=replace(ENDLESS, power_mode=(("nvpmodel", "0"),)))

    def kill() -> None:
        wait_until(lambda: simulated_mode.read_text() == "0\n" and any(root.glob("jobs/*/candidate/inputs")))
        (folder,) = (root / "jobs").iterdir()
        assert end_all_with_argument(folder.name) > 0

    with board.session() as session:
        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(CommandFailed, match="supervisor_died"):
            session.measure(job, tmp_path)
        killer.join()
        assert simulated_mode.read_text() == "0\n", "what was killed can put nothing back"
        assert (root / JOURNAL).exists()
    assert simulated_mode.read_text() == "3\n"
    assert not (root / JOURNAL).exists()


def wait_until(holds: Callable[[], bool], patience_s: float = MACHINE_WAIT_S) -> None:
    give_up_s = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < give_up_s
        time.sleep(0.05)
