"""From a study's folder to its front and its report: every file of the evidence is read once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_up
import made_up_report
import pytest
from typer.testing import CliRunner

from edgedeploy.cli.app import app
from edgedeploy.report.make import make_report
from edgedeploy.study import store as module
from edgedeploy.study.front import read_front
from edgedeploy.study.store import Store

STUDY = """\
[study]
name = "read once"
targets = ["onnxruntime", "openvino"]
[task]
kind = "python"
object = "nowhere.py:make_task"
[[boards]]
name = "here"
kind = "local"
[space]
width = [1.0, 0.5]
[[objectives]]
metric = "dice_mean"
[[objectives]]
metric = "latency_ratio"
[budget]
trials = 8
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = Store(tmp_path / "study")
    store.create(
        STUDY,
        {
            "task_metrics": {name: vars(info) for name, info in made_up.TASK_METRICS.items()},
            "baselines": [variant.as_json() for variant in made_up_report.BASELINES],
            "spec_folder": str(tmp_path),
            "versions": {"edgedeploy": "0.1.0"},
        },
    )
    for item in made_up_report.measurements():
        store.keep(item)
    store.keep(made_up.measurement(made_up.variant(width=0.5), cause="the baseline became slower"))
    return store.root


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each JSON file of a study's folder was read."""
    real, seen = module.read_record, Counter[str]()

    def counted(path: Path, make: Callable[[dict[str, Any]], Any], remedy: str) -> Any:
        seen[f"{path.parent.name}/{path.name}"] += 1
        return real(path, make, remedy)

    monkeypatch.setattr(module, "read_record", counted)
    return seen


def evidence(folder: Path) -> set[str]:
    paths = [path for name in ("measurements", "invalid") for path in (folder / name).glob("*.json")]
    assert len(paths) > 3
    return {f"{path.parent.name}/{path.name}" for path in paths}


def test_a_report_reads_every_measurement_once(folder: Path, read: Counter[str]) -> None:
    page = make_report(folder).read_text(encoding="utf-8")
    assert evidence(folder) <= set(read)
    assert set(read.values()) == {1}
    assert "No pictures of cases" in page, "the pick's worst cases were looked for"


def test_a_front_reads_every_measurement_once(folder: Path, read: Counter[str]) -> None:
    done = CliRunner().invoke(app, ["front", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    assert evidence(folder) <= set(read)
    assert set(read.values()) == {1}


def test_the_reports_front_is_that_of_the_folder(folder: Path) -> None:
    front = read_front(folder)
    page = make_report(folder).read_text(encoding="utf-8")
    assert front.pick is not None
    row = front.row(front.pick.digest)
    assert row is not None
    assert row.variant.label in page
