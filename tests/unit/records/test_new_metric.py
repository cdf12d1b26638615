"""A new metric costs the files that docs/extend/metric.md promises: its code is added to a copy of the package, and used."""

from __future__ import annotations

import filecmp
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

REPO: Final = Path(__file__).resolve().parents[3]
PAGE: Final = REPO / "docs" / "extend" / "metric.md"
STUDY: Final = REPO / "tests" / "data" / "studies" / "eef15fe" / "study"

_BLOCK: Final = re.compile(r"```python\n# (\S+), (at the end of|before) (\w+)\n(.*?)```", re.DOTALL)
_ENDS: Final = {"(": ")", "{": "}"}

RECOMPUTE: Final = """
import dataclasses, json, sys
from pathlib import Path

import edgedeploy
from edgedeploy.evidence.metrics import board_metrics
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metrics import MetricInfo
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
    data["candidate"] = side.as_json()
    data["metrics"] |= metrics
    data["missing"] |= missing
    path.write_text(json.dumps(data))
"""
"""The study file is checked with the metric in it; the stored series, made four times as long, are read once more."""


def section(title: str) -> str:
    text = PAGE.read_text(encoding="utf-8")
    (found,) = re.findall(rf"^## {title}.*?(?=^## )", text, re.DOTALL | re.MULTILINE)
    return str(found)


def follow(steps: str, root: Path) -> set[str]:
    """Put each block of code where the page says; the files that were changed."""
    for name, where, anchor, code in _BLOCK.findall(steps):
        path = root / name
        text = path.read_text(encoding="utf-8")
        (start,) = (found.start() for found in re.finditer(rf"^{anchor}: Final", text, re.MULTILINE))
        if where == "before":
            text = f"{text[:start]}{code}\n\n{text[start:]}"
        else:
            opened = re.compile(r"= ([({])\n").search(text, start)
            assert opened
            end = text.index(f"\n{_ENDS[opened[1]]}\n", start) + 1
            text = text[:end] + code + text[end:]
        path.write_text(text, encoding="utf-8")
    return changed(root)


def changed(root: Path) -> set[str]:
    files = [path.relative_to(root) for path in (root / "edgedeploy").rglob("*") if path.is_file()]
    _, different, unknown = filecmp.cmpfiles(REPO, root, list(map(str, files)), shallow=False)
    return {*different, *unknown}


@pytest.mark.parametrize(
    ("title", "metric", "limit", "heading", "files"),
    [
        ("From a series that exists: one file", "latency_p95_ns", 'at_most = "10 s"', "Latency p95", 1),
        ("From a new series: two files", "int8_layers_percent", 'at_least = "0 %"', "Layers in int8", 2),
    ],
)
def test_a_metric_is_added_by_as_many_files_as_the_page_says(
    title: str, metric: str, limit: str, heading: str, files: int, tmp_path: Path
) -> None:
    shutil.copytree(REPO / "edgedeploy", tmp_path / "edgedeploy", ignore=shutil.ignore_patterns("__pycache__"))
    assert changed(tmp_path) == set()
    found = follow(section(title), tmp_path)
    assert len(found) == files, found

    study = shutil.copytree(STUDY, tmp_path / "study")
    text = (study / "study.toml").read_text(encoding="utf-8")
    constraint = f'[[constraints]]\nmetric = "{metric}"\n{limit}\n\n[budget]'
    (study / "study.toml").write_text(text.replace("[budget]", constraint).replace("queries = 64", "queries = 662"))

    def python(*arguments: str | Path) -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    python("-c", RECOMPUTE, tmp_path, study)
    front = json.loads(python("-m", "edgedeploy", "front", study, "--json"))
    rows = [row for row in front["rows"] if metric in row["estimates"]]
    assert rows and len(rows) == len(front["rows"])
    assert all(not row["shortfalls"] for row in rows)
    assert metric in [item["metric"] for item in front["constraints"]]
    python("-m", "edgedeploy", "report", study)
    assert f">{heading}<" in (study / "report.html").read_text(encoding="utf-8")


def test_the_page_says_so_in_its_table() -> None:
    counts = re.findall(r"\| \*\*(\d)\*\*:", PAGE.read_text(encoding="utf-8"))
    assert counts == ["1", "2"]
    assert len({name for name, *_ in _BLOCK.findall(section("From a series that exists"))}) == 1
    assert len({name for name, *_ in _BLOCK.findall(section("From a new series"))}) == 2
