"""Studies of a promptable transformer and of two towers, in small: from training by a teacher to a front."""

from __future__ import annotations

from pathlib import Path

import pytest
from board_kit import STUDY_LIMIT_S

from edgedeploy import RunOptions, load_study
from edgedeploy.study.store import Store

pytestmark = pytest.mark.beside

HEAD = """
[study]
name = "small"
targets = ["onnxruntime"]

[board]
name = "here"
kind = "local"

[[objectives]]
metric = "latency_ratio"

[budget]
trials = 2
recovered_baseline = false

[measure]
queries = 16
warmup = 1
cold_starts = 0
max_drift = 50.0
max_spread = 50.0
max_background_cores = 64.0
"""
STEP = "epochs = 1, batch_size = 4"
PROMPTABLE = f"""
[task]
kind = "promptable"

[task.options]
resolutions = [32]
networks = ["vit-1", "cnn-4"]
teacher = "cnn-4"
dim = 32
heads = 2
patch = 8
decoder_dim = 16
image_size = 48
train_cases = 4
calibration_cases = 1
selection_cases = 1
confirmation_cases = 1
taught = {{ {STEP} }}
baseline = {{ {STEP}, early_epochs = 0 }}
recovery = {{ {STEP} }}

[space]
network = ["vit-1", "cnn-4"]

[[objectives]]
metric = "dice"
"""
TOWERS = f"""
[task]
kind = "multi-modal"

[task.options]
tokens = 40
dim = 16
resolutions = [32]
image_size = 48
train_cases = 4
calibration_cases = 2
selection_cases = 5
confirmation_cases = 1
baseline = {{ {STEP} }}

[space]
precision = ["float32", "int8-dynamic"]
plan = ["image-int8"]

[plans.image-int8]
"node_[Cc]onv*" = "int8"

[[objectives]]
metric = "recall_at_1"
"""


@pytest.mark.timeout(STUDY_LIMIT_S)
def test_a_student_of_the_transformer_is_measured_beside_it(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(PROMPTABLE + HEAD)
    told: list[str] = []
    options = RunOptions(out=tmp_path / "out", confirm=False)
    result = load_study(tmp_path / "study.toml").run(options, observer=lambda event: told.append(event.text))
    measured = {dict(m.variant.arch)["network"]: m for m in Store(tmp_path / "out").measurements()}
    assert set(measured) == {"vit-1", "cnn-4"}
    assert result.front.rows
    assert measured["cnn-4"].candidate.executed.get("float32", 0) != measured["vit-1"].candidate.executed.get(
        "float32", 0
    )
    notes = [line for line in told if line == "baseline has a teacher, which is trained first: 1 epochs"]
    assert len(notes) == 1, told
    assert not list((tmp_path / "out").rglob("*teacher-*"))


@pytest.mark.timeout(STUDY_LIMIT_S)
def test_each_tower_runs_in_its_own_precision(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(TOWERS + HEAD)
    load_study(tmp_path / "study.toml").run(RunOptions(out=tmp_path / "out", confirm=False))
    executed = [m.candidate.executed for m in Store(tmp_path / "out").measurements()]
    both = [found for found in executed if found.get("int8") == 5]
    assert [found for found in both if found.get("int8-dynamic") == 7]
