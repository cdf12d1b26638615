"""The board-side path end to end, over the local transport, against a SIMULATION of trtexec: no GPU runs here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trtexec_kit import NANO, ORIN, XAVIER, XAVIER_80, XAVIER_82, SimulatedJetson, build, cases

from edgedeploy.artifact import Artifact
from edgedeploy.boards.local import LocalTransport
from edgedeploy.errors import MeasurementError, TargetUnavailable, Unstable, Unsupported
from edgedeploy.targets.parity import check_parity
from edgedeploy.targets.reference import open_onnx
from edgedeploy.targets.tensorrt import (
    Level,
    LogRefused,
    require_comparable,
)
from edgedeploy.targets.tensorrt.board import jetpack_of, probe_board
from edgedeploy.targets.tensorrt.dla import DlaRequest
from edgedeploy.targets.tensorrt.engine import ForeignPlan
from edgedeploy.targets.tensorrt.log import accept
from edgedeploy.targets.tensorrt.measure import level_of

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(scope="module", params=["float32", "float16", "int8"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Path]:
    return build(tmp_path_factory.mktemp("built"), request.param)


@pytest.fixture(scope="module")
def float16(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Path]:
    return build(tmp_path_factory.mktemp("float16"), "float16")


@pytest.mark.parametrize("settings", [ORIN, XAVIER, XAVIER_82, XAVIER_80, {**ORIN, "code": "110000"}])
def test_simulated_run_of_each_release(settings: dict[str, Any], built: tuple[Artifact, Path], tmp_path: Path) -> None:
    board = SimulatedJetson(tmp_path, settings)
    artifact, folder = built
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


@pytest.mark.parametrize("settings", [ORIN, XAVIER, {**ORIN, "code": "110000"}], ids=["10.3", "8.5", "11.0"])
@pytest.mark.parametrize(("base", "other"), [("float16", "float32"), ("int8", "float32"), ("int8", "float16")])
def test_simulated_run_of_a_plan(settings: dict[str, Any], base: str, other: str, tmp_path: Path) -> None:
    """By the file's types where the release keeps them, by flags before: the engine has one layer of each."""
    board = SimulatedJetson(tmp_path / "board", settings)
    result = board.measure(build(tmp_path, base, {"/y/Conv": other}))
    assert result.executed == {base: 1, other: 1}


def test_a_plan_that_the_release_cannot_keep_is_refused_before_it_is_built(tmp_path: Path) -> None:
    board = SimulatedJetson(tmp_path / "board", XAVIER_82)
    with pytest.raises(Unsupported, match=r"/y/Conv.*--layerPrecisions came with 8\.4"):
        board.measure(build(tmp_path, "float16", {"/y/Conv": "float32"}))
    assert board.builds == 0


def test_this_machine_is_no_jetson(tmp_path: Path) -> None:
    with pytest.raises(TargetUnavailable):
        probe_board(LocalTransport())


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
        engine = board.measure(float16, dla=DlaRequest()).engine
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
