"""A new metric costs the files that docs/extend/metric.md promises: its code is added to a copy of the package, and used."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Final

import pytest
from extending_kit import REPO, Tree, promised

PAGE: Final = REPO / "docs" / "extend" / "metric.md"
STUDY: Final = REPO / "tests" / "data" / "studies" / "eef15fe" / "study"

OF_CASES: Final = ("test_split.py", "test_auroc.py")
"""What tests of the room of evidence know no metric of boards: those of a task's cases, by thousands of bootstrap draws."""

RECOMPUTE: Final = """
import dataclasses, json, sys
from pathlib import Path

import edgedeploy
from edgedeploy.evidence.metrics import board_metrics
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.runtime.wire.serde import to_json
from edgedeploy.spec.study import parse_spec

root, folder = Path(sys.argv[1]), Path(sys.argv[2])
assert Path(edgedeploy.__file__).is_relative_to(root), edgedeploy.__file__
spec, source = parse_spec((folder / "study.toml").read_text(), folder / "study.toml")
spec.check(
    source,
    architecture={"resolution": (32,), "image_size": (32,)},
    task_metrics={"dice_mean": MetricInfo("maximize", "1", "Dice")},
    known_targets=dict.fromkeys(spec.study.targets, ("float32", "int8")),
)
for path in (folder / "measurements").glob("*.json"):
    data = json.loads(path.read_text())
    found = Measurement.from_json(data)
    side = found.candidate
    side = dataclasses.replace(side, blocks_ns=side.blocks_ns * 4, cpu_ns=side.cpu_ns * 4)
    metrics, missing = board_metrics(side, found.baseline, found.artifact)
    data["candidate"] = to_json(side)
    data["metrics"] |= metrics
    data["missing"] |= missing
    path.write_text(json.dumps(data))
"""
"""The study file is checked with the metric in it; the stored series, made four times as long, are read once more."""


def section(title: str) -> str:
    text = PAGE.read_text(encoding="utf-8")
    (found,) = re.findall(rf"^## {title}.*?(?=^## )", text, re.DOTALL | re.MULTILINE)
    return str(found)


@pytest.mark.parametrize(
    ("title", "metric", "limit", "heading", "files"),
    [
        (
            "From a series that exists",
            "latency_p95_ns",
            'at_most = "10 s"',
            "Latency p95",
            promised("metric of boards"),
        ),
        ("From a new series", "int8_layers_percent", 'at_least = "0 %"', "Layers in int8", 2),
    ],
)
def test_a_metric_is_added_by_as_many_files_as_the_page_says(
    title: str, metric: str, limit: str, heading: str, files: int, tmp_path: Path
) -> None:
    tree = Tree(tmp_path)
    assert tree.changed() == []
    tree.follow(section(title))
    assert len(tree.changed()) == files
    rooms = (
        "tests/unit/records/test_metric_table.py",
        "tests/unit/records/test_metrics_of_run.py",
        "tests/unit/evidence",
    )
    tree.passes(*rooms, *(f"--ignore=tests/unit/evidence/{name}" for name in OF_CASES))

    study = shutil.copytree(STUDY, tmp_path / "study")
    text = (study / "study.toml").read_text(encoding="utf-8")
    constraint = f'[[constraints]]\nmetric = "{metric}"\n{limit}\n\n[budget]'
    (study / "study.toml").write_text(text.replace("[budget]", constraint).replace("queries = 64", "queries = 662"))

    def python(*arguments: str | Path) -> str:
        done = tree.run(*map(str, arguments))
        assert done.returncode == 0, done.stderr
        return done.stdout

    python("-c", RECOMPUTE, tmp_path, study)
    front = json.loads(python("-m", "edgedeploy", "front", study, "--json"))
    assert front["rows"]
    for row in front["rows"]:
        assert metric in row["estimates"]
        assert row["shortfalls"] == []
    assert metric in [item["metric"] for item in front["constraints"]]
    python("-m", "edgedeploy", "report", study)
    assert f">{heading}<" in (study / "report.html").read_text(encoding="utf-8")


def test_both_pages_promise_the_same() -> None:
    counts = re.findall(r"\| \*\*(\d)\*\*:", PAGE.read_text(encoding="utf-8"))
    assert counts == [str(promised("metric of boards")), "2"]


def test_a_row_whose_series_nobody_reads_is_refused_at_once(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    row, *_ = re.findall(r"```python\n.*?\n(.*?)```", section("From a new series"), re.DOTALL)
    tree.change(
        "records/metric_table.py",
        "METRICS: Final[Sequence[Metric]] = (\n",
        f"METRICS: Final[Sequence[Metric]] = (\n{row}",
    )
    done = tree.run("-c", "import edgedeploy.evidence.metrics")
    assert done.returncode != 0
    assert "metrics name series that nobody reads: int8 layers" in done.stderr
