"""Plans of a budget from a study file to variants: made after float32 and int8, kept, the same after a kill."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_onnx import convolutional

import edgedeploy
from edgedeploy.records.precision import PrecisionPlan
from edgedeploy.report.make import make_report
from edgedeploy.search.plan.table import Table
from edgedeploy.study import plan_costs, plans
from edgedeploy.study.plans import kept_plans
from edgedeploy.study.store import Store

pytestmark = pytest.mark.beside

STUDY = """\
[study]
name = "planned"
targets = ["onnxruntime"]

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
precision = ["float32", "int8"]
plan = ["none", "auto:0.4", "auto:0.7"]

[[objectives]]
metric = "reference_rel_l2"

[[objectives]]
metric = "latency_ratio"

[budget]
trials = 4

# Tests run on busy machines and judge no speed: few queries, wide limits on what counts as stable.
[measure]
queries = 16
warmup = 1
cold_starts = 0
max_drift = 50.0
max_spread = 50.0
max_background_cores = 64.0
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    convolutional(tmp_path / "model.onnx", side=96)
    for seed, split in enumerate(("calibration", "selection", "confirmation")):
        rows = np.random.default_rng(seed).random((3, 3, 96, 96)).astype(np.float32)
        np.savez(tmp_path / f"{split}.npz", image=rows)
    path = tmp_path / "study.toml"
    path.write_text(STUDY, encoding="utf-8")
    return path


def run(study: Path, out: Path, *, resume: bool = False) -> list[str]:
    """What the run told."""
    told: list[str] = []
    options = edgedeploy.RunOptions(out=out, resume=resume, confirm=False)
    edgedeploy.load_study(study).run(options, observer=lambda event: told.append(event.text))
    return told


@pytest.fixture
def int8_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIMULATED layer times: whether int8 is faster here hangs on the processor and on who else uses it. The profiles are
    read all the same."""

    def table(*arguments: Any, **options: Any) -> Table:
        found = plan_costs.table_of(*arguments, **options)
        times = {"float32": 2e6, "int8": 1e6}
        groups = [
            replace(group, costs={name: replace(cost, time_ns=times[name]) for name, cost in group.costs.items()})
            for group in found.groups
        ]
        return Table(tuple(groups), found.noises)

    monkeypatch.setattr(plans, "table_of", table)


@pytest.mark.usefixtures("int8_is_faster")
def test_plans_are_made_measured_and_taken_up_again(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = run(study, out)
    made = kept_plans(out)
    kept = (out / "plans.json").read_bytes()
    assert set(made) == {"onnxruntime"}, told
    planned = [item for item in Store(out).measurements() if item.variant.plan.rules]
    assert {item.variant.plan for item in planned} == {
        plan.plan for own in made.values() for plan in own.values() if plan.plan.rules
    }
    assert planned, told
    for item in planned:
        asked = item.variant.plan.rules
        assert item.candidate.executed == {"int8": 3 - len(asked), "float32": len(asked)}
        hand = PrecisionPlan.of({rule.pattern: "float32" for rule in asked})
        assert replace(item.variant, plan=hand).digest == item.digest
    assert "dB alone in int8" in make_report(out).read_text(encoding="utf-8")

    evidence = {item.digest: item.created_utc for item in Store(out).measurements()}
    assert not any("roundings" in line for line in run(study, out, resume=True))
    assert (out / "plans.json").read_bytes() == kept

    (out / "plans.json").write_text(json.dumps({"targets": {"onnxruntime": 3}}), encoding="utf-8")
    assert any("plans.json is set aside" in line for line in run(study, out, resume=True))
    assert (out / "plans.json").read_bytes() == kept
    assert {item.digest: item.created_utc for item in Store(out).measurements()} == evidence
