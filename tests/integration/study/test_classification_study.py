"""A study of `kind = "classification"`: a metric of the split is its objective, its limit and what the pick is judged by."""

from __future__ import annotations

import json
from pathlib import Path

import picture_kit
import pytest
from board_kit import STUDY_LIMIT_S

from edgedeploy import Measurement, RunOptions, load_study

STUDY = """
[study]
name = "stripes"
targets = ["onnxruntime"]

[task]
kind = "classification"

[task.options]
root = "data"
table = "labels.csv"
positive = "upright"
resolutions = [16]
selection_share = 0.4 # eight patients of the rarer class: fewer than five bound nothing
base_channels = 4
baseline = { epochs = 12, batch_size = 8, learning_rate = 1e-2, warmup_epochs = 1 }

[board]
name = "here"
kind = "local"

[space]
precision = ["float32", "int8"]

[[objectives]]
metric = "auroc"

[[objectives]]
metric = "latency_ratio"

[[constraints]]
metric = "sensitivity"
at_least = 0.1

[pick]
non_inferiority_margin = 0.2

[budget]
trials = 2

[measure]
queries = 64
warmup = 2
cold_starts = 0
max_drift = 50.0
max_spread = 50.0
max_background_cores = 64.0
"""


@pytest.mark.beside
@pytest.mark.timeout(STUDY_LIMIT_S)
def test_a_metric_of_the_split_is_searched_for_limited_and_picked_by(tmp_path: Path) -> None:
    picture_kit.table_of_patients(tmp_path / "data", patients=60, images=2)
    (tmp_path / "study.toml").write_text(STUDY)
    result = load_study(tmp_path / "study.toml").run(RunOptions(out=tmp_path / "out", confirm=False))
    front = result.front
    assert len(front.rows) == 2
    (other,) = (found for found in front.decision.judged.values() if found.word != "baseline")
    assert (other.endpoints[0].comparison.metric, other.endpoints[0].margin) == ("auroc", 0.2)
    assert other.endpoints[0].comparison.method == "paired draws"
    assert front.decision.groups, "patients"
    assert [goal.metric for goal in front.constraints] == ["sensitivity"]
    for row in front.rows:
        assert row.estimates["auroc"].low is not None
        assert row.estimates["auroc"].value > 0.6
    kept = [json.loads(path.read_text()) for path in sorted((tmp_path / "out" / "measurements").glob("*.json"))]
    first, second = (Measurement.from_json(data) for data in kept)
    assert first.draws["auroc"].drawn == second.draws["auroc"].drawn
    assert len(set(first.groups.values())) == len(first.cases) / 2
    assert "patient" not in json.dumps(kept[0]["groups"])
