"""Where layers ran and what they took, from the real runtimes: in their own words, by the reference's names, in a study."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from board_kit import MACHINE_WAIT_S, make_job, make_payload
from fault_kit import local_board
from made_up_study import ONNX_TASK, measure_table, write_cases
from small_onnx import convolutional, request, transformer_block
from typer.testing import CliRunner

import edgedeploy
from edgedeploy.cli.app import app
from edgedeploy.evidence.layers import beside, profile_of
from edgedeploy.records.job import Job, MeasurePlan
from edgedeploy.reference.layers import with_sources
from edgedeploy.runtime.sessions.open import Profiled, open_session
from edgedeploy.study.store import Store
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
from edgedeploy.targets.openvino.target import OpenVinoTarget

pytestmark = pytest.mark.beside

CONVOLUTIONS = ["/block1/conv", "/block2/conv", "/head/conv"]
each = pytest.mark.parametrize(
    ("make", "precision"),
    [(make, name) for make in (OnnxRuntimeTarget, OpenVinoTarget) for name in ("float32", "int8")],
)


def profile(make: Any, precision: str, model: Path, folder: Path, quantizer: str = "") -> list[dict[str, Any]]:
    """Layers of an artifact of ``model`` as its runtime tells them, with their sources."""
    folder.mkdir()
    artifact = make().build(dataclasses.replace(request(model, precision), quantizer=quantizer), folder)
    session = open_session(artifact.target, folder, artifact.entry, dict(artifact.settings), 1)
    assert isinstance(session, Profiled)
    rng = np.random.default_rng(0)
    spec = artifact.inputs[0]
    feeds = [{spec.name: rng.random(spec.shape).astype(np.float32)} for _ in range(5)]
    layers: list[dict[str, Any]] = with_sources({"layers": session.profile(feeds)}, model)["layers"]
    return layers


@each
def test_every_convolution_is_told_by_the_name_it_has_in_the_reference(
    make: Any, precision: str, tmp_path: Path
) -> None:
    layers = profile(make, precision, convolutional(tmp_path / "m.onnx", side=128), tmp_path / "a")
    found = [layer for layer in layers if "Conv" in layer["operator"]]
    assert [layer["source"] for layer in found] == CONVOLUTIONS
    assert all(layer["ns"] > 0 for layer in found)
    assert {layer["device"] for layer in layers} == {"CPUExecutionProvider" if "Onnx" in make.__name__ else "CPU"}


@pytest.mark.parametrize("tool", tuple(OpenVinoTarget.quantizers)[1:])
def test_layers_of_another_quantizer_keep_their_names(tool: str, tmp_path: Path) -> None:
    model = convolutional(tmp_path / "m.onnx", side=128)
    layers = profile(OpenVinoTarget, "int8", model, tmp_path / "a", tool)
    assert [layer["source"] for layer in layers if "Conv" in layer["operator"]] == CONVOLUTIONS


@pytest.mark.parametrize("make", [OnnxRuntimeTarget, OpenVinoTarget])
def test_matrix_products_are_told_too(make: Any, tmp_path: Path) -> None:
    layers = profile(make, "float32", transformer_block(tmp_path / "m.onnx"), tmp_path / "a")
    assert {"/mlp/fc1", "/mlp/fc2"} <= {layer["source"] for layer in layers}


def test_a_run_brings_both_sides_and_times_them_apart_from_it(tmp_path: Path) -> None:
    plan = MeasurePlan(queries=16, warmup=1, cold_starts=0, collect_outputs=False, profile_runs=3)
    ours, theirs = (make_payload(tmp_path / name, target=name) for name in ("openvino", "onnxruntime"))
    with local_board(tmp_path / "root", wait_s=MACHINE_WAIT_S).session() as session:
        run = session.measure(Job(ours, theirs, plan), tmp_path)
        without = session.measure(make_job(tmp_path / "job"), tmp_path)
    assert [run.layers[side]["runs"] for side in ("candidate", "baseline")] == [3, 3]
    assert {layer["device"] for layer in run.layers["candidate"]["layers"]} == {"CPU"}
    assert {layer["device"] for layer in run.layers["baseline"]["layers"]} == {"CPUExecutionProvider"}
    assert sum(len(block) for block in run.candidate.blocks_ns) == 16
    assert without.layers == {}


STUDY = (
    """\
[study]
name = "layers"
targets = ["onnxruntime", "openvino"]

"""
    + ONNX_TASK
    + """\

[[boards]]
name = "here"
kind = "local"
root = "{root}"

[space]
precision = ["float32"]

[[objectives]]
metric = "latency_ratio"

[budget]
trials = 2

"""
    + measure_table()
)


def test_a_study_shows_layers_beside_the_baselines(tmp_path: Path) -> None:
    convolutional(tmp_path / "model.onnx")
    write_cases(tmp_path, 1, 3, 16, 16)
    (tmp_path / "study.toml").write_text(STUDY.format(root=tmp_path / "root"))
    out = tmp_path / "out"
    result = edgedeploy.load_study(tmp_path / "study.toml").run(edgedeploy.RunOptions(out=out, confirm=False))
    item = next(item for item in Store(out).measurements() if item.variant.target == "openvino")
    rows = {row.layer: row for row in beside(profile_of(item, "candidate"), profile_of(item, "baseline"))}
    for name in CONVOLUTIONS:
        assert rows[name].ours_ns is not None and rows[name].theirs_ns is not None
        assert rows[name].place.endswith(" on CPU")
    page = result.report().read_text(encoding="utf-8")
    assert "Where it ran, layer by layer" in page and "/block2/conv" in page and "1 partition" in page

    told = CliRunner().invoke(app, ["layers", str(out), "--variant", item.digest[:8], "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.output)
    assert found["candidate"]["placement"] == {"CPU": len(found["candidate"]["layers"])}
    assert found["baseline"]["partitions"] == 1
    shown = CliRunner().invoke(app, ["layers", str(out), "--variant", item.digest])
    assert "/head/conv" in shown.output and "baseline: CPUExecutionProvider" in shown.output
    other = CliRunner().invoke(app, ["layers", str(out), "--variant", "xyz"])
    assert "0 measured variants" in str(other.exception)

    old = dataclasses.replace(item, layers={})
    assert profile_of(old, "candidate").placement_text() == (
        "not available, because no layers were profiled in this run"
    )
