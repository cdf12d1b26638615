"""What `edgedeploy plan` says of a study, from its file alone and from a folder that it was begun in."""

from __future__ import annotations

import json
from pathlib import Path

import made_up
import pytest
from typer.testing import CliRunner

from edgedeploy.api import load_study
from edgedeploy.cli import app as cli
from edgedeploy.errors import BoardError, SpecError
from edgedeploy.study import outlook as looking
from edgedeploy.study.account import Account
from edgedeploy.study.store import Store

STUDY = """\
[study]
name = "looked at"
targets = ["onnxruntime", "openvino"]
[task]
kind = "synthetic-ultrasound"
[task.options]
train_cases = 4
calibration_cases = 2
selection_cases = 12
confirmation_cases = 10
resolutions = [32, 48]
depth = 2
base_channels = 4
[[boards]]
name = "here"
kind = "local"
[space]
width = [1.0, 0.5]
precision = ["float32", "int8"]
resolution = [32, 48]
[[never]]
precision = "float32"
width = 0.5
[[objectives]]
metric = "dice_mean"
[[objectives]]
metric = "latency_ratio"
[budget]
trials = 9
wall_clock = "14 min"
[evidence]
margin = 0.02
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    return path


def test_it_counts_what_is_tried_and_writes_nothing(study: Path) -> None:
    found = load_study(study).plan()
    assert found.tried is not None
    assert (found.tried.combinations, found.tried.variants, found.tried.to_do) == (16, 12, 9)
    assert sum(kind.variants for kind in found.tried.kinds) == 12
    floats = next(kind for kind in found.tried.kinds if (kind.target, kind.precision) == ("openvino", "float32"))
    assert (floats.widths, floats.architectures, floats.variants) == ((1.0,), 2, 2)
    assert any("4 of 16 combinations are forbidden by [[never]]" in line for line in found.tried.left_out)
    assert found.tried.seeds[0] == "onnxruntime float32 w1 resolution=32 transposed t2"
    assert [item.name for item in study.parent.iterdir()] == ["study.toml"]


def test_baselines_are_counted_where_everything_is_forbidden(study: Path) -> None:
    """They are measured all the same: it was 0 variants."""
    every = '[[never]]\nprecision = ["float32", "int8"]\n'
    study.write_text(STUDY.replace('[[never]]\nprecision = "float32"\nwidth = 0.5\n', every))
    found = load_study(study).plan()
    assert found.tried is not None and (found.tried.variants, found.tried.to_do) == (2, 2)
    assert [(kind.target, kind.precision, kind.variants) for kind in found.tried.kinds] == [
        ("onnxruntime", "float32", 1),
        ("openvino", "float32", 1),
    ]
    line = "16 of 16 combinations are forbidden by [[never]]; 2 baselines are measured all the same"
    assert line in found.tried.left_out


def test_time_is_not_guessed(study: Path) -> None:
    found = load_study(study).plan()
    assert found.seconds is None
    assert "build and measurement" in found.unknown and "training of the baseline" in found.unknown
    assert found.wall_clock_s == 14 * 60


def test_a_folder_tells_how_long_phases_take(study: Path) -> None:
    begun = load_study(study)
    store = Store(study.parent / "run")
    store.create(
        STUDY,
        {
            "spec_digest": begun.digest,
            "board": "here",
            "boards": {"here": ""},
            "baselines": [],
            "task_metrics": {},
        },
    )
    arch = {"resolution": 32, "upsampling": "transposed"}
    store.keep(made_up.measurement(made_up.variant(**arch)))
    store.keep(made_up.measurement(made_up.variant(precision="int8", **arch), dice=0.84, seed=2))
    account = Account(store)
    account.add("measure", 6_000_000_000)
    account.add("build", 2_000_000_000)
    account.close()
    found = begun.plan(store.root)
    assert found.tried is not None and (found.tried.done, found.tried.to_do) == (2, 7)
    by_name = {item.phase: item for item in found.times}
    assert (by_name["measure"].each_s, by_name["measure"].seconds) == (3.0, 21.0)
    assert by_name["build"].seconds == 7.0
    assert found.seconds == pytest.approx(28.0)
    assert "training of the baseline" in found.unknown  # nothing in the folder tells
    (power,) = found.powers
    assert power.measured and power.reaches[0].spread.of == "onnxruntime int8"


def test_a_folder_of_another_study_is_refused(study: Path) -> None:
    store = Store(study.parent / "run")
    store.create(STUDY.replace("0.02", "0.03"), {"spec_digest": "other", "board": "here", "baselines": []})
    with pytest.raises(SpecError, match=r"--out .*run: it holds another study"):
        load_study(study).plan(store.root)


def test_a_first_study_that_cannot_be_started_from_is_told_before_anything_runs(study: Path) -> None:
    study.write_text(f'{STUDY}[search]\nwarm_start = "nowhere"\n')
    with pytest.raises(SpecError, match=r"study\.toml:\d+: search\.warm_start: 'nowhere' cannot be started from"):
        load_study(study).plan()


def test_without_its_board_the_rest_is_told(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise BoardError("board 'here'", "it does not answer", "Switch it on")

    monkeypatch.setattr(looking, "prepare", away)
    found = load_study(study).plan()
    assert found.tried is None and found.unreached == "board 'here': it does not answer"
    assert found.powers[0].reaches[0].cases == 12
    assert all(item.seconds is None for item in found.times)


def test_the_command_prints_tables_and_json(study: Path) -> None:
    shown = CliRunner().invoke(cli.app, ["plan", str(study)])
    assert shown.exit_code == 0, shown.output
    for text in (
        "What the study 'looked at' can prove",
        "What is tried",
        "16 combinations are 12 variants",
        "not known yet",
    ):
        assert text in shown.stdout
    assert "at most 9 are evaluated" in shown.stdout
    assert "\nThe study's margin of 0.02 (Dice mean) needs 8 / 16 / 41 cases " in shown.stdout
    assert "0 or 1 in each case" not in shown.stdout, "a Dice is none of yes or no"
    data = json.loads(CliRunner().invoke(cli.app, ["plan", str(study), "--json"]).stdout)
    assert data["tried"]["variants"] == 12
    assert data["power"][0]["margin"] == 0.02
    assert data["clusters"]["groups"]["selection"] == 12


def test_what_waits_for_a_measurement_is_not_said_to_be_left_out(study: Path) -> None:
    """They are counted and tried: it was "Left out: widths by time follow ..."."""
    study.write_text(
        study.read_text().replace("[space]", '[space]\nallocation = ["uniform", "time"]\nplan = ["none", "auto:0.5"]')
    )
    found = load_study(study).plan()
    assert found.tried is not None and len(found.tried.later) == 2
    assert not {*found.tried.later} & {*found.tried.left_out}
    shown = CliRunner().invoke(cli.app, ["plan", str(study)])
    assert "\nMade later: widths by time follow the layer times of the baseline" in shown.stdout, shown.output
    assert "\nMade later: plans of a budget (auto:0.5) count once each" in shown.stdout


def test_no_more_are_evaluated_than_there_are(study: Path) -> None:
    study.write_text(study.read_text().replace("trials = 9", "trials = 99"))
    shown = CliRunner().invoke(cli.app, ["plan", str(study)])
    assert shown.exit_code == 0, shown.output
    assert "16 combinations are 12 variants; at most 12 are evaluated." in shown.stdout
