"""What may have changed since a night was accepted, each made to change and named for what it is.

Real: other weights, other bytes of the same answers, an older release, a larger network, another interpreter with another
release of ONNX Runtime, two SSH servers. Simulated, as the marks say: the release file that names the OS image (a private
mount), nvpmodel, answers that drift under one and the same artifact, a toolchain that does not repeat itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import agent_pythons
import night_kit
import onnx
import product_kit
import pytest
import simulated_nvpmodel
import small_onnx
from board_kit import need_sshd
from fault_kit import need_program, need_root
from night_kit import Entry, measured, runner, write_bundle
from sshd_kit import odd_sshd

from edgedeploy.boards.agent.board import RemoteBoard
from edgedeploy.boards.agent.session import BoardOptions
from edgedeploy.boards.ssh.config import SshTarget
from edgedeploy.boards.ssh.transport import SshTransport
from edgedeploy.errors import BundleError
from edgedeploy.evidence.nights import Limits
from edgedeploy.nightly.subject import Subject, prepare
from edgedeploy.nightly.verdict import verdict
from edgedeploy.records.night import Session, Verdict
from edgedeploy.study.runner import Runner, runner_on


@dataclass(frozen=True)
class Before:
    """A lab after its first night."""

    folder: Path
    subject: Subject
    night: Verdict

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def shipping(self, place: Path) -> Subject:
        """The entry with what lies in ``place`` now."""
        return prepare(Entry(), place, self.folder / "frozen")

    def judged(self, subject: Subject, sessions: Sequence[Session]) -> Verdict:
        accepted = subject.accepted_on("here", sessions)
        return verdict(sessions, [self.night], accepted, Limits(), owner="Ada")


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Before:
    folder = tmp_path_factory.mktemp("lab")
    write_bundle(folder / "bundle", release=3)
    subject = prepare(Entry(), folder, folder / "frozen")
    sessions = [measured(subject, runner(folder / "root"))]
    assert sessions[0].counts, sessions[0].cause
    night = verdict(sessions, [], subject.accepted_on("here", sessions), Limits())
    assert night.outcome == "young" and not night.artifact_changes and not night.board_changes
    return Before(folder, subject, night)


def tonight(before: Before, place: Path, run: Runner | None = None, sessions: int = 1) -> Verdict:
    subject = before.shipping(place)
    found = [measured(subject, run or runner(before.root), number + 1) for number in range(sessions)]
    return before.judged(subject, found)


def resaved(path: Path) -> Path:
    """The same network as another tool writes it."""
    model = onnx.load(str(small_onnx.convolutional(path)))
    model.producer_name, model.doc_string = "another exporter", "written again"
    onnx.save(model, str(path))
    return path


def test_other_weights_are_a_wrong_answer_and_another_artifact(before: Before, tmp_path: Path) -> None:
    """A new build under the same name whose golden vectors are its own: what was accepted decides."""
    write_bundle(tmp_path / "bundle", release=4, network=night_kit.changed_weight)
    found = tonight(before, tmp_path)
    assert found.outcome == "regression" and "output 'out' is not the accepted one" in found.reason
    assert found.golden is not None and found.golden.worst["out"] == pytest.approx(0.25, rel=1e-3)
    assert any("model.onnx has other bytes" in text for text in found.artifact_changes)
    assert any("release 4, accepted: release 3" in text for text in found.artifact_changes)
    assert not found.board_changes and "what is shipped changed too" in found.reason


def test_other_bytes_of_the_same_answers_are_another_artifact(before: Before, tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", release=3, network=resaved)
    found = tonight(before, tmp_path)
    assert found.outcome == "artifact" and found.golden is not None and not found.golden.changed
    (text,) = found.artifact_changes
    assert "model.onnx has other bytes" in text and text == found.reason


@pytest.mark.fault(37)
def test_an_older_release_is_named_as_a_downgrade(before: Before, tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", release=2)
    found = tonight(before, tmp_path)
    assert found.outcome == "artifact"
    assert found.artifact_changes == ("it is release 2, older than the accepted release 3: a downgrade",)


def test_a_larger_network_under_the_same_name_is_slower(before: Before, tmp_path: Path) -> None:
    """2.4 million weights in the place of 900: on any host that is many times as long."""
    write_bundle(tmp_path / "bundle", release=4, network=product_kit.ten_megabytes)
    subject, run = before.shipping(tmp_path), runner(before.root)
    two = [measured(subject, run, number) for number in (1, 2)]
    assert {item.metric: item.status for item in before.judged(subject, two).series}["latency_p50_ns"] == "suspect"
    four = [*two, *(replace(item, number=item.number + 2) for item in two)]  # as if it had been so again
    found = before.judged(subject, four)
    assert found.outcome == "regression" and "latency_p50_ns" in found.reason and found.owner == "Ada"
    assert {item.metric: item.status for item in found.series}["latency_p50_ns"] == "regression"
    assert found.artifact_changes and not found.board_changes


@pytest.mark.slow
def test_another_release_of_the_runtime_is_named(before: Before) -> None:
    """Python 3.9 with the last ONNX Runtime for it, both real."""
    try:
        python = agent_pythons.environment("3.9")
    except agent_pythons.NotHere as exc:
        pytest.skip(str(exc))
    found = tonight(before, before.folder, runner(before.root, python=str(python)))
    assert found.outcome == "board" and found.new_history, found.reason
    runtime = next(text for text in found.board_changes if text.startswith("its runtime"))
    assert runtime.startswith("its runtime is onnxruntime 1.19.2, and was onnxruntime ")
    assert any(text.startswith("its Python is 3.9.") for text in found.board_changes)
    assert found.golden is not None and not found.golden.changed and not found.artifact_changes
    assert {item.status for item in found.series} == {"young"}


@pytest.mark.fault(21, simulated="nvpmodel, a program that keeps a number")
@pytest.mark.skipif(os.geteuid() != 0, reason="nvpmodel is run through sudo without root")
def test_another_power_mode_is_named(before: Before, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    simulated_nvpmodel.install(programs, 2)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    found = tonight(before, before.folder, runner(before.root, power_mode=(("nvpmodel", "1"),)))
    assert found.outcome == "board" and found.new_history
    assert found.board_changes == ("its power mode is MODE_1 (1), and was unknown",)


def mounted(folder: Path, path: str, text: str) -> str:
    """A board's Python that sees ``text`` in the place of the system's file ``path``, by a private mount."""
    need_root(f"a mount over {path}")
    unshare = need_program("unshare", "util-linux")
    (folder / "file").write_text(text)
    python = folder / "python"
    mount = f'mount --bind {folder / "file"} {path} && exec "$@"'
    python.write_text(f"#!/bin/sh\nexec {unshare} -m sh -c '{mount}' sh {sys.executable} \"$@\"\n")
    python.chmod(0o755)
    if subprocess.run([str(python), "-c", "pass"], capture_output=True, check=False).returncode != 0:
        pytest.skip(f"this machine does not allow a private mount over {path}")
    return str(python)


@pytest.mark.fault(48, simulated="the release file of another OS image, mounted over this one's")
def test_another_os_image_is_named(before: Before, tmp_path: Path) -> None:
    text = 'PRETTY_NAME="Cart OS 9"\nID=cart\nVERSION_ID="9"\nIMAGE_ID=theatre\nIMAGE_VERSION=77\n'
    found = tonight(before, before.folder, runner(before.root, python=mounted(tmp_path, "/etc/os-release", text)))
    assert found.outcome == "board" and found.new_history
    assert found.board_changes[0].startswith("its OS image is cart 9 theatre 77, and was ")
    assert "OS image" in found.reason and not found.artifact_changes


def over_ssh(target: SshTarget, folder: Path) -> Runner:
    options = BoardOptions(python=sys.executable, root=str(folder))
    board = RemoteBoard("here", lambda: SshTransport(target), provenance="measured", options=options)
    return runner_on(board, lambda line: None)


@pytest.mark.fault(49, simulated="one machine as two boards: one machine id, two host keys")
def test_a_board_that_answers_as_another_board_is_named(tmp_path: Path) -> None:
    need_sshd()
    write_bundle(tmp_path / "bundle")
    subject = night_kit.subject_of(tmp_path)
    with odd_sshd() as one, odd_sshd() as two:
        first, again, other = (measured(subject, over_ssh(target, tmp_path / "root")) for target in (one, one, two))
    accepted = subject.accepted_on("here", [first])
    night = verdict([first], [], accepted, Limits())
    same = verdict([again], [night], accepted, Limits())
    assert same.outcome == "young" and not same.board_changes
    found = verdict([other], [night], accepted, Limits())
    assert found.outcome == "board" and "answers as another board: host_key" in found.reason
    assert found.series[0].nights == 0


DRIFTING = '''\
"""ONNX Runtime whose answers are 1 % larger."""
import os, sys
here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path = [path for path in sys.path if os.path.abspath(path or ".") != here]
del sys.modules["onnxruntime"]
import onnxruntime as real
run = real.InferenceSession.run
real.InferenceSession.run = lambda self, *given, **more: [1.01 * value for value in run(self, *given, **more)]
sys.modules["onnxruntime"] = real
'''


@pytest.mark.fault(18, simulated="a runtime whose answers are 1 % larger")
def test_answers_that_drift_under_one_artifact_are_named(before: Before, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text(DRIFTING)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexport PYTHONPATH={tmp_path}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    found = tonight(before, before.folder, runner(before.root, python=str(python)))
    assert found.outcome == "regression" and "output 'out' is not the accepted one" in found.reason
    assert found.golden is not None and found.golden.worst["out"] == pytest.approx(0.01, rel=0.01)
    assert not found.artifact_changes and not found.board_changes


def test_a_bundle_that_was_touched_is_not_measured(before: Before, tmp_path: Path) -> None:
    shutil.copytree(before.folder / "bundle", tmp_path / "bundle")
    path = tmp_path / "bundle" / "artifact" / "model.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BundleError, match=r"tampered: .*model.onnx' was changed"):
        before.shipping(tmp_path)
