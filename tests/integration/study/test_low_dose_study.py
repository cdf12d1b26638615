"""A study of `kind = "low-dose-ct"` on pairs of files: the residual network keeps its PSNR in int8."""

from __future__ import annotations

from pathlib import Path

import ct_kit
import pytest
from board_kit import STUDY_LIMIT_S
from made_up_study import measure_table

from edgedeploy import RunOptions, load_study
from edgedeploy.tasks.load import load_task

STUDY = """
[study]
name = "low-dose-ct"
targets = ["onnxruntime"]

[task]
kind = "low-dose-ct"

[task.options]
root = "data"
groups = "groups.csv"
resolutions = [32]
base_channels = 8
depth = 1
blocks = [1]
baseline = { epochs = 60, learning_rate = 4e-3 }
recovery = { epochs = 4, learning_rate = 2e-3 }

[board]
name = "here"
kind = "local"

[space]
width = [1.0, 0.5]
precision = ["float32", "int8"]
training = ["ptq", "qat"]

[[only]]
parameter = "training"
when = { precision = "int8", width = 1.0 }

[[objectives]]
metric = "psnr_db"

[[objectives]]
metric = "latency_ratio"

[budget]
trials = 5
recovered_baseline = false

""" + measure_table(64, warmup=2)


@pytest.mark.beside
@pytest.mark.timeout(STUDY_LIMIT_S)
def test_a_residual_network_keeps_its_psnr(tmp_path: Path) -> None:
    ct_kit.hu_pairs(tmp_path / "data", 40)
    (tmp_path / "study.toml").write_text(STUDY)
    study = load_study(tmp_path / "study.toml")
    result = study.run(RunOptions(out=tmp_path / "out", confirm=False))
    rows = result.front.rows
    assert len(rows) == 5
    task = load_task(study.spec.task.model_dump(), tmp_path)
    cases = task.cases("selection")
    noisy = [task.evaluate({"y": task.inputs(case, resolution=32)["image"]}, case)["psnr_db"] for case in cases]
    (baseline,) = (row for row in rows if row.baseline)
    whole = {row.variant.training: row for row in rows if row.variant.precision == "int8" and row.variant.width == 1.0}
    assert set(whole) == {"", "qat"}
    psnr_db = baseline.estimates["psnr_db"].value
    assert psnr_db > sum(value or 0.0 for value in noisy) / len(noisy) + 0.5
    for row in whole.values():
        assert row.estimates["psnr_db"].value > psnr_db - 0.3
        assert row.executed["int8"] >= 9, "all but what ONNX Runtime has no int8 kernel for: a transposed convolution"
    assert {row.variant.width for row in rows} == {1.0, 0.5}
