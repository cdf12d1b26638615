"""What a task sets on the float baseline is set once in a run, from the reference's outputs, whatever a board answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import made_up
import numpy as np
import pytest
from small_task import SmallTask, bench

from edgedeploy.errors import SpecError
from edgedeploy.interfaces.scores import FixedOnBaseline
from edgedeploy.interfaces.task import Array, Case
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.runtime.sessions.onnxruntime import open_model
from edgedeploy.study.scores import score
from edgedeploy.study.store import Store


class Thresholded(SmallTask):
    """Remembers what it was asked."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.seen: list[tuple[list[str], list[Mapping[str, Array]]]] = []

    def fix(self, cases: Sequence[Case], outputs: Sequence[Mapping[str, Array]]) -> Mapping[str, float]:
        self.seen.append(([case.id for case in cases], list(outputs)))
        return {"threshold": 0.25}


def test_the_references_outputs_on_the_selection_split_decide(tmp_path: Path) -> None:
    task, heard = Thresholded(tmp_path / "task"), []
    assert isinstance(task, FixedOnBaseline)
    made = bench(Store(tmp_path / "study"), task, heard=heard)
    baseline = made_up.variant()
    made.fix_on(baseline)
    made.fix_on(baseline)
    ((ids, outputs),) = task.seen
    assert ids == [f"selection-{number}" for number in range(6)]
    run = open_model(made.reference(baseline).path, {}, 1).run
    for case, found in zip(task.cases("selection"), outputs, strict=True):
        wanted = run(task.inputs(case))
        assert all(np.allclose(found[name], wanted[name]) for name in wanted)
    assert [line for line in heard if "fixed on" in line] == [
        "note fixed on the float baseline, 6 selection cases: threshold 0.25"
    ]


def test_other_tasks_are_left_alone(tmp_path: Path) -> None:
    heard: list[str] = []
    made = bench(Store(tmp_path / "study"), SmallTask(tmp_path / "task"), heard=heard)
    made.fix_on(made_up.variant())
    assert not (tmp_path / "study" / "models").exists()


class Ranking(SmallTask):
    metrics: Mapping[str, MetricInfo] = {}
    split_metrics: Mapping[str, MetricInfo] = {"auroc": MetricInfo("maximize", "1", "area under the ROC curve")}
    split_resamples = 100
    short = False

    def evaluate(self, outputs: Mapping[str, Array], case: Case) -> dict[str, float | None]:
        return {}

    def ranked(
        self, cases: Sequence[Case], outputs: Sequence[Mapping[str, Array]]
    ) -> Mapping[str, tuple[Sequence[bool], Sequence[float]]]:
        sides = [int(case.id.rpartition("-")[2]) % 2 == 1 for case in cases]
        return {"auroc": (sides[: 3 if self.short else None], [float(found["y"][0]) for found in outputs])}

    def score(self, cases: Sequence[Case], outputs: Sequence[Mapping[str, Array]]) -> dict[str, float | None]:
        from sklearn.metrics import roc_auc_score

        sides, scores = self.ranked(cases, outputs)["auroc"]
        return {"auroc": float(roc_auc_score(sides, scores)) if len(set(sides)) == 2 else None}


def test_where_cases_rank_is_kept_beside_an_auroc(tmp_path: Path) -> None:
    task = Ranking(tmp_path)
    outputs = [{"y": np.array([value])} for value in (0.1, 0.4, 0.35, 0.3, 0.2, 0.9)]
    found = score(task, task.cases("selection"), outputs)
    assert found.placements["auroc"].positive == {
        "selection-1": 1.0,
        "selection-3": pytest.approx(2 / 3),
        "selection-5": 1.0,
    }
    assert np.mean(list(found.placements["auroc"].negative.values())) == pytest.approx(found.metrics["auroc"])
    task.short = True
    with pytest.raises(SpecError, match=r"ranked\(\) of 6 cases: auroc has 3 sides and 6 scores"):
        score_ranks(task, outputs)


def score_ranks(task: Ranking, outputs: Sequence[Mapping[str, Array]]) -> None:
    task.score = lambda cases, found: {"auroc": 0.5}  # type: ignore[method-assign]
    score(task, task.cases("selection"), outputs)
