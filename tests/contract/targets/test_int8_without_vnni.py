"""int8 of the small networks on a processor without VNNI: calibrated and trained, as files with 7-bit weights.

The files are built here and run on the emulated board; what is told there is what its kernels compute, no time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import NETWORKS, SPECS, images, network, quantized
from x86_kit import need_avx2_emulation

from edgedeploy.boards.open import open_board
from edgedeploy.interfaces.board import BoardSession
from edgedeploy.interfaces.target import BuildRequest, Target
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import Artifact
from edgedeploy.records.job import Job, MeasurePlan, Payload
from edgedeploy.reference import quantized as qdq
from edgedeploy.reference.export import Reference, export_reference, open_onnx
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
from edgedeploy.targets.openvino.quantize import IN_FLOAT
from edgedeploy.targets.openvino.target import OpenVinoTarget

pytestmark = pytest.mark.timeout(900)

PLAN = MeasurePlan(queries=0, warmup=0, cold_starts=0, time_limit_s=300.0)
CASES = 6

each_network = pytest.mark.parametrize("name", NETWORKS)
each_target = pytest.mark.parametrize("make", [OnnxRuntimeTarget, OpenVinoTarget])

Run = Callable[[Artifact, Path], Array]


@pytest.fixture(scope="module")
def session() -> Iterator[BoardSession]:
    need_avx2_emulation()
    board = open_board({"name": "cart", "kind": "emulated", "machine": "x86-avx2"})
    with board.session() as held:
        yield held


@pytest.fixture
def run(session: BoardSession, tmp_path: Path) -> Run:
    """The outputs of six images by the board's runtime, which ran int8."""

    def answer(artifact: Artifact, folder: Path) -> Array:
        inputs, collected = tmp_path / "inputs.npz", tmp_path / "collected"
        np.savez(inputs, image=images(CASES, seed=9).numpy()[:, None])
        collected.mkdir()
        raw = session.measure(Job(Payload(artifact, folder, inputs, 1), None, PLAN), collected)
        assert raw.candidate.executed["int8"] >= 2
        assert raw.outputs is not None
        with np.load(raw.outputs) as data:
            found: Array = data["out0"]
            return found[:, 0]

    return answer


def request(reference: Reference, **changes: Any) -> BuildRequest:
    def calibration() -> Iterator[Mapping[str, Array]]:
        return ({"image": row[None]} for row in images(32, seed=1).numpy())

    asked = BuildRequest(reference.path, reference.inputs, reference.outputs, "int8", calibration)
    return replace(asked, quantized=reference.quantized, **changes)


def in_float(artifact: Artifact, folder: Path) -> Array:
    """What the file says, computed in float: no sum saturates."""
    rows = images(CASES, seed=9).numpy()[:, None]
    if artifact.target == "onnxruntime":
        session = open_onnx(folder / artifact.entry, threads=1, as_written=True)
        return np.concatenate([session.run(["out0"], {"image": row})[0] for row in rows])
    import openvino as ov

    settings = {**dict(artifact.settings), **IN_FLOAT}
    compiled = ov.Core().compile_model(str(folder / artifact.entry), "CPU", settings)
    return np.concatenate([next(iter(compiled({"image": row}).values())).copy() for row in rows])


@each_network
@each_target
def test_trained_int8_agrees_with_training(make: type[Target], name: str, run: Run, tmp_path: Path) -> None:
    """As :mod:`test_qdq` holds it on this host: within four steps of the last scale, within one on average."""
    model = quantized(name, weight_bits=7)
    samples = [{"image": images(1, seed=seed).numpy()} for seed in range(2)]
    reference = qdq.export_quantized(model, SPECS, tmp_path / "reference.onnx", samples=samples)
    artifact = make().build(request(reference), tmp_path / "built")
    with torch.no_grad():
        wanted = model(images(CASES, seed=9)).numpy()
    found = run(artifact, tmp_path / "built")
    step = np.abs(wanted).max() / 127
    assert np.abs(found - wanted).max() <= 4 * step
    assert np.abs(found - wanted).mean() <= step


@each_network
@each_target
def test_calibrated_int8_computes_what_its_file_says(make: type[Target], name: str, run: Run, tmp_path: Path) -> None:
    reference = export_reference(network(name), SPECS, tmp_path / "reference.onnx")
    artifact = make().build(request(reference, weight_bits=7), tmp_path / "built")
    wanted, found = in_float(artifact, tmp_path / "built"), run(artifact, tmp_path / "built")
    assert np.linalg.norm(found - wanted) <= 0.02 * np.linalg.norm(wanted)
