"""Plots and dashboards of Optuna's world read the storage of a finished search."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import optuna
from made_up_search import SPACE, landscape, one_board

from edgedeploy.records.variant import Variant
from edgedeploy.search.loop import Failed, Outcome, Search


def test_optunas_plots_show_a_finished_search(tmp_path: Path) -> None:
    evidence: dict[str, Outcome] = {}
    own = {"target": "openvino", "width": 0.75, "precision": "bfloat16"}

    def evaluate(variant: Variant) -> Outcome:
        broken = (variant.target, variant.precision) == ("onnxruntime", "int8")
        evidence[variant.digest] = Failed("BuildError", "no") if broken else landscape(variant)
        return evidence[variant.digest]

    search = Search(
        storage=tmp_path / "o.sqlite3",
        space=replace(SPACE, tries=(own,)),
        directions=("maximize", "minimize"),
        seed=1,
        lookup=lambda variant: evidence.get(variant.digest),
        clock=nullcontext,
        objectives=("accuracy", "cost"),
    )
    with one_board(evaluate) as board:
        assert search.run(board, trials=16, deadline_s=time.monotonic() + 240).evaluated == 16
    study = optuna.load_study(study_name="edgedeploy", storage=f"sqlite:///{tmp_path / 'o.sqlite3'}")
    assert study.trials[2].params == {**SPACE.baseline("openvino"), **own}, "the user's own point follows the baselines"
    plots = optuna.visualization
    pareto = plots.plot_pareto_front(study)
    assert (pareto.layout.xaxis.title.text, pareto.layout.yaxis.title.text) == ("accuracy", "cost")
    scored = sum(trial.state == optuna.trial.TrialState.COMPLETE for trial in study.trials)
    assert sum(len(trace.x) for trace in pareto.data) == scored < 16
    importances = plots.plot_param_importances(study, target=lambda trial: trial.values[0], target_name="accuracy")
    assert set(importances.data[0].y) == {"target", "width", "resolution", "precision"}
    lines = plots.plot_parallel_coordinate(study, target=lambda trial: trial.values[1], target_name="cost")
    assert len(lines.data) >= scored
