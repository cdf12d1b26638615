"""A study that searches batches and instances of a server, for the most users within a deadline."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up_study import ONNX_TASK, measure_table, write_cases
from small_onnx import convolutional

import edgedeploy
from edgedeploy.evidence.serving import predicted_users
from edgedeploy.study.store import Store

pytestmark = pytest.mark.beside

STUDY = f"""\
[study]
name = "served"
targets = ["onnxruntime"]

{ONNX_TASK}
[[boards]]
name = "here"
kind = "local"
root = "board"

[space]
max_batch = [1, 2]
instances = [1, 2]

[[objectives]]
metric = "server_missed_percent"

[budget]
trials = 4

{measure_table(8)}scenarios = ["server"]

[measure.server]
deadline = "200 ms"
percentile = 90
queries = 64
every = "0.5 s"
most = 40
samples = 8
"""


def test_batches_and_instances_are_values_of_the_search(tmp_path: Path) -> None:
    convolutional(tmp_path / "model.onnx", named=False)
    write_cases(tmp_path, 1, 3, 16, 16)
    path = tmp_path / "study.toml"
    path.write_text(STUDY.replace('"board"', f'"{tmp_path / "board"}"'))
    result = edgedeploy.load_study(path).run(edgedeploy.RunOptions(out=tmp_path / "out", confirm=False))
    found = {(row.variant.max_batch, row.variant.instances): row for row in result.front.rows}
    assert set(found) == {(1, 1), (1, 2), (2, 1), (2, 2)}
    assert found[2, 2].variant.label.endswith("2inst batch2")
    store = Store(tmp_path / "out")
    for (batch, instances), row in found.items():
        measured = store.measurement(row.digest)
        assert measured is not None
        raw = measured.scenarios["server"]
        assert (raw["rules"]["max_batch"], raw["rules"]["instances"]) == (batch, instances)
        assert predicted_users(raw).most <= 40
        assert measured.provenance == "measured"
    # Batches are a property of the file, instances are not.
    names = {served: row.variant.artifact_name for served, row in found.items()}
    assert names[1, 1] == names[1, 2] != names[2, 1] == names[2, 2]
    report = result.report().read_text(encoding="utf-8")
    assert "Many users: latency against load" in report
    assert "predicted from service times" in report
