"""A study whose accuracy is a metric of the whole split: its cases are shown by a metric that they have."""

from __future__ import annotations

import dataclasses

import made_up
import made_up_report
import numpy as np
import pytest

from edgedeploy.evidence.front import build_front
from edgedeploy.records.draws import SplitDraws
from edgedeploy.records.goals import Objective
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.report.blocks import Table
from edgedeploy.report.page_details import cases_section
from edgedeploy.report.page_sections import ReportData
from edgedeploy.report.pictures import worst_cases

AUROC = MetricInfo("maximize", "1", "area under the ROC curve")


def measured(dice: float, auroc: float, ms: float, seed: int, **of: object) -> Measurement:
    plain = made_up.measurement(made_up.variant(**of), dice=dice, latency_ms=ms, seed=seed)  # type: ignore[arg-type]
    draws = SplitDraws.of("same x200", np.random.default_rng(0).normal(auroc, 0.01, 200))
    return dataclasses.replace(plain, metrics={**plain.metrics, "auroc": auroc}, draws={"auroc": draws})


@pytest.fixture
def data() -> ReportData:
    items = [measured(0.85, 0.92, 6.0, 0), measured(0.84, 0.918, 2.0, 1, target="openvino", precision="int8")]
    front = build_front(
        items,
        (Objective("auroc", "maximize"), made_up_report.RATIO),
        baseline_digests=[items[0].digest],
        margin=0.01,
        metrics={"auroc": AUROC, **made_up.TASK_METRICS},
    )
    return dataclasses.replace(made_up_report.report_data(), front=front, measurements=tuple(items))


def test_the_pick_is_judged_by_the_split_and_the_cases_by_their_own_metric(data: ReportData) -> None:
    pick = data.front.pick
    assert pick is not None and pick.accuracy is not None
    assert (pick.accuracy.metric, pick.accuracy.method, pick.judged.shown) == ("auroc", "paired draws", True)
    section = cases_section(data)
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    assert table.headers[1] == "Baseline Dice mean"
    assert "Dice mean of the pick" in section.caption
    assert len(worst_cases(data.front, data.measurements, 3)) == 3
