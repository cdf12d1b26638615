"""LiteRT keeps the contract of targets; and what is particular to it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import agent_pythons
import numpy as np
import onnx
import pytest
import torch
from board_kit import MACHINE_WAIT_S
from fault_kit import local_board

import edgedeploy
from edgedeploy.errors import BuildError, TargetUnavailable, Unsupported
from edgedeploy.interfaces.target import BuildRequest, Target
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.job import Job, MeasurePlan, Payload
from edgedeploy.records.precision import NO_RULES
from edgedeploy.reference.export import export_reference, run_reference
from edgedeploy.reference.layers import with_sources
from edgedeploy.reference.parity import check_executed, check_parity
from edgedeploy.reference.program import export_program
from edgedeploy.runtime.sessions.open import Profiled, open_session
from edgedeploy.targets.compare.layers import compare_layers
from edgedeploy.targets.litert import from_onnx, target
from edgedeploy.targets.litert.signature import nameless
from edgedeploy.targets.litert.target import LiteRtTarget
from edgedeploy.targets.litert.tool import ToolJob, make
from edgedeploy.tasks.segmentation.unet import build_unet
from edgedeploy.testing import TargetContract, models
from edgedeploy.testing.models import Model
from edgedeploy.testing.targets import Built, compared

OLD_RUNTIME = "EDGEDEPLOY_TFLITE_RUNTIME_PYTHON"
OLD_RUN = """
import sys
from pathlib import Path
import numpy as np
from edgedeploy.runtime.sessions.litert.session import open_model
session = open_model(Path(sys.argv[1]), {}, 1)
assert session.version.startswith("2.14"), session.version
given = np.load(Path(sys.argv[2]) / "in.npz")
rows = {number: session.run({"image": given[number]}) for number in given.files}
np.savez(
    Path(sys.argv[2]) / "out.npz",
    **{f"{name}.{number}": value for number, row in rows.items() for name, value in row.items()},
)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("warm_converter")
class TestLiteRt(TargetContract):
    def make(self) -> Target:
        return LiteRtTarget()

    def test_tensors_that_nobody_reads_by_name_have_short_ones(self, built: Callable[[str], Built]) -> None:
        from ai_edge_litert.interpreter import Interpreter

        artifact, folder = built("float32")
        named = (folder / artifact.entry).read_bytes()
        files = (named, nameless(named))
        assert len(files[1]) < len(files[0])
        feed = next(iter(models.images(seed=3, count=1)))
        first, second = (Interpreter(model_content=file).get_signature_runner()(**feed) for file in files)
        assert set(first) == set(second) == {"out0", "out1"}
        for name, value in first.items():
            np.testing.assert_array_equal(second[name], value)
        artifact, folder = built("int8")
        interpreter = Interpreter(model_path=str(folder / artifact.entry))
        edges = {edge["index"] for edge in (*interpreter.get_input_details(), *interpreter.get_output_details())}
        inner = [
            item["name"] for item in interpreter.get_tensor_details() if item["index"] not in edges and item["name"]
        ]
        assert inner
        assert max(map(len, inner)) < 8

    def test_integer_io_is_int8_in_the_file_and_real_numbers_outside(self, two_heads: Model, tmp_path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        LiteRtTarget(integer_io=True).build(two_heads.request("int8"), tmp_path)
        interpreter = Interpreter(model_path=str(tmp_path / "model.tflite"))
        edges = [*interpreter.get_input_details(), *interpreter.get_output_details()]
        assert {np.dtype(edge["dtype"]).name for edge in edges} == {"int8"}
        session = open_session("litert", tmp_path, "model.tflite", {}, 1)
        check_parity(*compared(two_heads, session, list(models.images(seed=2, count=4))), "int8")
        check_executed("int8", session.executed())

    def test_the_converted_model_is_kept_for_further_builds(
        self, two_heads: Model, built: Callable[[str], Built], tmp_path: Path
    ) -> None:
        """And a build from it is the artifact that a conversion of its own gives."""
        program = tmp_path / "model" / "program.pt2"
        program.parent.mkdir()
        shutil.copy(two_heads.program, program)
        copied = replace(two_heads, program=program)
        first = LiteRtTarget().build(copied.request("int8"), tmp_path / "first")
        (kept,) = program.parent.glob("float-*.tflite")
        second = LiteRtTarget().build(copied.request("int8"), tmp_path / "second")
        assert first.digest == second.digest == built("int8").artifact.digest
        whole = kept.read_bytes()
        kept.write_bytes(whole[:1000])
        assert LiteRtTarget().build(copied.request("int8"), tmp_path / "third").digest == first.digest
        assert kept.read_bytes() == whole, "a damaged one is converted again"

    def test_an_odd_calibration_case_decides_the_way_that_ranges_are_chosen(
        self, two_heads: Model, built: Callable[[str], Built], tmp_path: Path
    ) -> None:
        """One case a hundred times as bright as the others: min-max makes every step as coarse as it needs."""
        usual = list(models.images(seed=2, count=12))
        odd = [{name: values * np.float32(100) for name, values in usual[0].items()}, *usual[1:]]
        files = {}
        for way in ("", "minmax", "mean-minmax"):
            files[way] = tmp_path / f"{way or 'chosen'}.tflite"
            source = tmp_path / "float.tflite"
            shutil.copy(built("float32").folder / "model.tflite", source)
            reference = two_heads.reference
            edges = (reference.inputs, reference.outputs)
            job = ToolJob(source, reference.path, files[way], *edges, "int8", NO_RULES, False, calibrator=way)
            make(job, iter(odd))
        assert files["minmax"].read_bytes() != files["mean-minmax"].read_bytes()
        assert files[""].read_bytes() == files["mean-minmax"].read_bytes()

    def test_boards_with_the_old_runtime_open_the_same_files(
        self, two_heads: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The maintained interpreter under the old one's name: what is tried here is the way it is found and called."""
        from ai_edge_litert import interpreter

        LiteRtTarget().build(two_heads.request("int8"), tmp_path)
        monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
        monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", interpreter)
        monkeypatch.setattr("importlib.metadata.version", lambda name: {"tflite-runtime": "2.14.0"}[name])
        session = open_session("litert", tmp_path, "model.tflite", {}, 1)
        assert session.version == "2.14.0"
        check_parity(*compared(two_heads, session, list(models.images(seed=2, count=2))), "int8")

    def test_the_old_runtime_itself_computes_the_same(
        self, two_heads: Model, built: Callable[[str], Built], tmp_path: Path
    ) -> None:
        """In a Python that has it: it is built for numpy 1 and for no Python after 3.11."""
        try:
            python = os.environ.get(OLD_RUNTIME) or str(agent_pythons.environment("3.8"))
        except agent_pythons.NotHere as exc:
            pytest.skip(f"{OLD_RUNTIME} names no Python with tflite-runtime 2.14 and numpy 1, and {exc}")
        feeds = list(models.images(seed=2, count=4))
        expected = [run_reference(two_heads.reference, feed) for feed in feeds]
        np.savez(tmp_path / "in.npz", **{f"{number}": feed["image"] for number, feed in enumerate(feeds)})
        for precision in ("float32", "float16", "int8"):
            artifact, folder = built(precision)
            argv = [python, "-c", OLD_RUN, str(folder / artifact.entry), str(tmp_path)]
            root = str(Path(edgedeploy.__file__).parents[1])
            subprocess.run(argv, check=True, cwd=tmp_path, env={"PYTHONPATH": root}, timeout=200)
            with np.load(tmp_path / "out.npz") as data:
                for name in ("out0", "out1"):
                    found = np.stack([data[f"{name}.{number}"] for number in range(len(feeds))])
                    check_parity({name: np.stack([row[name] for row in expected])}, {name: found}, precision)

    def test_layers_have_times_and_the_names_of_the_reference(
        self, precision: str, two_heads: Model, built: Callable[[str], Built]
    ) -> None:
        """In the order they ran, which is the reference's here: its layers are told by their weights."""
        artifact, folder = built(precision)
        session = open_session("litert", folder, artifact.entry, {k: str(v) for k, v in artifact.settings}, 1)
        assert isinstance(session, Profiled)
        before = session.run(next(iter(models.images(seed=2))))
        rows = session.profile(list(models.images(seed=2, count=4)))
        named = [row for row in rows if row["sources"]]
        graph = onnx.load(str(two_heads.reference.path)).graph
        wanted = {node.name for node in graph.node if node.op_type in ("Conv", "ConvTranspose", "MatMul", "Gemm")}
        assert len(named) == len(wanted) == sum(session.executed().values())
        assert {row["sources"][0] for row in named} == wanted
        told = with_sources({"layers": rows}, two_heads.reference.path)["layers"]
        assert {row["source"] for row in told} == {*wanted, None}
        assert sum(row["ns"] for row in rows) > 0
        widened = {row["device"] for row in rows if row["sources"] == ["node_Conv_23"]}
        assert widened == {"CPU, built-in" if precision == "int8-dynamic" else "CPU, XNNPACK"}
        np.testing.assert_array_equal(session.run(next(iter(models.images(seed=2))))["out0"], before["out0"])

    def test_the_layer_that_was_damaged_is_the_first_bad_one(
        self, precision: str, two_heads: Model, built: Callable[[str], Built], tmp_path: Path
    ) -> None:
        from ai_edge_litert.tools import flatbuffer_utils

        artifact, folder = built(precision)
        layers = compare_layers(two_heads.reference.path, artifact, folder, lambda: models.images(seed=2, count=4))
        graph = onnx.load(str(two_heads.reference.path)).graph
        weighted = [node.name for node in graph.node if node.op_type in ("Conv", "ConvTranspose", "MatMul")]
        assert {layer.layer for layer in layers} == set(weighted)
        assert all(layer.sqnr_db > (100 if precision == "float32" else 25) for layer in layers)

        damaged = tmp_path / "model.tflite"
        model = flatbuffer_utils.read_model(str(folder / artifact.entry))
        largest = max(model.buffers, key=lambda buffer: 0 if buffer.data is None else len(buffer.data))
        largest.data = np.roll(np.asarray(largest.data), len(largest.data) // 2)
        flatbuffer_utils.write_model(model, str(damaged))
        layers = compare_layers(two_heads.reference.path, artifact, tmp_path, lambda: models.images(seed=2, count=4))
        first = next(layer for layer in layers if layer.sqnr_db < 12)
        assert first.layer == "node_Conv_25", "16 times 8 channels of 3 x 3: the largest"

    def test_a_job_brings_the_layers_of_litert(self, built: Callable[[str], Built], tmp_path: Path) -> None:
        """By the agent, in a process of its own; where the profile cannot be had, only it is missing."""
        artifact, folder = built("int8")
        plan = MeasurePlan(queries=16, warmup=1, cold_starts=0, collect_outputs=False, profile_runs=3)
        inputs = tmp_path / "inputs.npz"
        np.savez(inputs, image=np.stack([feed["image"] for feed in models.images(count=2)]))
        plain = replace(artifact, settings=(*artifact.settings, ("delegate", "none")))
        ours, theirs = (Payload(item, folder, inputs, 1) for item in (artifact, plain))
        with local_board(tmp_path / "root", wait_s=MACHINE_WAIT_S).session() as session:
            run = session.measure(Job(ours, theirs, plan), tmp_path)
        assert len(run.layers["candidate"]["layers"]) > 7
        assert "XNNPACK alone" in run.layers["baseline"]["missing"]

    def test_built_in_kernels_run_where_the_delegate_is_switched_off(self, two_heads: Model, tmp_path: Path) -> None:
        artifact = LiteRtTarget().build(two_heads.request("float32"), tmp_path)
        plain = open_session("litert", tmp_path, artifact.entry, {"delegate": "none"}, 1)
        assert plain.device == "CPU"
        assert "partition" in open_session("litert", tmp_path, artifact.entry, {}, 1).device
        check_parity(*compared(two_heads, plain, list(models.images(seed=2, count=2))), "float32")

    def test_integer_inputs_and_outputs(self, tmp_path: Path) -> None:
        """Also in int8, from the same float file: the scores are an output and what another layer reads."""
        super().test_integer_inputs_and_outputs(tmp_path)
        model = models.token_scores(tmp_path / "again")
        folder = tmp_path / "narrow"
        folder.mkdir()
        source = shutil.copy(tmp_path / "built" / "model.tflite", folder / "float.tflite")
        edges = (model.reference.inputs, model.reference.outputs)
        job = ToolJob(Path(source), model.reference.path, folder / "model.tflite", *edges, "int8", NO_RULES, False)
        settings = make(job, model.calibration())
        session = open_session("litert", folder, "model.tflite", dict(settings), 1)
        expected, found = compared(model, session, list(model.calibration()))
        check_parity({"out0": expected["out0"]}, {"out0": found["out0"]}, "int8")
        np.testing.assert_array_equal(found["out1"], found["out0"].argmax(-1))
        check_executed("int8", session.executed())

    def test_a_program_of_another_model_is_refused(self, two_heads: Model, tmp_path: Path) -> None:
        other = models.two_heads(tmp_path / "other", seed=1)
        with pytest.raises(BuildError, match=r"program\.pt2"):
            LiteRtTarget().build(replace(two_heads, program=other.program).request("float32"), tmp_path / "built")
        assert list((tmp_path / "built").iterdir()) == []

    def test_a_torch_operator_the_converter_lacks_is_named(self, tmp_path: Path) -> None:
        model = models.one_operator(tmp_path / "model", "Log", torch.special.bessel_j0)
        with pytest.raises(Unsupported, match="special_bessel_j0"):
            LiteRtTarget().build(model.request("float32"), tmp_path / "built")
        assert list((tmp_path / "built").iterdir()) == []

    def test_a_damaged_program_is_named(self, two_heads: Model, tmp_path: Path) -> None:
        broken = tmp_path / "program.pt2"
        broken.write_bytes(two_heads.program.read_bytes()[:1000])
        with pytest.raises(BuildError, match=r"program\.pt2"):
            LiteRtTarget().build(replace(two_heads, program=broken).request("float32"), tmp_path / "built")


def channels_last(folder: Path) -> Model:
    """A UNet as training leaves it. Several of its convolutions have one shape, which is what the converter mixes up."""
    network = build_unet(in_channels=1, classes=3, base=16, depth=3, upsampling="transposed", seed=0)
    network = network.eval().to(memory_format=torch.channels_last)
    spec = TensorSpec("image", "float32", (1, 1, 64, 64))
    reference = export_reference(network, (spec,), folder / "reference.onnx")
    export_program(network, (spec,), folder / "program.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch says which weights are not contiguous
        torch.export.save(torch.export.export(network, (torch.zeros(spec.shape),)), folder / "older.pt2")
    return Model(reference, folder / "program.pt2", lambda: iter(()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("now", "before"), [(1, 2), pytest.param(10, 10, marks=[pytest.mark.long, pytest.mark.timeout(3000)])]
)
def test_a_network_that_trained_channels_last_always_converts_to_one_file(
    now: int, before: int, tmp_path: Path
) -> None:
    """Also from a program of an older folder, whose weights were saved as they lay: ten of twelve such conversions had mixed
    some up. That no such weights are saved any more, tests of the program show. Each time in a process of its own, with
    nothing kept from before."""
    readiness = LiteRtTarget().probe()
    if not readiness.ready:
        pytest.skip(f"{readiness.found} ({readiness.remedy})")
    model = channels_last(tmp_path)
    assert any(not weight.is_contiguous() for weight in torch.export.load(tmp_path / "older.pt2").state_dict.values())
    digests = set()
    for number, source in enumerate(["program.pt2"] * now + ["older.pt2"] * before):
        program = tmp_path / f"{number} {source}" / source
        program.parent.mkdir()
        shutil.copy(tmp_path / source, program)
        request = replace(model, program=program).request("float32")
        digests.add(LiteRtTarget().build(request, program.parent / "built").files[0].sha256)
    assert len(digests) == 1


@pytest.fixture(scope="module")
def converter() -> str:
    """onnx2tf's release, where its environment is there: making one downloads 700 MB, which no test does by itself."""
    if not (from_onnx.home() / "ready.json").is_file():
        pytest.skip(f"no onnx2tf at {from_onnx.home()}: python -m edgedeploy.targets.litert.from_onnx makes one")
    return from_onnx.environment()[1]


@pytest.mark.slow
@pytest.mark.usefixtures("warm_converter")
class TestLiteRtFromOnnx(TargetContract):
    """The same contract where the torch program is missing: ONNX by onnx2tf."""

    def make(self) -> Target:
        return LiteRtTarget()

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _needs_onnx2tf(cls, converter: str) -> None:
        pass

    def request(self, model: Model, precision: str, calibration: models.Calibration | None = None) -> BuildRequest:
        return replace(model.request(precision, calibration), program=None)


def test_without_program_and_python_the_refusal_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(from_onnx, "find_python", lambda: None)
    with pytest.raises(TargetUnavailable, match=r"Python 3\.12 or 3\.13.*EDGEDEPLOY_ONNX2TF_PYTHON"):
        from_onnx.environment()
    assert "needs Python 3.12" in LiteRtTarget().probe().found


def test_a_converter_that_dies_is_told_apart_from_a_host_without_memory() -> None:
    assert isinstance(target._crash(-9, ""), MemoryError)
    crash = target._crash(-11, "loading\nSegmentation fault in lowering\n\n")
    assert isinstance(crash, BuildError)
    assert "status -11: Segmentation fault in lowering" in str(crash)


def test_python_that_cannot_run_the_converter_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "python3.12"
    old.write_text("#!/bin/sh\nexit 127\n", encoding="utf-8")
    old.chmod(0o755)
    monkeypatch.setenv(from_onnx.INTERPRETER_VARIABLE, str(old))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "none"))
    assert from_onnx.find_python() is None


@pytest.fixture
def damaged_job(tmp_path: Path) -> ToolJob:
    damaged = tmp_path / "gone.pt2"
    damaged.write_bytes(b"no program")
    spec = TensorSpec("image", "float32", (1, 3, 256, 256))
    output = tmp_path / "model.tflite"
    return ToolJob(damaged, tmp_path / "none.onnx", output, (spec,), (spec,), "int8", NO_RULES, integer_io=False)


def test_a_child_that_ends_before_it_reads_its_cases_is_heard(damaged_job: ToolJob, tmp_path: Path) -> None:
    """More calibration than a pipe holds, for a job that the child refuses at once."""
    desk = tmp_path / "desk"
    desk.mkdir()
    cases = ({"image": np.zeros((1, 3, 256, 256), np.float32)} for _ in range(8))
    with pytest.raises(BuildError, match=r"gone\.pt2"):
        target._run_tool(damaged_job, cases, desk)
