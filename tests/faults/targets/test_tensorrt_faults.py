"""A board without TensorRT, and flags of another release."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import simulated_trtexec
import warm_cli
from small_onnx import convolutional

from edgedeploy.boards.local import LocalTransport
from edgedeploy.errors import TargetUnavailable
from edgedeploy.targets.tensorrt import LogRefused, TrtVersion
from edgedeploy.targets.tensorrt.trtexec.board import CANDIDATES, TrtBoard, probe_board, run_trtexec
from edgedeploy.targets.tensorrt.trtexec.command import Conditions, build_command, profile_command, timing_command
from edgedeploy.targets.tensorrt.trtexec.dla import DlaRequest
from edgedeploy.targets.tensorrt.trtexec.measure import core_notes

pytestmark = pytest.mark.beside

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"
RELEASES = {"8001": "8.0.1", "8201": "8.2.1", "8502": "8.5.2", "100300": "10.3.0", "110000": "11.0.0"}


@pytest.fixture
def no_trtexec() -> None:
    if any(shutil.which(name) for name in CANDIDATES):
        pytest.skip("this machine has trtexec: nothing is missing")


@pytest.mark.fault(24)
def test_without_tensorrt_a_study_ends_before_it_begins(tmp_path: Path) -> None:
    """As a user meets it: one line with the remedy, the usage exit code, nothing trained, nothing written."""
    for name in ("squares.py", "squares.toml"):
        shutil.copy(EXAMPLES / name, tmp_path)
    path = tmp_path / "squares.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"^targets = .*$", 'targets = ["tensorrt"]', text, flags=re.MULTILINE), encoding="utf-8")
    argv = [*warm_cli.command(), "search", str(path), "--out", str(tmp_path / "out"), "--board", "here"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert "no runtime for tensorrt" in line
    assert "a Jetson whose Python has tensorrt 8.5 or newer" in line
    assert "pip install tensorrt" not in line, "that would not help"
    assert not (tmp_path / "out").exists()


@pytest.mark.fault(24)
def test_without_trtexec_the_board_is_unavailable_and_says_what_to_install(no_trtexec: None) -> None:
    with pytest.raises(TargetUnavailable, match=r"no trtexec.*apt-get install nvidia-jetpack"):
        probe_board(LocalTransport())


@pytest.mark.fault(24)
def test_without_sudo_what_dla_has_is_unavailable_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No sudo on the path: nothing is made up for what could not be read."""
    orin = TrtBoard("trtexec", TrtVersion(10, 3), "Orin (tegra234)", "8.7", "L4T 36.4.3", simulated=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    (note,) = core_notes(LocalTransport(), orin, DlaRequest())
    assert "DLA cores online: unavailable" in note
    assert "sudo without a password" in note


def commands(trtexec: str, version: TrtVersion, folder: Path) -> list[list[str]]:
    plan, model = str(folder / "model.plan"), str(folder / "model.onnx")
    found = [
        build_command(trtexec, version, onnx=model, plan=plan, precisions=("float16", "int8")),
        timing_command(trtexec, version, plan=plan, times=str(folder / "times.json"), conditions=Conditions()),
    ]
    if version >= TrtVersion(8, 2):
        places = {"profile": str(folder / "profile.json"), "layers": str(folder / "layers.json")}
        found.append(profile_command(trtexec, version, plan=plan, **places))
    return found


@pytest.mark.fault(26, simulated="trtexec")
@pytest.mark.parametrize("code", RELEASES)
def test_commands_hold_no_flag_that_a_release_lacks(code: str, tmp_path: Path) -> None:
    """A release takes its own commands; those of a distant one it refuses, and the refusal names the flags."""
    settings = {"code": code, "build": 1, "gpu": "Orin", "capability": "8.7"}
    trtexec = simulated_trtexec.install(tmp_path / "bin", **settings)
    convolutional(tmp_path / "model.onnx")
    own = TrtVersion.from_text(RELEASES[code])
    other = TrtVersion(11, 0) if own < TrtVersion(8, 4) else TrtVersion(8, 0, 1)
    for argv in commands(trtexec, own, tmp_path):
        assert run_trtexec(LocalTransport(), argv, timed="--exportTimes" in " ".join(argv), timeout_s=60).passed
    removed = "--nvtxMode" if other < TrtVersion(8, 4) else "--profilingVerbosity"
    with pytest.raises(LogRefused, match=f"unknown_option: .*{removed}") as caught:
        run_trtexec(LocalTransport(), commands(trtexec, other, tmp_path)[0], timed=False, timeout_s=60)
    assert f"Unknown option: {removed}" in caught.value.log, "the raw log is kept"


@pytest.mark.shared
@pytest.mark.fault(26, simulated="trtexec, by a recorded log of a real one")
def test_flags_that_a_real_trtexec_refused_are_not_given_to_its_release(shared: Path) -> None:
    text = (shared / "recorded" / "trtexec" / "fail_unknown_option_v100300.log").read_text(encoding="utf-8")
    refused = set(re.findall(r"Unknown option: (--\w+)", text))
    assert len(refused) == 3
    given = {flag.partition("=")[0] for argv in commands("t", TrtVersion(10, 3), Path("/w")) for flag in argv}
    assert not refused & given
    old = {flag.partition("=")[0] for argv in commands("t", TrtVersion(8, 2, 1), Path("/w")) for flag in argv}
    assert "--workspace" in refused & old, "the release before it needs one of them"
