"""Real x86-64 runtimes on an emulated processor without VNNI: int8 saturates as on a real one, and nothing is timed."""

from __future__ import annotations

import contextlib
import errno
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import warm_cli
from fault_kit import processes_after_kill
from x86_kit import as_avx2, need_avx2_emulation

from edgedeploy.boards.open import open_board
from edgedeploy.boards.ssh.transport import SshTransport
from edgedeploy.boards.x86 import haswell
from edgedeploy.boards.x86.board import serve
from edgedeploy.boards.x86.haswell import MODEL
from edgedeploy.errors import TargetUnavailable
from edgedeploy.interfaces.ability import has_native_bfloat16, sums_int8_exactly
from edgedeploy.interfaces.board import Board, BoardSession
from edgedeploy.interfaces.target import Target
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import Artifact
from edgedeploy.records.job import Job, MeasurePlan, Payload
from edgedeploy.reference.export import run_reference
from edgedeploy.runtime.agent.claim import MEASURING_SOCKET
from edgedeploy.runtime.sensors.probe import probe
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.study.store import Store
from edgedeploy.targets.common import saturates_here
from edgedeploy.targets.litert.target import LiteRtTarget
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
from edgedeploy.targets.openvino.target import OpenVinoTarget
from edgedeploy.testing import models

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"
PLAN = MeasurePlan(queries=64, warmup=2, block=8, cold_starts=2, time_limit_s=250.0)
pytestmark = [pytest.mark.timeout(900), pytest.mark.beside, pytest.mark.usefixtures("warm_converter")]

ISA = ("avx", "avx2", "f16c", "fma", "sse4_1", "ssse3")
"""The flags of a Haswell that decide which kernels run."""

NEAR, SATURATED = 0.03, 0.1
"""Relative L2 distances from the float model that tell sums that are exact from sums that are not."""


def board() -> Board:
    return open_board({"name": "cart", "kind": "emulated", "machine": "x86-avx2"})


def payload_of(artifact: Artifact, folder: Path, feeds: list[dict[str, Array]]) -> Payload:
    inputs = folder.with_suffix(".npz")
    stacked: dict[str, Any] = {name: np.stack([feed[name] for feed in feeds]) for name in feeds[0]}
    np.savez(inputs, **stacked)
    return Payload(artifact, folder, inputs, 1)


def on_board(session: BoardSession, payload: Payload) -> tuple[dict[str, Array], dict[str, int]]:
    """The outputs of all cases, and what ran."""
    folder = payload.folder.with_suffix(".collected")
    folder.mkdir()
    raw = session.measure(Job(payload, payload, PLAN), folder)
    assert raw.outputs is not None and raw.candidate.executed is not None
    assert raw.candidate.blocks_ns == ()  # nothing was timed, though 64 queries were asked for
    assert raw.baseline is None
    with np.load(raw.outputs) as data:
        return {name: data[name] for name in data.files}, dict(raw.candidate.executed)


def here(payload: Payload, feeds: list[dict[str, Array]]) -> dict[str, Array]:
    artifact = payload.artifact
    session = open_session(artifact.target, payload.folder, artifact.entry, dict(artifact.settings), 1)
    rows = [session.run(feed) for feed in feeds]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def distance(found: dict[str, Array], wanted: dict[str, Array]) -> float:
    return max(float(np.linalg.norm(found[name] - wanted[name]) / np.linalg.norm(wanted[name])) for name in wanted)


def test_the_probe_finds_the_emulated_processor_and_this_hosts_runtimes() -> None:
    need_avx2_emulation()
    info = board().probe()
    assert (info.arch, info.isa, info.cpu) == ("x86_64", ISA, MODEL)
    assert not sums_int8_exactly(info.arch, info.isa)
    assert not has_native_bfloat16(info.isa)
    assert (info.provenance, info.clock, info.accelerators, info.governor) == ("emulated", "none", (), None)
    assert "no time and no memory" in info.notes[0]
    installed = probe()["runtimes"]
    assert dict(info.runtimes) == {name: version for name, version in installed.items() if name != "tensorrt"}
    assert any("tensorrt" in note for note in info.notes) == ("tensorrt" in installed)


class TestOneSession:
    """What artifacts compute there. One session, as a board takes many jobs: its Python starts by the emulator but once."""

    @pytest.fixture(scope="class")
    @classmethod
    def session(cls) -> Iterator[BoardSession]:
        need_avx2_emulation()
        with board().session() as session:
            yield session

    @pytest.mark.fault(60, simulated="the processor, by QEMU")
    @pytest.mark.parametrize("target", [OnnxRuntimeTarget(), OpenVinoTarget()], ids=lambda target: str(target.name))
    def test_int8_saturates_with_8_bit_weights_and_not_with_7(
        self, target: Target, session: BoardSession, tmp_path: Path
    ) -> None:
        """The same files, here and there."""
        model = models.bright(tmp_path / "model")
        feeds = list(model.calibration())
        wanted = {name: np.stack([run_reference(model.reference, feed)[name] for feed in feeds]) for name in ("out0",)}
        far_there, far_here = {}, {}
        for bits in (8, 7):
            folder = tmp_path / f"bits-{bits}"
            payload = payload_of(target.build(replace(model.request("int8"), weight_bits=bits), folder), folder, feeds)
            found, executed = on_board(session, payload)
            assert set(executed) == {"int8"}
            far_there[bits] = distance(found, wanted)
            far_here[bits] = distance(here(payload, feeds), wanted)
        assert far_there[8] > SATURATED
        assert far_there[7] <= NEAR
        assert far_here[7] == pytest.approx(far_there[7], rel=0.05)
        if not saturates_here():
            assert far_here[8] <= NEAR
        else:
            assert far_here[8] == pytest.approx(far_there[8], rel=0.05)

    @pytest.mark.parametrize(
        "target", [OnnxRuntimeTarget(), OpenVinoTarget(), LiteRtTarget()], ids=lambda target: str(target.name)
    )
    def test_float32_computes_what_this_host_computes(
        self, target: Target, session: BoardSession, tmp_path: Path
    ) -> None:
        if not (readiness := target.probe()).ready:
            pytest.skip(f"{readiness.found} ({readiness.remedy})")
        model = models.two_heads(tmp_path / "model")
        feeds = list(models.images(seed=2, count=4))
        payload = payload_of(target.build(model.request("float32"), tmp_path / "built"), tmp_path / "built", feeds)
        found, executed = on_board(session, payload)
        assert set(executed) == {"float32"}
        wanted = here(payload, feeds)
        assert set(found) == set(wanted)
        for name, array in wanted.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5)

    def test_litert_sums_int8_exactly_without_vnni(self, session: BoardSession, tmp_path: Path) -> None:
        """Its kernels add in 32 bits on every processor: 7-bit weights would gain nothing."""
        target = LiteRtTarget()
        if not (readiness := target.probe()).ready:
            pytest.skip(f"{readiness.found} ({readiness.remedy})")
        model = models.bright(tmp_path / "model")
        feeds = list(model.calibration())
        wanted = {"out0": np.stack([run_reference(model.reference, feed)["out0"] for feed in feeds])}
        payload = payload_of(target.build(model.request("int8"), tmp_path / "built"), tmp_path / "built", feeds)
        found, _ = on_board(session, payload)
        assert distance(found, wanted) <= NEAR

    def test_what_the_emulator_computes_wrongly_is_refused_and_noted(
        self, session: BoardSession, tmp_path: Path
    ) -> None:
        """QEMU before 9.0.3 takes no indices from one register, by which OpenVINO's tanh looks up its table."""
        model = models.one_operator(tmp_path / "model", "Tanh", torch.tanh)
        feeds = list(models.images(seed=2, count=2))
        wrong = haswell.gathers_wrongly(haswell.find_qemu("a test"))
        assert any("gathers wrongly" in note for note in session.info.notes) == wrong
        for target in (OnnxRuntimeTarget(), OpenVinoTarget()):
            folder = tmp_path / target.name
            payload = payload_of(target.build(model.request("float32"), folder), folder, feeds)
            if wrong and target.name == "openvino":
                with pytest.raises(TargetUnavailable, match=r"computes its Tanh wrongly.*Install QEMU 9\.0\.3"):
                    on_board(session, payload)
                continue
            found, _ = on_board(session, payload)
            np.testing.assert_allclose(found["out0"], here(payload, feeds)["out0"], rtol=1e-5, atol=1e-5)


def test_numpy_sorts_as_here() -> None:
    """Its AVX2 kernels sort indices by gathering; an emulator that gathers wrongly gets another order."""
    need_avx2_emulation()
    code = (
        "import numpy as np; rows = np.random.default_rng(0).standard_normal(5000)\n"
        "print(bool((rows[np.argsort(rows)] == np.sort(rows)).all()))"
    )
    assert as_avx2([sys.executable, "-c", code]).stdout.split() == ["True"]


def test_no_child_runs_natively() -> None:
    """Whoever starts it, and with whatever environment: the kernel hands every program to the emulator."""
    need_avx2_emulation()
    sleep = "import time; print('up', flush=True); time.sleep(200)"
    start = (
        "import subprocess, sys\n"
        f"commands = [sys.executable, '-I', '-S', '-c', {sleep!r}], ['/bin/sh', '-c', 'echo up; sleep 200; true']\n"
        "children = [subprocess.Popen(argv, env={}, stdout=subprocess.PIPE) for argv in commands]\n"
        "print(*[child.stdout.readline().strip().decode() for child in children], flush=True)\n"
        "children[0].wait()\n"
    )
    with serve() as target, contextlib.closing(SshTransport(target)) as transport:
        assert target.home is not None
        process = transport.start([sys.executable, "-c", start])
        assert process.read_line(timeout_s=120.0) == "up up"
        programs = programs_beside_server_of(target.home)
        process.close()
    assert len(programs) >= 4  # the shell of the connection, Python, its two children
    assert {name.rpartition("/")[2] for name in programs} == {"qemu (deleted)"}


def programs_beside_server_of(home: Path) -> list[str]:
    """What runs every process of the board, but for the first and for its server, which were there before the emulator."""
    (server,) = [pid for pid in processes_naming(home) if b"embedded_server.py" in words_of(pid).split(b"\0")[1]]
    namespace = Path(f"/proc/{server}/ns/pid").readlink()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = words_of(int(entry.name))
            if (entry / "ns/pid").readlink() == namespace and b"embedded_server.py" not in words:
                found.append(str((entry / "exe").readlink()))
    return found


def processes_naming(folder: Path) -> list[int]:
    pids = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if str(folder).encode() in words_of(pid)]


def words_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_nothing_is_left_on_this_host() -> None:
    need_avx2_emulation()
    registered = Path("/proc/sys/fs/binfmt_misc")
    before, flags = set(registered.iterdir()), Path("/proc/cpuinfo").read_text().count(MODEL)
    with serve() as target:
        folder = target.home
        assert folder is not None
        assert str(folder) not in Path("/proc/mounts").read_text()  # its mounts are in namespaces of its own
        assert set(registered.iterdir()) == before
        assert Path("/proc/cpuinfo").read_text().count(MODEL) == flags
        assert len(processes_naming(folder)) >= 3
    assert not folder.exists()
    assert processes_naming(folder) == []


def test_a_killed_user_leaves_no_board_running() -> None:
    need_avx2_emulation()
    code = (
        "import time; from edgedeploy.boards.x86.board import serve\n"
        "with serve() as target: print(target.home, flush=True); time.sleep(250)"
    )
    assert processes_after_kill(code, processes_naming) == []


@pytest.mark.usefixtures("machine_place")
def test_a_session_holds_this_host_to_itself() -> None:
    """An emulator keeps cores busy: nobody's times are taken beside it."""
    need_avx2_emulation()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other, board().session():
        with pytest.raises(OSError, match="in use") as refused:
            other.bind(MEASURING_SOCKET)
        assert refused.value.errno == errno.EADDRINUSE


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [*warm_cli.command(), *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=800)


STUDY = """\
board = "emulated:x86-avx2"

[study]
name = "bright"
targets = ["onnxruntime", "openvino"]

[task]
kind = "onnx"
model = "model/reference.onnx"
options = { calibration = "calibration.npz", selection = "selection.npz", confirmation = "confirmation.npz" }

[space]
precision = ["float32", "int8"]
calibration_cases = [6]

[[objectives]]
metric = "reference_rel_l2"

[[objectives]]
metric = "size_bytes"

[budget]
trials = 4
"""


@pytest.mark.fault(60, simulated="the processor, by QEMU")
@pytest.mark.slow
def test_a_study_finds_7_bits_nearer_there_and_claims_no_time(tmp_path: Path) -> None:
    need_avx2_emulation()
    images = np.stack([feed["image"] for feed in models.bright(tmp_path / "model").calibration()])
    mirrored = images[..., ::-1]
    for split, rows in {"calibration": images, "selection": mirrored[:4], "confirmation": mirrored[4:]}.items():
        np.savez(tmp_path / f"{split}.npz", image=rows)
    (tmp_path / "study.toml").write_text(STUDY)
    out = tmp_path / "out"
    done = run("search", tmp_path / "study.toml", "--no-confirm", "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    measured = Store(out).measurements()
    assert {(item.variant.target, item.variant.precision) for item in measured} == {
        (target, precision) for target in ("onnxruntime", "openvino") for precision in ("float32", "int8")
    }
    for item in measured:
        assert (item.board.isa, item.board.clock, item.provenance) == (ISA, "none", "emulated")
        assert item.metrics["reference_rel_l2"] <= (NEAR if item.variant.precision == "int8" else 1e-4)
        assert not [name for name in item.metrics if name.endswith("_ns") or "latency" in name]
        assert "no board's" in item.missing["latency_p50_ns"]
        if item.variant.precision == "float32":
            assert item.weight_bits is None
            continue
        assert item.weight_bits is not None
        assert item.weight_bits.bits == 7
        assert item.weight_bits.distances[8] > SATURATED > item.weight_bits.distances[7]
    page = Path(run("report", out).stdout.split("Report: ")[1].strip()).read_text()
    assert "no time and no memory" in page
    assert "saturate" in page


def test_a_study_that_wants_latency_is_refused(tmp_path: Path) -> None:
    need_avx2_emulation()
    for name in ("squares.py", "squares.toml"):
        shutil.copy(EXAMPLES / name, tmp_path)
    out = tmp_path / "out"
    done = run("search", tmp_path / "squares.toml", "--board", "emulated:x86-avx2", "--out", out)
    assert done.returncode == 2
    assert "has no latency_ratio" in done.stderr
    assert not out.exists()


def test_there_is_nothing_to_create() -> None:
    need_avx2_emulation()
    done = run("boards", "create", "x86-avx2")
    assert done.returncode == 0
    assert "nothing has to be built" in done.stderr
    assert "emulated:x86-avx2" in done.stdout


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare (util-linux) to forbid namespaces with")
def test_a_kernel_that_refuses_is_named() -> None:
    """As in a container: no namespaces are to be had."""
    need_avx2_emulation()
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    words = ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, "sh", sys.executable, "-m", "edgedeploy"]
    for arguments in (("boards", "create", "x86-avx2"), ("doctor", "--board", "emulated:x86-avx2")):
        done = subprocess.run([*words, *arguments], capture_output=True, text=True, check=False, timeout=120)
        said = " ".join((done.stdout + done.stderr).split())
        assert done.returncode in (2, 3)
        assert "the kernel refuses: namespaces" in said
        assert "Traceback" not in said


def test_any_program_runs_as_on_that_processor() -> None:
    need_avx2_emulation()
    show = "grep -c avx512 /proc/cpuinfo; grep -m1 -o avx2 /proc/cpuinfo; exit 5"
    done = as_avx2(["sh", "-c", show])
    assert (done.returncode, done.stdout.split(), done.stderr) == (5, ["0", "avx2"], "")
    code = "import sys; from edgedeploy.runtime.sensors.probe import probe; print(sys.executable, *probe()['isa'])"
    done = as_avx2([sys.executable, "-c", code])
    assert (done.stdout.split(), done.stderr) == ([sys.executable, *ISA], "")
    assert as_avx2(["no-such-program"]).returncode == 127


def test_another_architecture_has_no_such_board(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(TargetUnavailable, match="this host's processor is aarch64"):
        board().probe()


def test_a_missing_emulator_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr("edgedeploy.boards.emulated.hosting.find_program", lambda name: None)
    with pytest.raises(TargetUnavailable, match="apt-get install qemu-user-static"):
        board().probe()
