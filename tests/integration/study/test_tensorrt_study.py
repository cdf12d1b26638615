"""A search that measures the target ``tensorrt`` over a real SSH connection, on a SIMULATION of TensorRT's Python API.

The CPU answers for the GPU, so its times are no GPU's. No GPU runs here."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import simulated_tensorrt
from board_kit import need_sshd
from made_up_study import measure_table
from small_onnx import convolutional

import edgedeploy
from edgedeploy.errors import TargetUnavailable
from edgedeploy.study.store import Store

pytestmark = [pytest.mark.beside, pytest.mark.slow]

STUDY = """\
[study]
name = "jetson"
targets = [{targets}]

[task]
kind = "onnx"
model = "{model}"

[task.options]
calibration = "calibration.npz"
selection = "selection.npz"
confirmation = "confirmation.npz"

[[boards]]
name = "simulated-orin"
kind = "emulated"
server = "sshd"
python = "{python}"

[space]
precision = ["float32", "float16", "int8"]

[[objectives]]
metric = "reference_rel_l2"

[[objectives]]
metric = "latency_ratio"

[budget]
trials = 6

""" + measure_table(cold_starts=2)


@pytest.fixture
def compiler() -> str:
    need_sshd()
    found = shutil.which("cc")
    if found is None:
        pytest.skip("no C compiler on this machine: apt-get install gcc")
    return found


def study(folder: Path, python: str, *targets: str) -> Path:
    for seed, split in enumerate(("calibration", "selection", "confirmation")):
        rows = np.random.default_rng(seed).random((6, 1, 3, 16, 16)).astype(np.float32)
        np.savez(folder / f"{split}.npz", image=rows[:, 0])
    path = folder / "study.toml"
    model = convolutional(folder / "model.onnx")
    named = ", ".join(f'"{name}"' for name in targets)
    path.write_text(STUDY.format(targets=named, model=model, python=python), encoding="utf-8")
    return path


def test_a_search_measures_it_beside_another_target(compiler: str, tmp_path: Path) -> None:
    place = tmp_path / "jetson"
    python = simulated_tensorrt.install(place, "10.3.0", compiler)
    result = edgedeploy.load_study(study(tmp_path, python, "onnxruntime", "tensorrt")).run(
        edgedeploy.RunOptions(out=tmp_path / "out")
    )
    store = Store(tmp_path / "out")
    measured = {(item.variant.target, item.variant.precision): item for item in store.measurements()}
    assert set(measured) == {
        (target, name) for target in ("onnxruntime", "tensorrt") for name in ("float32", "float16", "int8")
    } - {("onnxruntime", "float16")}
    for (target, precision), item in measured.items():
        assert item.provenance == "emulated"
        assert set(item.candidate.executed) == {precision}
        assert item.metrics["latency_p50_ns"] > 0
        if target == "tensorrt":
            assert item.candidate.device == simulated_tensorrt.GPU
            assert item.candidate.runtime_version == "10.3.0"
            assert len(item.candidate.cold_starts_ns) == 2
            assert "GPU's memory" in item.missing["peak_memory_bytes"]
            assert [row["operator"] for row in item.layers["candidate"]["layers"]] == ["Convolution"] * 3
            assert dict(item.artifact.settings)["releases"] == "10.3.0", "built for the board's own release"
    assert len(simulated_tensorrt.builds(place)) == 3, "one engine for each artifact, whatever ran it how often"
    assert result.front.members
    assert "tensorrt" in result.report().read_text(encoding="utf-8")


def test_what_the_board_cannot_build_is_a_failure_with_its_words(compiler: str, tmp_path: Path) -> None:
    python = simulated_tensorrt.install(tmp_path / "jetson", "10.3.0", compiler, fail="builder")
    result = edgedeploy.load_study(study(tmp_path, python, "onnxruntime", "tensorrt")).run(
        edgedeploy.RunOptions(out=tmp_path / "out", confirm=False)
    )
    store = Store(tmp_path / "out")
    assert {item.variant.target for item in store.measurements()} == {"onnxruntime"}
    assert store.failures() == (), "no artifact of TensorRT has run there, so none is shown to be at fault"
    failures = result.front.passing
    assert {item.variant.target for item in failures} == {"tensorrt"}
    assert all("Could not find any implementation for node /block1/conv" in item.message for item in failures)
    assert not list((tmp_path / "jetson" / "cache" / "engines").glob("*.plan"))


def test_boards_that_cannot_run_it_are_refused_before_anything_is_built(compiler: str, tmp_path: Path) -> None:
    old = simulated_tensorrt.install(tmp_path / "jetson", "8.2.1", compiler)
    with pytest.raises(TargetUnavailable, match=r"TensorRT 8\.2\.1 names no tensors.*measure_on_board"):
        edgedeploy.load_study(study(tmp_path, old, "tensorrt")).run(edgedeploy.RunOptions(out=tmp_path / "out"))
    with pytest.raises(
        TargetUnavailable, match=r"no runtime for tensorrt .*whose system Python has the package tensorrt"
    ):
        edgedeploy.load_study(study(tmp_path, sys.executable, "tensorrt")).run(
            edgedeploy.RunOptions(out=tmp_path / "out")
        )
    assert not (tmp_path / "out" / "artifacts").exists()
