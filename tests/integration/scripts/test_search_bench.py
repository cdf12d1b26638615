"""The bench of searches: its tables are what they say they are, it keeps what it has run, and its bars can be missed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks import search
from benchmarks.shared.search_tables import NAS_FILE, OPERATIONS, Table, co_design, computed, nas_bench_201
from benchmarks.shared.searchers import Run
from board_kit import STUDY_LIMIT_S

from edgedeploy.search.outcomes import Failed, Scored

pytestmark = pytest.mark.beside

REPO = Path(__file__).resolve().parents[3]
DOOR = REPO / "scripts/bench.py"


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(DOOR), "search", *arguments]
    env = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    return subprocess.run(argv, capture_output=True, text=True, env=env, timeout=STUDY_LIMIT_S, check=False)


def test_the_made_up_space_is_as_large_as_it_says() -> None:
    table = co_design()
    assert (table.space.size(), len(table.statics), len(table.values)) == (4608, 2208, 2112)
    outcomes = {type(table.outcome(table.space.variant(params))) for params in table.space.combinations()}
    assert outcomes == {Scored, Failed}
    assert table.share(list(table.values.values())) == pytest.approx(1.0)
    by_accuracy: dict[tuple[object, ...], set[float]] = {}
    for variant in map(table.space.variant, table.space.combinations()):
        if variant.digest in table.values:
            model = (variant.width, variant.arch, variant.precision, variant.plan)
            by_accuracy.setdefault(model, set()).add(table.values[variant.digest][0])
    assert {len(found) for found in by_accuracy.values()} == {1}, "targets and threads share the accuracy"
    assert co_design(1).values != table.values


def test_a_file_of_the_public_table_is_read(tmp_path: Path) -> None:
    operations = np.stack(np.meshgrid(*[np.arange(5, dtype=np.int8)] * 6, indexing="ij"), axis=-1).reshape(-1, 6)
    accuracy, latency = operations.sum(axis=1) + 1.0, operations.max(axis=1) + 1.0
    np.savez(tmp_path / NAS_FILE, operations=operations, cifar100_accuracy=accuracy, lat_made_up=latency)
    table = nas_bench_201(tmp_path, ["made_up"])
    assert len(table.values) == 15_625
    largest = table.space.variant(table.space.baseline("table"))
    assert table.values[largest.digest] == (25.0, 5.0)
    assert table.statics[largest.digest]["macs"] == max(item["macs"] for item in table.statics.values())


def test_luck_of_times_can_be_taken_out_of_a_table(tmp_path: Path) -> None:
    operations = np.stack(np.meshgrid(*[np.arange(5, dtype=np.int8)] * 6, indexing="ij"), axis=-1).reshape(-1, 6)
    latency = np.random.default_rng(0).lognormal(size=len(operations))
    accuracy = np.arange(len(operations)) + 1.0
    np.savez(tmp_path / NAS_FILE, operations=operations, cifar100_accuracy=accuracy, lat_made_up=latency)
    lucky, level = (nas_bench_201(tmp_path, ["made_up"], level=level) for level in (False, True))
    rows = [row for row, codes in enumerate(operations) if computed([OPERATIONS[code] for code in codes]) == "x"]
    assert len(rows) > 100
    measured = [value for value in lucky.values.values() if value[0] - 1 in rows]
    told = [value for value in level.values.values() if value[0] - 1 in rows]
    assert {time for _, time in told} == {float(np.median(latency[rows]))}
    assert len({time for _, time in measured}) == len(rows)
    assert {value[0] for value in level.values.values()} == {value[0] for value in lucky.values.values()}


def test_some_of_several_devices_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One device below its bar is told, and fails the check only where fewer hold than were asked for."""
    below: set[str] = set()

    made_up = co_design()

    def table(_: Path, devices: Sequence[str], *, level: bool = False) -> Table:
        return replace(made_up, name=f"{' and '.join(devices)}{', level' if level else ''}")

    def run(_: search.Kept, problem: search.Problem, *__: object) -> Run:
        single = " and " not in problem.name
        missed = single and any(device in problem.name for device in below)
        return Run(shares=[0.5 if missed else 1.0] * 50, digests=["0"] * 50)

    monkeypatch.setattr(search, "nas_bench_201", table)
    monkeypatch.setattr(search.Kept, "run", run)
    words = "--samplers co-design --evaluations 50 --seeds 1 --parts own --check"
    arguments = ["--tables", str(tmp_path), *words.split()]
    assert search.main(arguments) == 0
    below |= {"pixel3", "silver_4114"}
    assert search.main(arguments) == 0
    below.add("raspi4")
    assert search.main(arguments) == 1


def test_what_was_run_is_kept_and_a_bar_can_be_missed(tmp_path: Path) -> None:
    arguments = ("--quick", "--parts", "own", "--folder", str(tmp_path), "--check")
    first = bench(*arguments)
    assert first.returncode == 0, f"the bars of the made-up space: {first.stdout}"
    rows = [json.loads(line) for line in (tmp_path / search.LINES).read_text().splitlines()]
    assert [len(row["run"]["shares"]) for row in rows] == [50, 50, 50]
    assert {row["run"]["wasted"] for row in rows} == {0}
    assert f"{NAS_FILE}) | left out" in first.stdout

    bad = Run(shares=[0.5] * 50, digests=["0"] * 50).as_json()
    lines = [json.dumps({**row, "run": bad}) for row in rows]
    (tmp_path / search.LINES).write_text("\n".join([*lines, "half a li"]))
    again = bench(*arguments)
    assert again.returncode == 1
    assert "@25 | 0.500 +- 0.000, least 0.500 | 0.87 | MISSED" in again.stdout
