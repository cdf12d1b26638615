"""The search over a made-up landscape: no duplicate is evaluated, nothing is lost when it is interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from made_up_search import SMALL, SPACE, landscape, one_board

from edgedeploy.errors import OutOfTime
from edgedeploy.records.canonical import Choices
from edgedeploy.records.conditions import Condition
from edgedeploy.records.precision import PrecisionPlan
from edgedeploy.records.variant import Variant
from edgedeploy.search.loop import Failed, Finished, Outcome, Scored, Search
from edgedeploy.search.space import Space


class Lab:
    """Remembers what was evaluated, as the evidence store does."""

    def __init__(self, storage: Path, evaluate: Callable[[Variant], Outcome] = landscape, space: Space = SPACE) -> None:
        self.space = space
        self.storage = storage
        self.evidence: dict[str, Outcome] = {}
        self.evaluated: list[Variant] = []
        self.variants: list[Variant] = []
        self.landscape = evaluate
        self.lookup = lambda variant: self.evidence.get(variant.digest)

    def evaluate(self, variant: Variant) -> Outcome:
        outcome = self.landscape(variant)
        self.evaluated.append(variant)
        self.evidence[variant.digest] = outcome
        return outcome

    def search(self, seed: int = 3) -> Search:
        return Search(
            storage=self.storage,
            space=self.space,
            directions=("maximize", "minimize"),
            seed=seed,
            lookup=self.lookup,
            clock=nullcontext,
            evidence=lambda: list(self.variants),
        )


def finish(lab: Lab, trials: int, seconds: float = 240) -> Finished:
    with one_board(lab.evaluate) as board:
        return lab.search().run(board, trials=trials, deadline_s=time.monotonic() + seconds)


def run(lab: Lab, trials: int) -> str:
    return finish(lab, trials).reason


def test_baselines_of_every_target_come_first(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "o.sqlite3")
    run(lab, 6)
    assert [variant.digest for variant in lab.evaluated[:2]] == [
        SPACE.baseline_variant(t).digest for t in SPACE.targets
    ]
    assert {(v.precision, v.width) for v in lab.evaluated[2:]} == {("int8", 1.0), ("int8", 0.5)}


def test_no_variant_is_evaluated_twice_until_the_space_is_exhausted(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "o.sqlite3", space=SMALL)
    assert run(lab, 1000) == "exhausted"
    digests = [variant.digest for variant in lab.evaluated]
    assert len(digests) == len(set(digests)) == 2 * (2 + 3)  # onnxruntime has two of the precisions, openvino three


def test_an_interrupted_trial_is_run_again_once_and_no_other_is(tmp_path: Path) -> None:
    def interrupted(variant: Variant) -> Outcome:
        if len(lab.evaluated) == 7:
            lost.append(variant)
            raise KeyboardInterrupt
        return landscape(variant)

    lost: list[Variant] = []
    lab = Lab(tmp_path / "o.sqlite3", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(lab, 12)
    lab.landscape = landscape
    run(lab, 12)
    digests = [variant.digest for variant in lab.evaluated]
    assert len(digests) == len(set(digests)) == 12
    assert lost[0].digest in digests


def test_evidence_that_optuna_was_never_told_of_is_not_made_again(tmp_path: Path) -> None:
    def killed_after_storing(variant: Variant) -> Outcome:
        outcome = landscape(variant)
        if len(lab.evaluated) == 5:
            lab.evaluated.append(variant)
            lab.evidence[variant.digest] = outcome
            raise KeyboardInterrupt
        return outcome

    lab = Lab(tmp_path / "o.sqlite3", killed_after_storing)
    with pytest.raises(KeyboardInterrupt):
        run(lab, 10)
    lab.landscape = landscape
    run(lab, 10)
    digests = [variant.digest for variant in lab.evaluated]
    assert len(digests) == len(set(digests)) == 10


def test_what_conditions_put_out_of_the_space_has_cost_its_trials(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "o.sqlite3")
    run(lab, 10)
    lab.variants = list(lab.evaluated)
    lab.space = replace(SPACE, only=(Condition("resolution", {"width": (0.5,)}),))
    outside = [item for item in lab.evaluated if lab.space.params_of(item) is None]
    assert outside and all(SPACE.params_of(item) is not None for item in outside)
    assert finish(lab, 12).evaluated == len(lab.evaluated) == 12


def test_a_failure_is_never_a_value(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "o.sqlite3", lambda v: Failed("BuildError", "no") if v.precision == "int8" else landscape(v))
    run(lab, 15)
    study = optuna.load_study(study_name="edgedeploy", storage=f"sqlite:///{lab.storage}")
    failed = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.FAIL]
    assert failed
    assert all(trial.values is None for trial in failed)
    assert all(trial.params["precision"] != "int8" for trial in study.best_trials)


def test_what_left_no_evidence_is_tried_again_by_the_next_run_and_not_by_this_one(tmp_path: Path) -> None:
    """Conditions that stayed unstable, a toolchain that contradicted itself: kept for one run, stored by none."""

    def contradicts(variant: Variant) -> Outcome:
        if variant.precision != "int8":
            return landscape(variant)
        open_questions.append(variant.digest)
        return Failed("Unrepeatable", "three builds failed in different ways")

    open_questions: list[str] = []
    lab = Lab(tmp_path / "o.sqlite3", contradicts)
    lab.lookup = lambda variant: found if isinstance(found := lab.evidence.get(variant.digest), Scored) else None
    run(lab, 8)
    assert len(open_questions) == len(set(open_questions)) > 1
    lab.evaluated.clear()
    lab.landscape = landscape
    run(lab, 8)
    assert [variant.digest for variant in lab.evaluated] == open_questions, "before anything new is tried"


def test_a_baseline_that_had_no_number_is_tried_again_before_what_still_waits(tmp_path: Path) -> None:
    def busy(variant: Variant) -> Outcome:
        return Failed("Unstable", "others used the machine", "measure")

    lab = Lab(tmp_path / "o.sqlite3", busy)
    lab.lookup = lambda variant: found if isinstance(found := lab.evidence.get(variant.digest), Scored) else None
    run(lab, 1)
    failed = [variant.digest for variant in lab.evaluated]
    assert failed == [SPACE.baseline_variant(SPACE.targets[0]).digest]
    lab.evaluated.clear()
    lab.landscape = landscape
    run(lab, 3)
    assert lab.evaluated[0].digest == failed[0], "nothing is compared without it"


def test_constraints_reach_the_sampler(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "o.sqlite3")
    run(lab, 10)
    study = optuna.load_study(study_name="edgedeploy", storage=f"sqlite:///{lab.storage}")
    violated = {t.number for t in study.trials if t.values and t.values[1] > 12_000}
    assert violated
    assert not violated & {trial.number for trial in study.best_trials}


def test_the_wall_clock_ends_a_search(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "o.sqlite3")
    finished = finish(lab, 50, seconds=0)
    assert (finished.reason, finished.evaluated) == ("wall_clock", 0)


def test_the_end_of_the_time_in_a_training_ends_the_search_and_is_no_failure(tmp_path: Path) -> None:
    def cut(variant: Variant) -> Outcome:
        if len(lab.evaluated) == 5:
            lost.append(variant)
            raise OutOfTime("training of width 0.5", "the time was over after 2 of 8 epochs")
        return landscape(variant)

    lost: list[Variant] = []
    lab = Lab(tmp_path / "o.sqlite3", cut)
    found = finish(lab, 12)
    assert (found.reason, found.evaluated) == ("wall_clock", 5)
    assert "after 2 of 8 epochs" in found.cut
    history = optuna.load_study(study_name="edgedeploy", storage=f"sqlite:///{lab.storage}").trials
    assert not [trial for trial in history if "failure" in trial.user_attrs]

    lab.landscape = landscape
    assert run(lab, 12) == "trials"
    assert lost[0].digest in {variant.digest for variant in lab.evaluated[5:]}
    assert len({variant.digest for variant in lab.evaluated}) == len(lab.evaluated) == 12


def test_stepped_numbers_come_back_as_they_were_listed() -> None:
    assert SPACE.variant({"target": "openvino", "width": 0.7500000001}).width == 0.75


def test_parameters_are_found_again_for_every_variant_of_a_space() -> None:
    """A plan and a calibration are in a variant by what they come to, not by name."""
    head = PrecisionPlan.of({"/head/*": "float32"})
    space = replace(
        SMALL,
        parameters={
            **SMALL.parameters,
            "plan": ("none", "head"),
            "calibration": ("minmax", "entropy"),
            "calibration_cases": (4, 8),
            "power_mode": ("MAXN", "15W"),
        },
        choices=Choices({"head": head}, {"onnxruntime": ("float32",)}, {"onnxruntime": ("minmax", "entropy")}, cases=8),
    )
    for params in space.combinations():
        variant = space.variant(params)
        found = space.params_of(variant)
        assert found is not None and space.variant(found) == variant
    assert space.params_of(replace(variant, power_mode="30W")) is None
    assert space.params_of(replace(variant, target="elsewhere")) is None


def test_the_first_power_mode_is_the_baselines() -> None:
    space = replace(SMALL, parameters={"power_mode": ("MAXN", "15W")})
    assert space.baseline_variant("openvino").power_mode == "MAXN"
    assert space.variant(space.baseline("openvino")) == space.baseline_variant("openvino")
    assert SMALL.baseline_variant("openvino").power_mode == ""


def test_a_baseline_has_threads_that_are_searched() -> None:
    """Else a front knows no baseline where one thread is asked for on a board that would take more by default."""
    for values, wanted in (((1,), 1), ((1, 2), 2), ((4, 8), 4)):
        space = replace(SMALL, parameters={**SMALL.parameters, "threads": values}, default_threads=2)
        assert space.baseline_variant("openvino").threads == wanted
        assert space.variant(space.baseline("openvino")) == space.baseline_variant("openvino")
    assert SMALL.baseline_variant("openvino").threads == SMALL.default_threads


def test_what_was_measured_is_told_even_with_calibrations_in_the_space(tmp_path: Path) -> None:
    """Killed after the evidence and before Optuna heard of it: the next run tells it, whatever the space holds."""
    space = replace(
        SMALL,
        parameters={"precision": ("float32", "int8"), "calibration": ("minmax", "entropy")},
        choices=Choices(calibrations={"onnxruntime": ("minmax", "entropy")}, cases=8),
    )
    variant = space.variant({"target": "onnxruntime", "precision": "int8", "calibration": "entropy"})
    lab = Lab(tmp_path / "o.sqlite3", space=space)
    lab.evidence[variant.digest] = landscape(variant)
    lab.variants.append(variant)
    run(lab, 1)
    study = optuna.load_study(study_name="edgedeploy", storage=f"sqlite:///{lab.storage}")
    assert [trial.user_attrs["variant"] for trial in study.trials if trial.values] == [variant.digest]
