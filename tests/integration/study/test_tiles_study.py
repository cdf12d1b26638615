"""A study whose space cuts volumes: each variant answers whole volumes, on ONNX Runtime and OpenVINO, as its reference."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
import warm_cli
from board_kit import STUDY_LIMIT_S
from onnx import TensorProto, helper, numpy_helper

from edgedeploy.runtime.pipeline.tiles import Tiling

SIDES = (16, 24, 16)
STUDY = """
[study]
name = "tiles"
seed = 1
targets = ["onnxruntime", "openvino"]

[task]
kind = "onnx"
model = "model.onnx"

[task.options]
calibration = "calibration.npz"
selection = "selection.npz"
confirmation = "confirmation.npz"

[[boards]]
name = "here"
kind = "local"

[space]
tile = [0, "12x16x16", "200 KiB"]
threads = [1]

[[objectives]]
metric = "reference_rel_l2"
min_effect = 0.001

[[objectives]]
metric = "peak_memory_bytes"
min_effect = "1 MB"

[measure]
queries = 8
warmup = 1
cold_starts = 0
max_drift = 50.0
max_spread = 50.0
max_background_cores = 64.0

[budget]
trials = 6
wall_clock = "10 min"
"""


def _files(folder: Path) -> None:
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32) / 3, name)
        for name, shape in {"w": (2, 1, 3, 3, 3), "v": (2, 2, 3, 3, 3)}.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "first", pads=[1] * 6),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "v"], ["y"], "second", pads=[2] * 6, dilations=[2] * 3),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, c, *SIDES]) for n, c in (("x", 1), ("y", 2))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), folder / "model.onnx"
    )
    for split, count in (("calibration", 2), ("selection", 3), ("confirmation", 2)):
        np.savez(folder / f"{split}.npz", x=rng.standard_normal((count, 1, 1, *SIDES)).astype(np.float32))
    (folder / "study.toml").write_text(STUDY, encoding="utf-8")


@pytest.mark.beside
@pytest.mark.timeout(STUDY_LIMIT_S)
def test_variants_that_cut_volumes_answer_whole_ones(tmp_path: Path) -> None:
    _files(tmp_path)
    command = [*warm_cli.command(), "search", "study.toml", "--out", "out", "--no-confirm"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    records = [json.loads(path.read_bytes()) for path in (tmp_path / "out" / "measurements").glob("*.json")]
    cut = [record for record in records if record["variant"].get("tile")]
    assert {(r["variant"]["target"], r["variant"]["tile"]) for r in cut} == {
        (target, tile) for target in ("onnxruntime", "openvino") for tile in ("12x16x16", "200 KiB")
    }
    for record in cut:
        distances = [case["reference_max_abs"] for case in record["cases"].values()]
        assert max(distances) == 0 if record["variant"]["target"] == "onnxruntime" else max(distances) < 1e-5
    plans = [
        Tiling.from_text(path.read_text("utf-8")) for path in (tmp_path / "out" / "artifacts").glob("*/tiles.json")
    ]
    assert len(plans) == 4 and all(plan.volume == SIDES and plan.count > 1 for plan in plans)
