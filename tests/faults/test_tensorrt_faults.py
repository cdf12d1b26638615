"""What goes wrong between a study and a board's trtexec. Tests that simulate trtexec and its GPU are marked so."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from trtexec_kit import ORIN, XAVIER, XAVIER_80, XAVIER_82, SimulatedJetson, build, cases

from edgedeploy.artifact import Artifact
from edgedeploy.boards.local import LocalTransport
from edgedeploy.errors import TargetUnavailable
from edgedeploy.targets.tensorrt import LogRefused, TrtVersion, measure_on_board, read_runs
from edgedeploy.targets.tensorrt.command import Typing, build_command
from edgedeploy.targets.tensorrt.dla import DlaRequest
from edgedeploy.targets.tensorrt.engine import ForeignPlan

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SIMULATED = "trtexec and its GPU"


@pytest.fixture(scope="module")
def float16(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Path]:
    return build(tmp_path_factory.mktemp("float16"), "float16")


@pytest.mark.fault(24)
def test_a_board_without_trtexec_is_unavailable_and_gets_no_number(
    float16: tuple[Artifact, Path], tmp_path: Path
) -> None:
    """This machine is one: the program is really missing."""
    artifact, folder = float16
    with pytest.raises(TargetUnavailable, match=r"no trtexec.*apt-get install nvidia-jetpack"):
        measure_on_board(
            LocalTransport(), artifact, folder, cases(), root=str(tmp_path / "root"), candidates=("/nowhere/trtexec",)
        )
    assert not (tmp_path / "root").exists(), "nothing was uploaded"


@pytest.mark.fault(24)
def test_a_study_for_a_board_without_trtexec_ends_before_anything_is_trained(tmp_path: Path) -> None:
    for name in ("squares.py", "squares.toml"):
        shutil.copy(EXAMPLES / name, tmp_path)
    path = tmp_path / "squares.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"^targets = .*$", 'targets = ["tensorrt"]', text, flags=re.MULTILINE), encoding="utf-8")
    argv = [sys.executable, "-m", "edgedeploy", "search", str(path), "--out", str(tmp_path / "out"), "--board", "here"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2, done.stderr
    assert "no runtime for tensorrt" in done.stderr
    assert "trtexec" in done.stderr
    assert not (tmp_path / "out").exists(), "no model, no number, not even a folder"


@pytest.mark.fault(24, simulated=SIMULATED)
def test_without_sudo_the_cores_of_dla_are_unavailable_with_the_remedy(
    float16: tuple[Artifact, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No sudo on the path: nothing is made up for what could not be read, and the run goes on."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("mkdir", "mv", "rm", "sha256sum", "sh", "cat"):
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    board = SimulatedJetson(tmp_path / "board", ORIN)
    monkeypatch.setenv("PATH", str(programs))
    assert shutil.which("sudo") is None
    (note,) = board.measure(float16, dla=DlaRequest()).notes
    assert "DLA cores online: unavailable" in note
    assert "sudo" in note and "without a password" in note


@pytest.mark.fault(26)
@pytest.mark.shared
def test_no_command_holds_a_flag_that_a_real_trtexec_refused(shared: Path) -> None:
    """10.3's own answer to flags of 8.x, as recorded: it names three that it no longer has."""
    log = (shared / "recorded" / "trtexec" / "fail_unknown_option_v100300.log").read_text(encoding="utf-8")
    (run,) = read_runs(log)
    removed = {flag for line in run.errors for flag in re.findall(r"--\w+", line)}
    assert removed == {"--workspace", "--buildOnly", "--explicitBatch"}

    def flags(version: TrtVersion) -> set[str]:
        argv = build_command("trtexec", version, onnx="m.onnx", plan="m.plan", typing=Typing(("int8",)))
        return {argument.partition("=")[0] for argument in argv}

    assert run.version is not None
    assert not flags(run.version) & removed
    assert "--workspace" in flags(TrtVersion(8, 2, 1)), "which 8.2 needs"


@pytest.mark.fault(26, simulated=SIMULATED)
@pytest.mark.parametrize("settings", [XAVIER_80, XAVIER_82, XAVIER, ORIN, {**ORIN, "code": "110000"}])
def test_every_command_fits_the_release_of_its_board(
    settings: dict[str, object], float16: tuple[Artifact, Path], tmp_path: Path
) -> None:
    """The simulation refuses flags that its release lacks, as the real one does: here it has to take all."""
    board = SimulatedJetson(tmp_path, settings)
    assert board.measure(float16).times.compute_ms
    done = subprocess.run([board.trtexec, "--onnx=m", "--buildOnly"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Unknown option: --buildOnly" in done.stderr


@pytest.mark.fault(27, simulated=SIMULATED)
def test_a_broken_engine_that_prints_passed_is_no_measurement(float16: tuple[Artifact, Path], tmp_path: Path) -> None:
    board = SimulatedJetson(tmp_path, ORIN)
    board.measure(float16)
    board.reconfigure(**ORIN, fail="broken")
    with pytest.raises(LogRefused, match="false_pass") as caught:
        board.measure(float16, keep_logs=tmp_path / "logs")
    kept = (tmp_path / "logs" / "refused-false_pass.log").read_text(encoding="utf-8")
    assert kept == caught.value.log and "&&&& PASSED" in kept


@pytest.mark.fault(34, simulated=SIMULATED)
@pytest.mark.parametrize("swap", ["bytes", "board"])
def test_a_plan_from_elsewhere_is_never_loaded(swap: str, float16: tuple[Artifact, Path], tmp_path: Path) -> None:
    board = SimulatedJetson(tmp_path, ORIN)
    board.measure(float16)
    (engine,) = (tmp_path / "root" / "engines").iterdir()
    if swap == "bytes":
        (engine / "model.plan").write_bytes(os.urandom(64))
    else:
        note = json.loads((engine / "engine.json").read_text(encoding="utf-8"))
        note["facts"]["gpu"] = "another"
        (engine / "engine.json").write_text(json.dumps(note), encoding="utf-8")
    before = len(board.calls)
    with pytest.raises(ForeignPlan):
        board.measure(float16)
    assert not any("--loadEngine" in call for call in board.calls[before:])
