"""Boards that answer nothing, nonsense, or something other than what was asked for: none of it becomes a number."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from board_kit import ENDLESS, OUTPUTS_ONLY, conv_model, make_job, make_payload
from fault_kit import local_board, processes_of, running_jobs, wait_for

from edgedeploy.boards.local import LocalTransport
from edgedeploy.errors import Busy, CommandFailed, MeasurementError
from edgedeploy.evidence.metrics import board_metrics
from edgedeploy.interfaces.board import Completed
from edgedeploy.records.job import Job, MeasurePlan
from edgedeploy.reference.parity import check_executed
from edgedeploy.runtime.processes import start_ticks

pytestmark = pytest.mark.waiting

TIMED = MeasurePlan(queries=8, warmup=1, block=4, cold_starts=1, time_limit_s=60.0)


class Mute(LocalTransport):
    """Swallows the answer and the exit status of one command after it ran, as a connection that ends too early does.
    ``spared`` is how often it answers before that."""

    command = "start"
    spared = 0
    swallowed = 0

    def run(self, argv: Sequence[str], *, timeout_s: float, stdin: bytes = b"") -> Completed:
        done = super().run(argv, timeout_s=timeout_s, stdin=stdin)
        if self.command in argv and not Mute.swallowed:
            if Mute.spared:
                Mute.spared -= 1
                return done
            Mute.swallowed += 1
            return Completed(None, b"", b"")
        return done


@pytest.mark.fault(5)
@pytest.mark.parametrize(("step", "spared"), [("start", 0), ("start", 1), ("commit", 0)])
def test_unknown_exit_status_is_settled_by_the_board(
    step: str, spared: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command ran, and nobody was told: it is given again and starts no second job."""
    monkeypatch.setattr(Mute, "command", step)
    monkeypatch.setattr(Mute, "spared", spared)
    monkeypatch.setattr(Mute, "swallowed", 0)
    with local_board(tmp_path / "root", Mute).session() as session:
        assert session.measure(make_job(tmp_path / "job", plan=TIMED), tmp_path).outputs is not None
        assert len(list((tmp_path / "root" / "jobs").iterdir())) == 1
    assert Mute.swallowed == 1


@pytest.mark.alone  # it does not wait until nobody else measures
@pytest.mark.fault(5)
def test_supervisor_that_stops_is_given_up_and_ended(tmp_path: Path) -> None:
    """It neither runs nor fails: its status file says ``running`` for ever."""
    root = tmp_path / "root"
    board = local_board(root, wait_s=0.2, unchanged_s=0.3, overdue_s=1.0)
    stopped: list[int] = []

    def stop() -> None:
        job_id = wait_for("the job to run", lambda: running_jobs(root))[0]
        stopped.append(int(json.loads((root / "jobs" / job_id / "status.json").read_text())["supervisor"]["pid"]))
        os.kill(stopped[0], signal.SIGSTOP)

    thread = threading.Thread(target=stop)
    with board.session() as session:
        thread.start()
        with pytest.raises(CommandFailed, match="overdue"):
            session.measure(make_job(tmp_path / "job", plan=replace(ENDLESS, time_limit_s=1.0)), tmp_path)
    thread.join()
    with board.session() as session:
        assert start_ticks(stopped[0]) is None
        assert session.measure(make_job(tmp_path / "next"), tmp_path).outputs is not None


@pytest.mark.fault(6)
def test_orphan_that_cannot_end_by_itself_is_ended_before_the_next_run(tmp_path: Path) -> None:
    """Its supervisor is stopped and its lease's holder killed, so only the next holder can end it."""
    root = tmp_path / "root"
    board = local_board(root, unchanged_s=0.3)

    def measure() -> None:
        # Whatever it learns first: that its lease is over, or that its job has ended.
        with pytest.raises((CommandFailed, Busy)), board.session() as session:
            session.measure(make_job(tmp_path / "job", plan=ENDLESS), tmp_path)

    thread = threading.Thread(target=measure)
    thread.start()
    stopped = processes_of(root / "jobs" / wait_for("the job to run", lambda: running_jobs(root))[0])
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    os.kill(json.loads((root / "lease.json").read_text())["holder"]["pid"], signal.SIGKILL)
    assert all(start_ticks(pid) is not None for pid in stopped)
    with local_board(root).session() as session:
        assert [pid for pid in stopped if start_ticks(pid) is not None] == []
        assert session.measure(make_job(tmp_path / "next"), tmp_path).outputs is not None
    thread.join(60)
    assert not thread.is_alive()


def spoil(name: str, change: Callable[[bytes], bytes]) -> type[LocalTransport]:
    class Spoiled(LocalTransport):
        def read_bytes(self, remote: str, *, timeout_s: float, limit_bytes: int = 1 << 20) -> bytes | None:
            data = super().read_bytes(remote, timeout_s=timeout_s, limit_bytes=limit_bytes)
            return change(data) if data and Path(remote).name == name else data

    return Spoiled


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def edit(data: bytes) -> bytes:
        value = json.loads(data)
        change(value)
        return json.dumps(value).encode()

    return edit


@pytest.mark.fault(27, 28)
@pytest.mark.parametrize(
    ("file", "change", "found"),
    [
        ("status.json", lambda data: b"PASSED\n", "begins b'PASSED"),
        ("status.json", edited(lambda value: value.update(state="passed")), "state 'passed'"),
        ("result.json", lambda data: b"&&&& PASSED latency = 3.1 ms\n", "begins b'&&&& PASSED latency = 3.1 ms"),
        ("result.json", lambda data: data[: len(data) // 2], "begins b"),
        ("result.json", lambda data: b"[1, 2]", "begins b"),
        ("result.json", edited(lambda value: value.pop("candidate")), "'candidate' is missing in a result that begins"),
        ("result.json", edited(lambda value: value["candidate"].pop("blocks_ns")), "candidate: 'blocks_ns' is missing"),
        (
            "result.json",
            edited(lambda value: value["candidate"].update(blocks_ns=[["3.1 ms"]])),
            "blocks_ns[0][0]: expected int",
        ),
        (
            "result.json",
            edited(lambda value: value["candidate"].update(blocks_ns=None)),
            "candidate.blocks_ns: expected a list",
        ),
        ("result.json", edited(lambda value: value.pop("layers")), "'layers' is missing"),
        ("result.json", edited(lambda value: value.update(layer={})), "'layer' is unknown"),
    ],
)
def test_answer_of_another_form_fails_loudly_and_is_shown(
    file: str, change: Callable[[bytes], bytes], found: str, tmp_path: Path
) -> None:
    board = local_board(tmp_path / "root", spoil(file, change))
    with board.session() as session, pytest.raises(CommandFailed) as caught:
        session.measure(make_job(tmp_path / "job", plan=TIMED), tmp_path)
    assert found in caught.value.found


@pytest.mark.fault(17)
@pytest.mark.parametrize("value", ["NaN", "Infinity", "0", "-5"])
def test_time_that_no_clock_gives_is_refused(value: str, tmp_path: Path) -> None:
    def change(data: bytes) -> bytes:
        result = json.loads(data)
        result["candidate"]["blocks_ns"][0][0] = "HERE"
        return json.dumps(result).replace('"HERE"', value).encode()

    job = make_job(tmp_path / "job", plan=TIMED)
    board = local_board(tmp_path / "root", spoil("result.json", change))
    with board.session() as session, pytest.raises((CommandFailed, MeasurementError)):
        run = session.measure(job, tmp_path)
        board_metrics(run.candidate, None, job.candidate.artifact)


@pytest.mark.fault(29)
def test_artifact_that_runs_in_another_precision_than_it_says(tmp_path: Path) -> None:
    """A float model under an int8 label, on the real runtime: what ran is told by the runtime, not by the label."""
    payload = make_payload(tmp_path / "job")
    job = Job(replace(payload, artifact=replace(payload.artifact, precision="int8")), None, TIMED)
    with local_board(tmp_path / "root").session() as session:
        executed = session.measure(job, tmp_path).candidate.executed
    assert executed == {"float32": 2}
    with pytest.raises(MeasurementError, match="int8"):
        check_executed("int8", executed)


@pytest.mark.fault(30)
def test_energy_without_a_sensor_is_a_reason_and_no_number(tmp_path: Path) -> None:
    job = make_job(tmp_path / "job", plan=TIMED)
    with local_board(tmp_path / "root").session() as session:
        run = session.measure(job, tmp_path)
    metrics, missing = board_metrics(run.candidate, run.baseline, job.candidate.artifact)
    if "energy_j" in metrics:
        pytest.skip("this machine has a power sensor")
    assert missing["energy_j"]


FOREIGN = """#!/bin/sh
PYTHONPATH={packages} exec {python} "$@"
"""


def made_up_package(packages: Path) -> None:
    """The header of an Arm library, and no library."""
    library = packages / "onnxruntime" / "capi" / "onnxruntime_pybind11_state.so"
    info = packages / "onnxruntime-9.9.9.dist-info"
    library.parent.mkdir(parents=True)
    info.mkdir()
    library.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + (3).to_bytes(2, "little") + b"\xb7\x00")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime\nVersion: 9.9.9\n")
    (info / "RECORD").write_text(f"{library.relative_to(packages)},,\n")


def real_package(packages: Path) -> None:
    """What pip brings when it is told another platform."""
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages), "onnxruntime"]
    argv += ["--platform", "manylinux_2_28_aarch64", "--only-binary=:all:", "--disable-pip-version-check"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        pytest.skip(f"pip cannot bring a wheel for Arm: {done.stderr.strip()[-200:]}")


def refuse_foreign(install: Callable[[Path], None], folder: Path) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("the foreign package is one for Arm: this machine is no x86-64")
    install(folder / "packages")
    python = folder / "python"
    python.write_text(FOREIGN.format(packages=folder / "packages", python=sys.executable))
    python.chmod(0o755)
    board = local_board(folder / "root", python=str(python))
    found = board.probe()
    assert "onnxruntime" not in found.runtimes
    assert any("another architecture (aarch64, not x86_64)" in note for note in found.notes)
    with board.session() as session, pytest.raises(CommandFailed, match=r"runtime_missing.*another architecture"):
        session.measure(make_job(folder / "job", plan=OUTPUTS_ONLY), folder)
    assert list((folder / "root" / "blobs").iterdir()) == []


@pytest.mark.fault(25, simulated="the package")
def test_header_of_another_architecture_is_found_before_the_upload(tmp_path: Path) -> None:
    refuse_foreign(made_up_package, tmp_path)


@pytest.mark.fault(25)
def test_wheel_of_another_architecture_is_found_before_the_upload(tmp_path: Path) -> None:
    refuse_foreign(real_package, tmp_path)


def test_native_runtimes_are_not_taken_for_foreign(tmp_path: Path) -> None:
    found = local_board(tmp_path / "root").probe()
    assert "onnxruntime" in found.runtimes
    assert not [note for note in found.notes if "architecture" in note]


@pytest.mark.fault(18)
def test_artifact_that_computes_something_else_is_no_fast_artifact(tmp_path: Path) -> None:
    """Its weights are swapped after the build: the outputs come back from the board and are held against the golden ones."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    from edgedeploy.errors import ParityError
    from edgedeploy.reference.parity import check_parity

    def swapped(path: Path) -> None:
        conv_model(path)
        model = onnx.load(path)
        weight = model.graph.initializer[1]
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[::-1].copy(), weight.name))
        onnx.save(model, path)

    outputs = []
    for name, write in (("sound", conv_model), ("swapped", swapped)):
        (tmp_path / name).mkdir()
        with local_board(tmp_path / "root").session() as session:
            run = session.measure(make_job(tmp_path / name / "job", write), tmp_path / name)
        assert run.outputs is not None
        with np.load(run.outputs) as data:
            outputs.append({key: data[key] for key in data.files})
    check_parity(outputs[0], outputs[0], "float32")
    with pytest.raises(ParityError, match="within"):
        check_parity(outputs[0], outputs[1], "float32")
