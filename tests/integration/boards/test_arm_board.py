"""Real arm64 runtimes on an emulated Arm board over SSH: what they compute, what is claimed, what is left behind."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import product_kit
import pytest
import warm_cli
from arm_kit import need_image
from board_kit import OUTPUTS_ONLY, make_job, make_payload, save_model
from fault_kit import processes_after_kill, wait_for
from onnx import helper, numpy_helper

from edgedeploy.boards.arm.server import serve
from edgedeploy.boards.open import open_board
from edgedeploy.errors import BundleError
from edgedeploy.evidence.metrics import board_metrics
from edgedeploy.interfaces.board import BoardSession
from edgedeploy.records.job import Job, MeasurePlan, Payload
from edgedeploy.reference.export import run_reference
from edgedeploy.reference.parity import check_executed, check_parity
from edgedeploy.spec.boards import board_of_word
from edgedeploy.study.bundle.on_board import load_on_board
from edgedeploy.study.store import Store
from edgedeploy.targets.litert.target import LiteRtTarget
from edgedeploy.testing import models

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"
PLAN = MeasurePlan(queries=64, warmup=2, block=8, cold_starts=2, time_limit_s=250.0)
pytestmark = [pytest.mark.timeout(900), pytest.mark.beside, pytest.mark.usefixtures("warm_converter")]
"""The first test that needs an image builds it, and emulation beside a busy host is slow."""

SAME_COUNT = 5e-3
"""How far two boots may be apart in instructions. Each tick of the kernel's clock within an inference adds some 10,000, and
one that the network wakes adds more: of 15 million, eight quiet boots were within .0003 of each other, and two on a machine
with four other tests .0016 apart."""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The example's two-target study, with a goal that an emulated processor can have a number for."""
    shutil.copy(EXAMPLES / "squares.py", tmp_path)
    text = (EXAMPLES / "squares.toml").read_text().replace('metric = "latency_ratio"', 'metric = "size_bytes"')
    path = tmp_path / "squares.toml"
    path.write_text(text)
    return path


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [*warm_cli.command(), *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=800)


class TestOneSession:
    """What artifacts compute there. One session, as a board takes many jobs: its Python starts by the emulator but once."""

    @pytest.fixture(scope="class")
    @classmethod
    def session(cls) -> Iterator[BoardSession]:
        need_image("arm64")
        with open_board({"name": "arm", "kind": "emulated", "machine": "arm64"}).session() as session:
            yield session

    def test_arm64_runtimes_compute_what_this_host_computes(self, session: BoardSession, tmp_path: Path) -> None:
        payloads = {name: make_payload(tmp_path / name, target=name) for name in ("onnxruntime", "openvino")}
        session_here = onnxruntime.InferenceSession(str(payloads["onnxruntime"].folder / "model.onnx"))
        inputs = np.load(payloads["onnxruntime"].inputs)["x"]
        expected = np.stack([session_here.run(None, {"x": case})[0] for case in inputs])
        assert (session.info.arch, session.info.provenance, session.info.clock) == ("aarch64", "emulated", "none")
        assert set(payloads) <= set(session.info.runtimes)
        assert "emulator" in session.info.notes[0]
        for name, payload in payloads.items():
            (tmp_path / f"from-{name}").mkdir()
            raw = session.measure(Job(payload, payload, PLAN), tmp_path / f"from-{name}")
            assert raw.outputs is not None
            assert raw.candidate.blocks_ns == ()  # nothing was timed, though 64 queries were asked for
            assert raw.candidate.executed == {"float32": 2}
            with np.load(raw.outputs) as data:
                np.testing.assert_allclose(data["y"], expected, rtol=1e-4, atol=1e-4)

    def test_arm64_litert_computes_in_int8_what_the_reference_computes(
        self, session: BoardSession, tmp_path: Path
    ) -> None:
        """Integer kernels are written anew for each processor."""
        target = LiteRtTarget()
        if not (readiness := target.probe()).ready:
            pytest.skip(f"{readiness.found} ({readiness.remedy})")
        model = models.two_heads(tmp_path / "model")
        artifact = target.build(model.request("int8"), tmp_path / "built")
        feeds = list(models.images(seed=2, count=4))
        np.savez(tmp_path / "inputs.npz", image=np.stack([feed["image"] for feed in feeds]))
        payload = Payload(artifact, tmp_path / "built", tmp_path / "inputs.npz", 1)
        raw = session.measure(Job(payload, None, OUTPUTS_ONLY), tmp_path)
        assert raw.candidate.executed is not None
        check_executed("int8", raw.candidate.executed)
        assert raw.outputs is not None
        with np.load(raw.outputs) as data:
            found = {name: data[name] for name in data.files}
        rows = [run_reference(model.reference, feed) for feed in feeds]
        check_parity({name: np.stack([row[name] for row in rows]) for name in found}, found, "int8")


def test_nothing_is_left_on_this_host(tmp_path: Path) -> None:
    image = need_image("arm64")
    registered = set(Path("/proc/sys/fs/binfmt_misc").iterdir())
    with serve(image) as target:
        folder = target.home
        assert folder is not None
        assert str(folder) not in Path("/proc/mounts").read_text()  # its mounts are in namespaces of its own
        assert set(Path("/proc/sys/fs/binfmt_misc").iterdir()) == registered
        assert len(processes_of(folder)) >= 3
    assert not folder.exists()
    assert processes_of(folder) == []


def test_a_bundle_is_ready_on_arm64_and_one_for_x86_is_refused_there(tmp_path: Path) -> None:
    """By the pushed agent alone: its files are the whole runtime."""
    need_image("arm64")
    key, trust = product_kit.make_key(tmp_path)
    files = product_kit.make_files()
    table = board_of_word("emulated:arm64")
    ours = product_kit.write_signed(tmp_path / "arm", product_kit.for_machine(files, "aarch64"), key)
    loaded = load_on_board(ours, trust, table)
    assert (loaded.ready, loaded.release, loaded.proof.cases) == ("thyroid", 1, 2)
    assert loaded.device.startswith("CPUExecutionProvider (onnxruntime ")
    assert loaded.proof.relative_l2["out"] <= 1e-4 and loaded.proof.share_differing is not None
    theirs = product_kit.write_signed(tmp_path / "x86", files, key)
    with pytest.raises(BundleError, match="incompatible: it was made for x86_64, and this machine is aarch64"):
        load_on_board(theirs, trust, table)


def test_an_int8_bundle_for_litert_is_ready_on_arm64(tmp_path: Path) -> None:
    """Golden answers of this host's kernels, held against those of the other processor."""
    need_image("arm64")
    target = LiteRtTarget()
    if not (readiness := target.probe()).ready:
        pytest.skip(f"{readiness.found} ({readiness.remedy})")
    artifact = target.build(models.two_heads(tmp_path / "model").request("int8"), tmp_path / "built")
    files = product_kit.files_of(artifact, tmp_path / "built", far=0.02)
    key, trust = product_kit.make_key(tmp_path)
    bundle = product_kit.write_signed(tmp_path / "arm", product_kit.for_machine(files, "aarch64", "1"), key)
    loaded = load_on_board(bundle, trust, board_of_word("emulated:arm64"))
    assert (loaded.proof.cases, set(loaded.proof.relative_l2)) == (2, {"out0", "out1"})
    assert "(litert " in loaded.device


def test_a_killed_user_leaves_no_board_running(tmp_path: Path) -> None:
    need_image("arm64")
    code = (
        "import time; from edgedeploy.boards.arm.server import serve; from edgedeploy.boards.arm.image import image_of\n"
        "with serve(image_of('arm64')) as target: print(target.home, flush=True); time.sleep(250)"
    )
    assert processes_after_kill(code, processes_of) == []


def processes_of(folder: Path) -> list[int]:
    """Processes that name the session's folder, or live below its root."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes()
            root = str((entry / "root").readlink())
        except OSError:
            continue
        if str(folder).encode() in words or root.startswith(str(folder)):
            found.append(int(entry.name))
    return found


@pytest.mark.slow
def test_study_deploys_both_targets_and_claims_no_time(study: Path, tmp_path: Path) -> None:
    need_image("arm64")
    out = tmp_path / "out"
    done = run("search", study, "--board", "emulated:arm64", "--trials", "2", "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    measured = Store(out).measurements()
    assert {item.variant.target for item in measured} == {"onnxruntime", "openvino"}
    for item in measured:
        assert (item.board.arch, item.board.clock, item.provenance) == ("aarch64", "none", "emulated")
        assert item.parity
        assert item.metrics["size_bytes"] > 0
        assert not [name for name in item.metrics if name.endswith("_ns") or "latency" in name]
        assert "no board's" in item.missing["latency_p50_ns"]
    front = json.loads(run("front", out, "--json").stdout)
    assert front["provenance"] == "emulated"
    page = Path(run("report", out).stdout.split("Report: ")[1].strip()).read_text()
    assert "no time and no memory" in page
    assert "no time is the board" in page


def test_a_study_that_wants_latency_is_refused(tmp_path: Path) -> None:
    need_image("arm64")
    for name in ("squares.py", "squares.toml"):
        shutil.copy(EXAMPLES / name, tmp_path)
    out = tmp_path / "out"
    done = run("search", tmp_path / "squares.toml", "--board", "emulated:arm64", "--out", out)
    assert done.returncode == 2
    assert "has no latency_ratio" in done.stderr
    assert not out.exists()


@pytest.mark.slow
def test_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    need_image("arm64")
    environment = {**os.environ, "EDGEDEPLOY_CACHE": str(tmp_path)}
    argv = [sys.executable, "-m", "edgedeploy", "boards", "create", "arm64"]
    process = subprocess.Popen(
        argv,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - a background job ignores it
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("unpacking"):
            break
    wait_for("it to be half unpacked", lambda: list((tmp_path / "boards").glob(".part-*/root/*/*")))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(timeout=300) == 4
    assert "nothing half-built" in process.stderr.read()
    process.stderr.close()
    assert [path.name for path in (tmp_path / "boards").iterdir()] == [".lock"]


def wide_model(path: Path) -> None:
    """Three convolutions, the middle one of 128 channels: 15 million instructions."""
    rng = np.random.default_rng(0)
    widths = (3, 128, 128, 2)
    values = ("x", "first", "second", "y")
    weights = [
        numpy_helper.from_array(rng.normal(size=(after, before, 3, 3)).astype(np.float32), f"w{number}")
        for number, (before, after) in enumerate(itertools.pairwise(widths))
    ]
    nodes = [
        helper.make_node("Conv", [before, f"w{number}"], [after], pads=[1] * 4)
        for number, (before, after) in enumerate(itertools.pairwise(values))
    ]
    save_model(path, nodes, weights)


@pytest.mark.slow
def test_system_counts_the_same_instructions_in_two_boots(tmp_path: Path) -> None:
    need_image("arm64-system")
    board = open_board({"name": "arm", "kind": "emulated", "machine": "arm64-system"})
    job = make_job(tmp_path, wide_model, PLAN)
    counts, boots = [], set()
    for number in range(2):
        folder = tmp_path / f"collected-{number}"
        folder.mkdir()
        with board.session() as session:
            assert (session.info.arch, session.info.clock, session.info.cores) == ("aarch64", "virtual", 1)
            boots.add(session.info.boot_id)
            raw = session.measure(job, folder)
        metrics, _ = board_metrics(raw.candidate, None, job.candidate.artifact, clock=session.info.clock)
        counts.append(metrics["virtual_ns"])
    assert len(boots) == 2
    assert abs(counts[1] / counts[0] - 1) <= SAME_COUNT, counts
