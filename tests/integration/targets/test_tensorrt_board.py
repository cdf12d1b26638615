"""The board-side path end to end, over the local transport, against a SIMULATION of trtexec: no GPU runs here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from board_kit import SHAPE, conv_model
from simulated_trtexec import install

from edgedeploy.boards.local import LocalTransport
from edgedeploy.errors import MeasurementError, TargetUnavailable, Unstable, Unsupported
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import Artifact, TensorSpec
from edgedeploy.records.precision import PrecisionPlan
from edgedeploy.reference.export import open_onnx
from edgedeploy.reference.parity import check_parity
from edgedeploy.targets.tensorrt import (
    Level,
    LogRefused,
    TensorRtTarget,
    TrtResult,
    measure_on_board,
    require_comparable,
)
from edgedeploy.targets.tensorrt.trtexec.board import jetpack_of, probe_board
from edgedeploy.targets.tensorrt.trtexec.dla import DlaRequest
from edgedeploy.targets.tensorrt.trtexec.engine import ForeignPlan
from edgedeploy.targets.tensorrt.trtexec.log import accept
from edgedeploy.targets.tensorrt.trtexec.measure import level_of

pytestmark = pytest.mark.beside

ORIN = {"code": "100300", "build": 30, "gpu": "Orin", "capability": "8.7"}
XAVIER = {"code": "8502", "gpu": "Xavier", "capability": "7.2"}
XAVIER_82 = {"code": "8201", "gpu": "Xavier", "capability": "7.2"}
XAVIER_80 = {"code": "8001", "gpu": "Xavier", "capability": "7.2"}
NANO = {"code": "8201", "gpu": "Nano", "capability": "5.3"}
LAYER = "Conv:y"
CHIPS = {"Orin": "tegra234", "Xavier": "tegra194", "Nano": "tegra210"}


def cases(count: int = 3) -> Iterator[dict[str, Array]]:
    generator = np.random.default_rng(3)
    for _ in range(count):
        yield {"x": generator.standard_normal(SHAPE).astype(np.float32)}


@pytest.fixture(scope="module", params=["float32", "float16", "bfloat16", "int8"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Path]:
    return build(tmp_path_factory.mktemp("built"), request.param)


@pytest.fixture(scope="module")
def float16(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Path]:
    return build(tmp_path_factory.mktemp("float16"), "float16")


def build(folder: Path, precision: str, plan: dict[str, str] | None = None) -> tuple[Artifact, Path]:
    model = folder / "reference.onnx"
    conv_model(model)
    proto = onnx.load(str(model))
    proto.opset_import[0].version = 13  # for JetPack 4; its operators are the same there
    onnx.save(proto, str(model))
    outputs = (TensorSpec("y", "float32", (1, 2, 16, 16)),)
    asked = BuildRequest(
        model, (TensorSpec("x", "float32", SHAPE),), outputs, precision, cases, plan=PrecisionPlan.of(plan or {})
    )
    return TensorRtTarget().build(asked, folder / "artifact"), folder / "artifact"


class SimulatedJetson:
    """A folder that stands for a board: its trtexec, its system files, and what is kept on it."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.trtexec = install(folder / "bin", **settings)
        tree = folder / "proc" / "device-tree"
        tree.mkdir(parents=True)
        (tree / "model").write_bytes(f"NVIDIA Jetson {settings['gpu']}\0".encode())
        (tree / "compatible").write_bytes(f"nvidia,p0000\0nvidia,{CHIPS[settings['gpu']]}\0".encode())
        (folder / "etc").mkdir()
        (folder / "etc" / "nv_tegra_release").write_text("# R36 (release), REVISION: 4.3, GCID: 1\n", encoding="utf-8")

    def reconfigure(self, **settings: Any) -> None:
        install(self.folder / "bin", **settings)

    def measure(self, built: tuple[Artifact, Path], **options: Any) -> TrtResult:
        artifact, folder = built
        place = {"candidates": (self.trtexec,), "sysroot": str(self.folder), "root": str(self.folder / "root")}
        return measure_on_board(LocalTransport(), artifact, folder, cases(), **{**place, **options})

    @property
    def calls(self) -> list[str]:
        return (self.folder / "bin" / "calls.log").read_text(encoding="utf-8").splitlines()

    @property
    def builds(self) -> int:
        return sum("--onnx=" in call for call in self.calls)


@pytest.mark.parametrize("settings", [ORIN, XAVIER, XAVIER_82, XAVIER_80, {**ORIN, "code": "110000"}])
def test_simulated_run_of_each_release(settings: dict[str, Any], built: tuple[Artifact, Path], tmp_path: Path) -> None:
    board = SimulatedJetson(tmp_path, settings)
    artifact, folder = built
    if artifact.precision == "bfloat16" and settings["code"].startswith("8"):
        with pytest.raises(Unsupported, match="bfloat16-type"):
            board.measure(built)
        return
    result = board.measure(built)
    assert result.evidence.level is Level.LINT, "a simulation measures nothing"
    assert "simulation" in result.evidence.by
    assert len(result.times.compute_ms) == 662, "the warm-up is left out in every release"
    assert result.times.median_ms == pytest.approx(2.0, rel=0.01)
    assert result.board.as_json()["jetpack"] == "L4T 36.4.3"
    assert result.executed == ({} if settings is XAVIER_80 else {artifact.precision: 2})
    reference = open_onnx(folder.parent / "reference.onnx", threads=1)
    wanted = np.stack([reference.run(["y"], case)[0] for case in cases()])
    check_parity({"y": wanted}, result.outputs, artifact.precision)
    assert all("SIMULATION" in text for text in result.logs.values())
    assert list((tmp_path / "root" / "runs").iterdir()) == [], "nothing is left behind but the engine"
    json.dumps(result.as_json(), allow_nan=False)


def test_a_board_without_trtexec_is_refused_before_anything_is_built(
    float16: tuple[Artifact, Path], tmp_path: Path
) -> None:
    artifact, folder = float16
    with pytest.raises(TargetUnavailable, match="no trtexec"):
        measure_on_board(
            LocalTransport(), artifact, folder, cases(), root=str(tmp_path / "root"), candidates=("/nowhere/trtexec",)
        )
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(("settings", "flags"), [(ORIN, "--stronglyTyped"), (XAVIER, "--fp16 --int8")])
def test_single_layers_keep_their_precision_on_the_board(settings: dict[str, Any], flags: str, tmp_path: Path) -> None:
    board = SimulatedJetson(tmp_path / "board", settings)
    result = board.measure(build(tmp_path, "float16", {LAYER: "int8"}))
    assert result.executed == {"int8": 1, "float16": 1}
    (call,) = [call for call in board.calls if "--onnx=" in call]
    assert flags in call


def test_float_layers_of_two_precisions_need_strong_types(tmp_path: Path) -> None:
    built = build(tmp_path, "float16", {LAYER: "float32"})
    assert SimulatedJetson(tmp_path / "orin", ORIN).measure(built).executed == {"float16": 1, "float32": 1}
    xavier = SimulatedJetson(tmp_path / "xavier", XAVIER)
    with pytest.raises(Unsupported, match="mixed-floats"):
        xavier.measure(built)
    assert xavier.builds == 0


def test_a_model_that_breaks_the_boards_rules_is_refused_before_it_is_built(tmp_path: Path) -> None:
    nano = SimulatedJetson(tmp_path / "nano", NANO)
    with pytest.raises(Unsupported, match="qdq-hardware"):
        nano.measure(build(tmp_path, "int8"))
    assert nano.builds == 0


def test_the_engine_is_built_once_and_then_taken_from_the_cache(float16: tuple[Artifact, Path], tmp_path: Path) -> None:
    board = SimulatedJetson(tmp_path, ORIN)
    assert not board.measure(float16).engine.cached
    assert board.measure(float16).engine.cached
    assert board.builds == 1
    board.reconfigure(**{**ORIN, "build": 31})
    assert not board.measure(float16).engine.cached, "another build of TensorRT has engines of its own"
    (tmp_path / "etc" / "nv_tegra_release").write_text("# R36 (release), REVISION: 4.4, GCID: 1\n", encoding="utf-8")
    assert not board.measure(float16).engine.cached, "another JetPack too"
    assert board.builds == 3


def only_engine(folder: Path) -> Path:
    (engine,) = (folder / "root" / "engines").iterdir()
    return engine


@pytest.mark.fault(34, simulated="trtexec")
def test_a_plan_that_somebody_replaced_is_not_loaded(float16: tuple[Artifact, Path], tmp_path: Path) -> None:
    board = SimulatedJetson(tmp_path, ORIN)
    board.measure(float16)
    (only_engine(tmp_path) / "model.plan").write_bytes(b"native code of somebody else")
    loads = len(board.calls)
    with pytest.raises(ForeignPlan, match="not those that were built here"):
        board.measure(float16)
    assert [call for call in board.calls[loads:] if "--loadEngine" in call] == []


@pytest.mark.fault(34, simulated="trtexec")
@pytest.mark.parametrize("change", [{"gpu": "another"}, {"tensorrt": "8.5.2"}, {"jetpack": "L4T 35.1"}, None])
def test_a_plan_of_another_board_is_not_loaded(
    change: dict[str, str] | None, float16: tuple[Artifact, Path], tmp_path: Path
) -> None:
    board = SimulatedJetson(tmp_path, ORIN)
    board.measure(float16)
    note = only_engine(tmp_path) / "engine.json"
    data = json.loads(note.read_text(encoding="utf-8"))
    text = "{" if change is None else json.dumps({**data, "facts": {**data["facts"], **change}})
    note.write_text(text, encoding="utf-8")
    with pytest.raises(ForeignPlan, match="damaged" if change is None else next(iter(change))):
        board.measure(float16)


@pytest.mark.fault(27, simulated="trtexec")
def test_a_broken_engine_that_prints_passed_is_refused(float16: tuple[Artifact, Path], tmp_path: Path) -> None:
    board = SimulatedJetson(tmp_path, ORIN)
    board.measure(float16)
    board.reconfigure(**ORIN, fail="broken")
    with pytest.raises(LogRefused, match="false_pass") as caught:
        board.measure(float16, keep_logs=tmp_path / "logs")
    assert "&&&& PASSED" in caught.value.log
    assert (tmp_path / "logs" / "refused-false_pass.log").read_text(encoding="utf-8") == caught.value.log


def test_a_model_that_the_board_refuses_leaves_no_engine(float16: tuple[Artifact, Path], tmp_path: Path) -> None:
    board = SimulatedJetson(tmp_path, {**ORIN, "fail": "parser"})
    with pytest.raises(LogRefused, match="Scale coefficients"):
        board.measure(float16)
    assert list((tmp_path / "root" / "engines").iterdir()) == []


@pytest.mark.parametrize(("settings", "told"), [(ORIN, "GPU time varies"), (XAVIER_82, "coefficient of variation")])
def test_unsteady_times_are_refused(
    settings: dict[str, Any], told: str, float16: tuple[Artifact, Path], tmp_path: Path
) -> None:
    """Releases before 8.4 do not say so themselves: the exported times do."""
    with pytest.raises(Unstable, match=told):
        SimulatedJetson(tmp_path, {**settings, "noise": 0.3}).measure(float16)


def test_a_gpu_that_is_not_the_boards_is_noticed(float16: tuple[Artifact, Path], tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match=r"8\.6"):
        SimulatedJetson(tmp_path, {**ORIN, "capability": "8.6"}).measure(float16)


def test_dla_placement_is_read_from_the_build(float16: tuple[Artifact, Path], tmp_path: Path) -> None:
    board = SimulatedJetson(tmp_path, ORIN)
    for cached in (False, True):
        result = board.measure(float16, dla=DlaRequest())
        assert result.outputs_by == "trtexec (engines on DLA are run by it)"
        engine = result.engine
        assert engine.cached is cached
        assert engine.placement is not None
        assert [item.layer for item in engine.placement.fallbacks] == ["/up/Resize"]
        assert len(engine.placement.dla) == 1
    assert not board.measure(float16).engine.cached, "the GPU's engine is another one"
    assert sum("--useDLACore=0" in call for call in board.calls) == 1 + 2 * (1 + 1 + 3), "in every run of it"


def test_numbers_of_two_majors_do_not_compare(float16: tuple[Artifact, Path], tmp_path: Path) -> None:
    first = SimulatedJetson(tmp_path / "a", ORIN).measure(float16)
    second = SimulatedJetson(tmp_path / "b", {**ORIN, "code": "110000"}).measure(float16)
    require_comparable(first, first)
    with pytest.raises(MeasurementError, match="TensorRT major"):
        require_comparable(first, second)


@pytest.mark.shared
def test_a_recorded_run_that_names_its_gpu_counts_as_measured(shared: Path, tmp_path: Path) -> None:
    text = (shared / "recorded" / "trtexec" / "trt8001_jetson_nano_fp16_full.log").read_text(encoding="utf-8")
    board = probe_board(
        LocalTransport(), candidates=(SimulatedJetson(tmp_path, XAVIER).trtexec,), sysroot=str(tmp_path)
    )
    real = type(board)(**{**vars(board), "simulated": False})
    assert level_of(real, accept(text)).level is Level.MEASURED
    assert level_of(board, accept(text)).level is Level.LINT
    nameless = (shared / "recorded" / "trtexec" / "trt8502_orin_nano_fp16_summary.log").read_text(encoding="utf-8")
    with pytest.raises(LogRefused, match="does not name the GPU"):
        level_of(real, accept(nameless))


def test_jetson_linux_releases() -> None:
    text = "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64"
    assert jetpack_of(text) == "L4T 35.4.1"
    assert jetpack_of("") == "none"
