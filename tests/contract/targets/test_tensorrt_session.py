"""The contract of targets, kept by the one whose engines are built on the board: the project's own session, on a SIMULATION
of TensorRT's Python API. What an engine computes on a GPU it cannot tell; everything around the engine it can."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import made_up
import numpy as np
import pytest
import simulated_tensorrt
from small_onnx import convolutional, feeds, request

from edgedeploy.errors import TargetUnavailable, Unsupported
from edgedeploy.interfaces.target import FitsBoard, Target
from edgedeploy.records.artifact import Artifact
from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.sessions.open import Profiled, Session, open_session
from edgedeploy.runtime.sessions.tensorrt import case, engine
from edgedeploy.runtime.sessions.tensorrt import session as session_tensorrt
from edgedeploy.targets.tensorrt import TensorRtTarget, TrtVersion
from edgedeploy.testing import TargetContract

pytestmark = pytest.mark.beside


class Board:
    """A simulated TensorRT in this process, and where its engines lie."""

    def __init__(self, folder: Path, library: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, patch
        patch.setattr(case, "CUDART", (str(library),))
        patch.setenv("EDGEDEPLOY_CACHE", str(folder / "cache"))
        patch.setenv("SIMULATED_TENSORRT_CALLS", str(folder / "calls.log"))

    def become(self, version: str = "10.3.0", fail: str = "") -> None:
        place = self.folder / f"{version}-{fail}"
        if not place.exists():
            simulated_tensorrt.write_module(place, version, fail)
        self._patch.syspath_prepend(str(place))
        self._patch.delitem(sys.modules, "tensorrt", raising=False)

    @property
    def engines(self) -> list[Path]:
        return sorted((self.folder / "cache" / "engines").glob("*.plan"))

    @property
    def builds(self) -> list[Any]:
        return [json.loads(line.removeprefix("build ")) for line in simulated_tensorrt.builds(self.folder)]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler on this machine: apt-get install gcc")
    return simulated_tensorrt.write_cudart(tmp_path_factory.mktemp("cudart"), compiler)


@pytest.fixture
def board(library: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    made = Board(tmp_path_factory.mktemp("board"), library, monkeypatch)
    made.become()
    yield made
    sys.modules.pop("tensorrt", None)


class TestTensorRt(TargetContract):
    @pytest.fixture(autouse=True)
    def _simulated(self, board: Board) -> None:
        pass

    def make(self) -> Target:
        return TensorRtTarget((TrtVersion(10, 3),))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Path]:
    folder = tmp_path_factory.mktemp("built")
    path = convolutional(folder / "reference.onnx")
    return TensorRtTarget().build(request(path, "float32"), folder / "artifact"), folder / "artifact"


def opened(built: tuple[Artifact, Path]) -> Session:
    artifact, folder = built
    return open_session("tensorrt", folder, artifact.entry, {k: str(v) for k, v in artifact.settings}, 1)


def test_an_engine_is_built_once_and_kept_under_what_it_is_bound_to(built: tuple[Artifact, Path], board: Board) -> None:
    session = opened(built)
    assert (session.device, session.version) == (simulated_tensorrt.GPU, "10.3.0")
    assert session.executed() == {"float32": 3}
    opened(built)
    assert board.builds == [[2, ""]], "strong types, TF32 cleared, once"
    board.become("8.6.1")
    opened(built)
    assert board.builds[1:] == [[1, ""]], "an explicit batch, and again for another release"
    notes = [json.loads(plan.with_suffix(".json").read_text(encoding="utf-8")) for plan in board.engines]
    assert {note["tensorrt"] for note in notes} == {"10.3.0", "8.6.1"}
    assert all(note["warnings"] == ["a warning of the simulated builder"] for note in notes)


def test_before_strong_types_flags_allow_what_the_file_asks_for(board: Board, tmp_path: Path) -> None:
    path = convolutional(tmp_path / "reference.onnx")
    made = TensorRtTarget().build(request(path, "float16"), tmp_path / "artifact")
    board.become("8.6.1")
    assert set(opened((made, tmp_path / "artifact")).executed()) == {"float16"}
    assert board.builds == [[1, "FP16"]]


@pytest.mark.parametrize(
    ("version", "fail", "told"),
    [
        ("10.3.0", "parser", "does not parse it: Assertion failed: Scale coefficients must all be positive"),
        ("10.3.0", "builder", "builds no engine: Error Code 10: Could not find any implementation"),
        ("10.3.0", "foreign", "across different models of devices"),
        ("8.2.1", "", "names no tensors"),
    ],
)
def test_what_tensorrt_refuses_is_told_in_its_words(
    version: str, fail: str, told: str, built: tuple[Artifact, Path], board: Board
) -> None:
    board.become(version, fail)
    with pytest.raises(RuntimeFault, match=re.escape(told)) as caught:
        opened(built)
    assert caught.value.cause == "open_failed"
    assert fail == "foreign" or not board.engines, "no engine is left of a build that failed"


def test_an_engine_that_is_not_what_was_built_is_refused(built: tuple[Artifact, Path], board: Board) -> None:
    opened(built)
    board.engines[0].write_bytes(board.engines[0].read_bytes() + b" ")
    with pytest.raises(RuntimeFault, match="is not what was built here: remove it"):
        opened(built)


def test_a_board_without_tensorrt_or_cuda_says_so(
    built: tuple[Artifact, Path], board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(case, "CUDART", ("/nowhere/libcudart.so",))
    with pytest.raises(RuntimeFault, match="no CUDA runtime: looked for /nowhere"):
        opened(built)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(RuntimeFault) as caught:
        opened(built)
    assert caught.value.cause == "runtime_missing"


def test_engines_longest_unused_make_room(
    built: tuple[Artifact, Path], board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(built)
    first = board.engines[0]
    monkeypatch.setattr(engine, "KEPT_BYTES", first.stat().st_size + 100)
    path = convolutional(tmp_path / "other.onnx", opset=13)
    opened((TensorRtTarget().build(request(path, "float32"), tmp_path / "other"), tmp_path / "other"))
    assert len(board.engines) == 1
    assert first not in board.engines
    assert not first.with_suffix(".json").exists()
    opened(built)
    assert len(board.builds) == 3, "it is built again when it is asked for"


def test_layers_have_times_and_the_names_they_were_fused_from(built: tuple[Artifact, Path], board: Board) -> None:
    session = opened(built)
    assert isinstance(session, Profiled)
    runs = list(feeds(built[0].inputs[0], count=3))
    before = session.run(runs[0])
    layers = session.profile(runs)
    assert [layer["operator"] for layer in layers] == ["Convolution"] * 3
    assert all(layer["ns"] > 0 and layer["device"] == simulated_tensorrt.GPU for layer in layers)
    assert "/head/conv" in layers[-1]["sources"]
    np.testing.assert_array_equal(session.run(runs[0])["out"], before["out"])


def test_the_session_uses_names_that_nvidias_package_has() -> None:
    """TensorRT for RTX is another product with the same Python API; what it lacks is listed here, with why."""
    trt = pytest.importorskip("tensorrt_rtx", reason="no package of NVIDIA's here: pip install tensorrt-rtx")
    text = "".join(Path(module.__file__ or "").read_text("utf-8") for module in (session_tensorrt, engine))
    assert set(re.findall(r"\btrt\.(\w+)", text)) <= set(dir(trt))
    owners = {
        "builder": trt.Builder,
        "parser": trt.OnnxParser,
        "config": trt.IBuilderConfig,
        "inspector": trt.EngineInspector,
        "_engine": trt.ICudaEngine,
        "_context": trt.IExecutionContext,
        "_runtime": trt.Runtime,
    }
    for name, owner in owners.items():
        used = set(re.findall(rf"\b{name}\.(\w+)", text))
        assert used, name
        assert used <= set(dir(owner)), name
    for kind in ("MemoryPoolType", "ProfilingVerbosity", "BuilderFlag", "TensorIOMode", "LayerInformationFormat"):
        used = set(re.findall(rf"\.{kind}\.(\w+)", text))
        assert used, kind
        assert used <= set(dir(getattr(trt, kind))), kind


def test_nvidias_own_builder_takes_the_calls(tmp_path: Path) -> None:
    """The builder of TensorRT for RTX, which needs no GPU once it is told for which one to build."""
    trt = pytest.importorskip("tensorrt_rtx", reason="no package of NVIDIA's here: pip install tensorrt-rtx")

    class Builder(trt.Builder):  # type: ignore[misc,name-defined]
        def create_builder_config(self) -> Any:
            config = super().create_builder_config()
            config.num_compute_capabilities = 1
            config.set_compute_capability(trt.ComputeCapability.SM86, 0)
            return config

    names = {name: getattr(trt, name) for name in dir(trt) if not name.startswith("_")}
    api = SimpleNamespace(**{**names, "__version__": "10.3.0", "Builder": Builder})
    path = convolutional(tmp_path / "reference.onnx")
    TensorRtTarget().build(request(path, "int8"), tmp_path / "artifact")
    log = session_tensorrt.make_logger(api)
    plan = engine.build(api, log, tmp_path / "artifact" / "model.onnx", ["int8"])
    assert len(plan) > 10_000
    assert not log.errors
    (tmp_path / "broken.onnx").write_bytes(path.read_bytes()[:400])
    with pytest.raises(RuntimeFault, match="does not parse it"):
        engine.build(api, log, tmp_path / "broken.onnx", [])


def test_a_build_keeps_the_rules_of_the_board_that_it_is_for(tmp_path: Path) -> None:
    """A bfloat16 file is right for some release, but not for the one that this board has."""
    target = TensorRtTarget()
    assert isinstance(target, FitsBoard)
    asked = request(convolutional(tmp_path / "reference.onnx"), "bfloat16")
    target.build(asked, tmp_path / "any")
    made = target.for_board(made_up.board(runtimes={"tensorrt": "10.3.0.30"})).build(asked, tmp_path / "orin")
    assert dict(made.settings)["releases"] == "10.3.0"
    with pytest.raises(Unsupported, match=r"bfloat16 for TensorRT 8\.6\.1"):
        target.for_board(made_up.board(runtimes={"tensorrt": "8.6.1"})).build(asked, tmp_path / "xavier")
    with pytest.raises(TargetUnavailable, match=r"TensorRT 8\.2\.1\.8 names no tensors"):
        target.for_board(made_up.board(runtimes={"tensorrt": "8.2.1.8"}))
