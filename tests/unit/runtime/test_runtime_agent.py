"""The agent's own parts: packing, probing, uploads, the order of timing, what ran in which precision."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
from board_kit import constant_model, conv_model, make_payload
from fault_kit import wait_for

from edgedeploy import runtime
from edgedeploy.boards.agent import file
from edgedeploy.boards.agent.client import AgentClient
from edgedeploy.boards.local import LocalTransport
from edgedeploy.runtime import processes
from edgedeploy.runtime.agent import blobs, measure, worker
from edgedeploy.runtime.faults import RuntimeFault, from_exception
from edgedeploy.runtime.files import Root, read_json, write_json
from edgedeploy.runtime.sensors import environment, probe
from edgedeploy.runtime.sessions.onnxruntime import executed_from_profile
from edgedeploy.runtime.sessions.open import open_session

PACKAGE = Path(runtime.__file__).parent
CPU_HAS_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"} & set(probe.probe()["isa"])

PATIENT: dict[str, Any] = {"board": "b", "python": sys.executable, "timeout_s": 120.0}

IMPORT_ALL = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
print(json.dumps([importlib.import_module(name).__file__ for name in sys.argv[2:]]))
"""


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def put_blob(root: Root, data: bytes) -> str:
    root.blobs.mkdir(exist_ok=True)
    sha256 = hashlib.sha256(data).hexdigest()
    (root.blobs / sha256).write_bytes(data)
    return sha256


class TestAgentFile:
    def test_same_bytes_whenever_it_is_built(self) -> None:
        first = file.agent_file()
        file.agent_file.cache_clear()
        second = file.agent_file()
        assert (first.data, first.sha256) == (second.data, second.sha256)

    def test_a_damaged_agent_is_brought_anew(self, tmp_path: Path) -> None:
        with contextlib.closing(LocalTransport()) as transport:
            client = AgentClient.install(transport, root=str(tmp_path), **PATIENT)
            folder = tmp_path / "agents" / file.agent_file().sha256
            source = folder / "edgedeploy" / "runtime" / "sensors" / "probe.py"
            whole = source.read_bytes()
            source.write_bytes(whole.replace(b"cores", b"c0res"))
            client = AgentClient.install(transport, root=str(tmp_path), **PATIENT)
            assert source.read_bytes() == whole
            assert client.call("probe")["cores"] >= 1
        assert [path.name for path in (tmp_path / "agents").iterdir()] == [folder.name]

    def test_every_module_of_the_runtime_is_packed_and_imports_on_a_board(self, tmp_path: Path) -> None:
        with contextlib.closing(LocalTransport()) as transport:
            AgentClient.install(transport, root=str(tmp_path), **PATIENT)
        folder = tmp_path / "agents" / file.agent_file().sha256
        there = sorted(path.relative_to(folder / "edgedeploy" / "runtime") for path in folder.rglob("runtime/**/*.py"))
        here = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__main__.py")
        assert there == here
        names = [".".join(("edgedeploy", "runtime", *path.with_suffix("").parts)) for path in there]
        argv = [sys.executable, "-I", "-c", IMPORT_ALL, str(folder), *names]
        done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout) == [str(folder / "edgedeploy" / "runtime" / path) for path in there]

    def test_runs_without_the_package_and_without_numpy(self, tmp_path: Path) -> None:
        path = tmp_path / "agent.pyz"
        path.write_bytes(file.agent_file().data)
        done = subprocess.run(
            [sys.executable, "-I", "-S", path, "probe"], capture_output=True, cwd=tmp_path, check=True
        )
        found = json.loads(done.stdout)
        assert found["cores"] >= 1
        assert found["runtimes"] == {}
        assert any("numpy" in note for note in found["notes"])

    @pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=name_of)
    def test_keeps_to_the_syntax_of_python_3_8(self, path: Path) -> None:
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))

    @pytest.mark.parametrize(
        "newer",
        [
            "with (open(a) as b, open(c) as d): pass",
            "match a:\n case 1: pass",
            "def f[T](a: T): pass",
        ],
    )
    def test_newer_syntax_would_be_found(self, newer: str) -> None:
        with pytest.raises(SyntaxError):
            ast.parse(newer, feature_version=(3, 8))


class TestProbe:
    def test_finds_the_runtimes_of_this_environment(self) -> None:
        found = probe.probe()["runtimes"]
        for name in ("onnxruntime", "openvino"):
            assert found[name] == importlib.import_module(name).__version__.split("-")[0]
        assert ("litert" in found) == (importlib.util.find_spec("ai_edge_litert") is not None)

    def test_counts_only_flags_that_every_core_has(self) -> None:
        assert probe.cpu_flags("Features\t: asimd asimddp i8mm\n\nFeatures\t: asimd asimddp\n") == {"asimd", "asimddp"}

    def test_names_an_arm_board_by_its_model_line(self) -> None:
        assert probe.cpu_model("processor\t: 0\nModel\t\t: Raspberry Pi 5\n") == "Raspberry Pi 5"


class TestBlobs:
    def test_damaged_blob_is_removed_and_asked_for_again(self, tmp_path: Path) -> None:
        root = Root(tmp_path)
        whole, damaged = put_blob(root, b"whole"), put_blob(root, b"damaged")
        (root.blobs / damaged).write_bytes(b"damage!")
        assert blobs.verify(root, {whole: 5, damaged: 7})["missing"] == [damaged]
        assert not (root.blobs / damaged).exists()
        assert (root.blobs / whole).read_bytes() == b"whole"

    def test_part_with_another_hash_is_removed(self, tmp_path: Path) -> None:
        root = Root(tmp_path)
        wanted = put_blob(root, b"the old artifact")
        (root.blobs / ".part-1").write_bytes(b"the old artifac")
        with pytest.raises(RuntimeFault) as caught:
            blobs.commit(root, [(".part-1", wanted)])
        assert caught.value.cause == "corrupt_blob"
        assert [path.name for path in root.blobs.iterdir()] == [wanted]
        assert (root.blobs / wanted).read_bytes() == b"the old artifact"

    def test_longest_unused_blobs_make_room(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        root = Root(tmp_path)
        names = [put_blob(root, bytes([index]) * 100) for index in range(4)]
        for age, name in enumerate(names):
            os.utime(root.blobs / name, (age, age))
        capacity = 500
        used = lambda: sum(path.stat().st_size for path in root.blobs.iterdir())  # noqa: E731
        monkeypatch.setattr(blobs, "free_bytes", lambda root: capacity - used())
        answer = blobs.verify(root, {"f" * 64: 250, names[0]: 100})
        assert answer["missing"] == ["f" * 64]
        assert answer["free_bytes"] >= answer["needed_bytes"] == 250
        assert {path.name for path in root.blobs.iterdir()} == {names[0], names[3]}

    @pytest.mark.parametrize("name", ["../etc/passwd", "A" * 64, ""])
    def test_names_that_are_no_hashes_are_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(RuntimeFault):
            Root(tmp_path).blob(name)


class TestTiming:
    def test_sides_take_turns_in_whole_abba_rounds(self) -> None:
        assert measure.abba_order(["a", "b"], queries=17, block=4) == ["a", "b", "b", "a"] * 3
        assert measure.abba_order(["a"], queries=8, block=4) == ["a", "a"]
        assert measure.abba_order(["a", "b"], queries=0, block=4) == []

    def test_background_is_what_others_use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        second = 10**9
        machine = iter([(100 * second, second), (103 * second, 2 * second)])
        monkeypatch.setattr(environment, "machine_cpu_ns", lambda text, cores: next(machine))
        clock = iter([0, 2 * second])
        monkeypatch.setattr(environment.time, "monotonic_ns", lambda: next(clock))
        own = iter([0, 2 * second])
        found = environment.BackgroundMeter(lambda: next(own)).stop()
        assert found["background_cpu_share"] == pytest.approx(0.5)
        assert found["stolen_cpu_share"] == pytest.approx(0.5)

    def test_machine_time_leaves_out_idle_and_waiting(self) -> None:
        tick_ns = 10**9 // os.sysconf("SC_CLK_TCK")
        text = "cpu  1 2 3 1000 1000 4 5 6 7 8\ncpu0 1 2 3 1000 1000 4 5 6 7 8\n"
        assert environment.machine_cpu_ns(text) == (15 * tick_ns, 6 * tick_ns)

    def test_what_runs_on_other_cores_than_the_leased_ones_does_not_count(self) -> None:
        tick_ns = 10**9 // os.sysconf("SC_CLK_TCK")
        text = (
            "cpu  9 0 0 0 0 0 0 9 0 0\ncpu0 4 0 0 0 0 0 0 1 0 0\ncpu1 2 0 1 0 0 0 0 3 0 0\ncpu10 3 0 0 0 0 0 0 5 0 0\n"
        )
        assert environment.machine_cpu_ns(text, (1,)) == (3 * tick_ns, 3 * tick_ns)
        assert environment.machine_cpu_ns(text, (0, 10)) == (7 * tick_ns, 6 * tick_ns)

    def test_conditions_that_cannot_be_read_come_with_their_reason(self) -> None:
        found = environment.snapshot()
        unread = {name for name, value in found.items() if value is None}
        assert set(found["missing"]) == unread
        assert all(found["missing"].values())
        assert found["memory_available_bytes"] > 0

    def test_pinning_gives_as_many_cores_as_threads(self) -> None:
        allowed = os.sched_getaffinity(0)
        try:
            chosen = worker.pin(1)
            assert os.sched_getaffinity(0) == set(chosen)
            assert len(chosen) == 1
        finally:
            os.sched_setaffinity(0, allowed)
        assert set(worker.pin(10_000)) == allowed


class TestProcesses:
    def test_process_id_alone_is_no_identity(self) -> None:
        who = processes.identity(os.getpid())
        assert processes.is_alive(who)
        assert not processes.is_alive({**who, "start_ticks": who["start_ticks"] + 1})
        assert not processes.is_alive({**who, "boot_id": "another boot"})

    def test_ends_exactly_the_processes_with_the_argument(self) -> None:
        mark = f"mark-{uuid.uuid4().hex}"
        other = f"{mark}b"
        program = "import time; time.sleep(3000)"
        marked = subprocess.Popen([sys.executable, "-c", program, mark])
        spared = subprocess.Popen([sys.executable, "-c", program, other])
        try:
            for each in (mark, other):
                wait_for("arguments to be seen, a moment after the start", partial(processes.with_argument, each))
            assert processes.end_all_with_argument(mark, patience_s=60.0) == 1
            assert marked.wait(60) != 0
            assert spared.poll() is None
        finally:
            for process in (marked, spared):
                process.kill()
                process.wait()

    def test_one_that_has_just_begun_its_program_is_found(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A worker that was started the moment before its lease was taken over had been left behind."""
        proc = tmp_path / "proc"
        for number, runs in ((11, True), (12, False)):
            (proc / str(number)).mkdir(parents=True)
            (proc / str(number) / "cmdline").write_bytes(b"")
            if runs:
                (proc / str(number) / "exe").symlink_to(sys.executable)
        naps: list[float] = []

        def nap(pause_s: float) -> None:
            naps.append(pause_s)
            if len(naps) == 3:
                (proc / "11" / "cmdline").write_bytes(b"python\0mark\0")

        monkeypatch.setattr(processes, "_PROC", proc)
        monkeypatch.setattr(processes.time, "sleep", nap)
        assert processes.with_argument("mark") == [11]
        assert len(naps) == 3, "nothing waits for a thread of the kernel"

    def test_json_file_is_whole_or_none(self, tmp_path: Path) -> None:
        path = tmp_path / "status.json"
        assert read_json(path) is None
        path.write_text('{"state": "run')
        assert read_json(path) is None
        write_json(path, {"state": "done"})
        assert read_json(path) == {"state": "done"}
        assert [entry.name for entry in tmp_path.iterdir()] == ["status.json"]


class TestSessions:
    @pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
    def test_float_model_runs_in_float32_unless_told_otherwise(self, target: str, tmp_path: Path) -> None:
        payload = make_payload(tmp_path, conv_model)
        session = open_session(target, payload.folder, "model.onnx", {}, 1)
        assert session.executed() == {"float32": 2}
        assert (list(session.inputs), list(session.outputs)) == (["x"], ["y"])

    @pytest.mark.skipif(not CPU_HAS_BFLOAT16, reason="this CPU has no bfloat16 instructions")
    def test_bfloat16_in_openvino_shows(self, tmp_path: Path) -> None:
        payload = make_payload(tmp_path, conv_model)
        hint = {"INFERENCE_PRECISION_HINT": "bf16"}
        assert open_session("openvino", payload.folder, "model.onnx", hint, 1).executed() == {"bfloat16": 2}

    @pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
    def test_of_a_model_without_products_every_layer_on_floats_counts(self, target: str, tmp_path: Path) -> None:
        payload = make_payload(tmp_path, constant_model)
        assert open_session(target, payload.folder, "model.onnx", {}, 1).executed() == {"float32": 1}

    def test_profile_tells_integer_layers_from_float_ones(self) -> None:
        def node(name: str, operator: str, *types: str) -> dict[str, object]:
            shapes = [{kind: [1]} for kind in types]
            return {
                "cat": "Node",
                "name": f"{name}_kernel_time",
                "args": {"op_name": operator, "input_type_shape": shapes},
            }

        events = [
            node("a", "QLinearConv", "uint8", "float"),
            node("a", "QLinearConv", "uint8", "float"),
            node("b", "DynamicQuantizeMatMul", "float", "int8"),
            node("c", "NhwcFusedConv", "float", "float"),
            node("d", "MatMul", "int64", "int64"),
            node("e", "QuantizeLinear", "float", "float"),
            {"cat": "Session", "name": "model_run", "args": {}},
        ]
        assert executed_from_profile(events) == {"int8": 1, "int8-dynamic": 1, "float32": 1}

    @pytest.mark.parametrize(
        ("target", "entry", "cause"),
        [("teletype", "model.onnx", "runtime_missing"), ("onnxruntime", "absent.onnx", "open_failed")],
    )
    def test_faults_have_causes(self, target: str, entry: str, cause: str, tmp_path: Path) -> None:
        payload = make_payload(tmp_path)
        with pytest.raises(RuntimeFault) as caught:
            open_session(target, payload.folder, entry, {}, 1)
        assert caught.value.cause == cause

    @pytest.mark.parametrize(
        ("ir_version", "opset", "told"), [(99, 17, "ONNX IR version 99"), (8, 999, "operator set 999")]
    )
    def test_a_file_newer_than_onnxruntime_says_so(
        self, ir_version: int, opset: int, told: str, tmp_path: Path
    ) -> None:
        """In the words of the release that is installed here."""

        def newer(path: Path) -> None:
            conv_model(path)
            model = onnx.load(str(path))
            model.ir_version = ir_version
            model.opset_import[0].version = opset
            onnx.save(model, str(path))

        payload = make_payload(tmp_path, newer)
        with pytest.raises(RuntimeFault) as caught:
            open_session("onnxruntime", payload.folder, "model.onnx", {}, 1)
        what, _, has = told.rpartition(" ")
        assert caught.value.cause == "runtime_too_old"
        assert caught.value.message.startswith(f"onnxruntime {onnxruntime.__version__} reads files up to {what} ")
        assert caught.value.message.endswith(f", and this one has {has}")

    def test_memory_has_a_cause_of_its_own(self) -> None:
        assert from_exception(MemoryError(), "run_failed").cause == "memory_exceeded"
        assert from_exception(RuntimeError("std::bad_alloc"), "run_failed").cause == "memory_exceeded"
        assert from_exception(OSError(28, "No space left on device"), "internal").cause == "disk_full"
        assert from_exception(ValueError("shape"), "run_failed").cause == "run_failed"
