"""The demo fitted to a host: fewer epochs, then smaller images, as far as the time asks for it, all in the study file."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgedeploy.cli.app import app
from edgedeploy.compress.host import TrainingHost
from edgedeploy.diagnose import fitting
from edgedeploy.diagnose.fitting import LADDER, Paces, choose, expected, fitted
from edgedeploy.spec.study import parse_spec
from edgedeploy.tasks.load import load_task
from edgedeploy.tasks.segmentation.ultrasound import UltrasoundOptions

TEXT = resources.files("edgedeploy.study.recipes").joinpath("demo.toml").read_text()
HASWELL = TrainingHost("Intel Core i5-4590", ("avx2", "fma"))


def paces(step_s: float) -> Paces:
    """A host on which a step of 128 pixels takes so long: a little of it is the same whatever the size."""
    return Paces({128: step_s, 64: 0.3 * step_s}, teacher=1.3)


def test_the_time_of_a_step_is_a_line_over_the_pixels() -> None:
    found = Paces({128: 0.1, 64: 0.04}, teacher=1.0)
    assert found.step(128) == pytest.approx(0.1)
    assert found.step(64) == pytest.approx(0.04)
    assert found.step(96) == pytest.approx(0.04 + 0.06 * (96**2 - 64**2) / (128**2 - 64**2))


def test_a_fast_host_gets_the_recipe_as_it_is_and_a_slow_one_less() -> None:
    chosen = [choose(paces(step_s), search_s=1000) for step_s in (0.05, 0.18, 0.192, 0.25, 0.265, 0.3)]
    assert chosen[0] == LADDER[0]
    assert [LADDER.index(plan) for plan in chosen] == sorted(LADDER.index(plan) for plan in chosen)
    assert set(chosen) == set(LADDER)
    assert choose(paces(5.0), search_s=1000) == LADDER[-1], "the least that there is"


def test_what_is_chosen_fits_and_the_plan_before_it_would_not() -> None:
    for step_s in (0.1, 0.18, 0.192, 0.25, 0.26):
        plan = choose(paces(step_s), search_s=1000)
        assert expected(plan, paces(step_s)).total_s <= 1000
        for better in LADDER[: LADDER.index(plan)]:
            assert expected(better, paces(step_s)).total_s > 1000


def test_every_plan_costs_less_than_the_one_before() -> None:
    costs = [expected(plan, paces(0.1)).total_s for plan in LADDER]
    assert costs == sorted(costs, reverse=True)
    assert len(set(costs)) == len(costs)


def test_the_recipe_without_fitting_is_the_first_plan_and_the_tasks_own() -> None:
    data = tomllib.loads(TEXT)
    options, own = data["task"]["options"], UltrasoundOptions()
    assert (options["baseline"]["epochs"], options["recovery"]["epochs"]) == (
        LADDER[0].epochs,
        LADDER[0].recovery_epochs,
    )
    assert (own.baseline.epochs, own.recovery.epochs) == (LADDER[0].epochs, LADDER[0].recovery_epochs)
    assert tuple(options["resolutions"]) == tuple(data["space"]["resolution"]) == LADDER[0].resolutions


@pytest.mark.parametrize("step_s", [0.05, 0.25, 9.0])
def test_the_decided_numbers_are_plain_keys_of_a_study_that_loads(step_s: float, tmp_path: Path) -> None:
    text, said = fitted(TEXT, 1200, paces(step_s), HASWELL, cores=2)
    plan = choose(paces(step_s), 1200 - fitting.END_S)
    spec, _ = parse_spec(text, tmp_path / "study.toml")
    task = load_task(spec.task.model_dump(), tmp_path)
    assert task.baseline_recipe.epochs == plan.epochs  # type: ignore[attr-defined]
    assert task.recovery_recipe.epochs == plan.recovery_epochs  # type: ignore[attr-defined]
    assert tuple(task.architecture["resolution"]) == spec.space["resolution"] == plan.resolutions
    assert spec.budget.wall_clock == 1200 - fitting.END_S
    assert spec.budget.trials == fitting.VARIANTS
    assert f"# Measured: a training step takes {step_s * 1000:.0f} ms on 128 px" in text
    assert "# Fitted to Intel Core i5-4590 with 2 cores, which trains in float32 (no native bfloat16)." in text
    assert ("expected not to fit" in text) == (step_s == 9.0)
    assert str(plan) in said
    unfitted, fit_ = tomllib.loads(TEXT), tomllib.loads(text)
    for table in (unfitted, fit_):
        del table["task"]["options"], table["space"]["resolution"], table["budget"]["wall_clock"]
    assert fit_ == unfitted, "nothing else of the study changes"


def test_a_study_file_alone_is_printed_to_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the real timing, of less than it takes by default."""
    monkeypatch.setattr(fitting, "TIMED_STEPS", 1)
    monkeypatch.setattr(fitting, "TIMED_EPOCHS", 1)
    done = CliRunner().invoke(app, ["recipe", "demo", "--within", "20 min"])
    assert done.exit_code == 0, done.output
    assert tomllib.loads(done.stdout)["task"]["options"]["baseline"]["epochs"] in {plan.epochs for plan in LADDER}
    assert "# Measured: a training step takes" in done.stdout
    assert done.stderr.startswith("Fitted to this host: ")
    plain = CliRunner().invoke(app, ["recipe", "demo"])
    assert plain.stdout == TEXT


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["usgra-seg", "--within", "20 min"], "only the demo brings its own data to time"),
        (["demo", "--within", "20"], "--within: expected a quantity in s"),
        (["demo", "--within", "soon"], "--within: expected a quantity in s"),
        (["demo", "--within", "0 s"], "0 s is no time that it may take"),
        (["demo", "--within=-5 min"], "-300 s is no time that it may take"),
        (["demo", "--within", "1e3 h"], "Give a time up to a day"),
    ],
)
def test_what_cannot_be_fitted_is_said(arguments: list[str], complaint: str) -> None:
    done = CliRunner().invoke(app, ["recipe", *arguments])
    assert complaint in str(done.exception)


def test_a_time_that_is_too_short_is_said() -> None:
    _, said = fitted(TEXT, 120.0, paces(0.3), HASWELL, 2)
    assert said.endswith("expected not to fit into 2 min: the search then ends with what it has")
    _, said = fitted(TEXT, 3600.0, paces(0.1), HASWELL, 2)
    assert "expected not to fit" not in said
