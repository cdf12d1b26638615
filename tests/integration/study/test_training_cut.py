"""Training that is killed or runs out of time, in a real study: what it loses, what it ends as, what the user is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import warm_cli
from board_kit import STUDY_LIMIT_S
from fault_kit import wait_for
from typer.testing import CliRunner

import edgedeploy
from edgedeploy.cli.app import app
from edgedeploy.compress.host import this_host
from edgedeploy.study import run
from edgedeploy.study.store import Store

pytestmark = pytest.mark.beside

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"
EPOCHS = {"baseline": 12, "recovery": 6}
STEPS = 4
"""Of an epoch: 32 cases in batches of 8."""

STEP_S = 0.04
STEP_LOG = "steps.log"
HOLD = "hold"
"""Where this file says a number of steps, the training stays in that step: what is to kill it there is never too late."""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The example with trainings of seconds; its task writes a line for each step that is trained."""
    text = (EXAMPLES / "squares.py").read_text()
    for old, new in (
        ("epochs=3,", f"epochs={EPOCHS['baseline']}, bfloat16=True,"),
        ("epochs=1,", f"epochs={EPOCHS['recovery']},"),
        (
            "        return nn.functional.cross_entropy",
            f"        time.sleep({STEP_S})\n"
            f'        with Path(__file__).with_name("{STEP_LOG}").open("a") as log:\n'
            '            log.write("step\\n")\n'
            f'        hold, done = (Path(__file__).with_name(name) for name in ("{HOLD}", "{STEP_LOG}"))\n'
            "        while hold.exists() and len(done.read_text().splitlines()) >= int(hold.read_text()):\n"
            "            time.sleep(0.01)\n"
            "        return nn.functional.cross_entropy",
        ),
        ("import numpy as np", "import time\nfrom pathlib import Path\n\nimport numpy as np"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (tmp_path / "squares.py").write_text(text)
    text = (EXAMPLES / "squares.toml").read_text()
    for old, new in (
        ('targets = ["onnxruntime", "openvino"]', 'targets = ["onnxruntime"]'),
        ("kernel = [3, 5]\n", ""),
        ('precision = ["float32", "int8"]', 'precision = ["float32"]'),
        ("trials = 6", 'trials = 2\nwall_clock = "1 h"'),
        (
            'kind = "local"',
            f'kind = "local"\n\n[[boards]]\nname = "second"\nkind = "local"\nroot = "{tmp_path}/second"',
        ),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    path = tmp_path / "study.toml"
    path.write_text(text)
    return path


def steps(study: Path) -> int:
    log = study.with_name(STEP_LOG)
    return len(log.read_text().splitlines()) if log.exists() else 0


def command(study: Path, out: Path, *more: str) -> list[str]:
    argv = ["search", str(study), "--out", str(out), "--board", "here", "--no-confirm", *more]
    return [sys.executable, "-m", "edgedeploy", *argv]


def with_one_thread() -> dict[str, str]:
    """Sums in one order: results are equal to the last bit."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def search(study: Path, out: Path, *more: str) -> None:
    done = subprocess.run(
        [*warm_cli.command(), *command(study, out, *more)[3:]],
        capture_output=True,
        text=True,
        check=False,
        timeout=STUDY_LIMIT_S,
        env=with_one_thread(),
    )
    assert done.returncode == 0, done.stderr


def kill_after(study: Path, out: Path, wanted: int, *more: str) -> None:
    """A real SIGKILL once ``wanted`` steps were trained in all."""
    study.with_name(HOLD).write_text(str(wanted))
    process = subprocess.Popen(
        command(study, out, *more), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=with_one_thread()
    )
    wait_for("the step", lambda: process.poll() is not None or steps(study) >= wanted, STUDY_LIMIT_S)
    assert process.poll() is None, "it ended before it was killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    study.with_name(HOLD).unlink()


def weights(out: Path) -> dict[str, dict[str, Any]]:
    paths = [out / "baseline" / "weights.pt", *sorted((out / "models").glob("*/weights.pt"))]
    return {path.parent.name: torch.load(path, weights_only=True) for path in paths}


@pytest.mark.slow
def test_a_kill_in_mid_training_costs_one_epoch_at_most(study: Path, tmp_path: Path) -> None:
    """Killed in the baseline's training, then in the recovery of a pruned model."""
    search(study, tmp_path / "undisturbed")
    whole = steps(study)
    assert whole == STEPS * (EPOCHS["baseline"] + EPOCHS["recovery"])
    study.with_name(STEP_LOG).unlink()

    out = tmp_path / "out"
    kill_after(study, out, wanted=STEPS * 5 + 2)
    assert [path.name for path in (out / "training").iterdir()] == ["baseline.pt"]
    assert not (out / "baseline").exists()
    before = steps(study)
    kill_after(study, out, STEPS * (EPOCHS["baseline"] + 4) + 1, "--resume")
    assert steps(study) > before + STEPS
    search(study, out, "--resume")
    assert whole <= steps(study) <= whole + 2 * STEPS, "two kills cost two epochs at most"

    found, wanted = weights(out), weights(tmp_path / "undisturbed")
    assert len(found) == 3 and found.keys() == wanted.keys()
    for name, tensors in wanted.items():
        assert all(torch.equal(tensor, found[name][key]) for key, tensor in tensors.items()), name
    assert list((out / "training").iterdir()) == []
    assert len(Store(out).measurements()) == 2
    facts = Store(out).baseline_training()
    assert facts["epochs"] == EPOCHS["baseline"] and facts["steps"] == STEPS * EPOCHS["baseline"]
    assert facts["wall_s"] > STEP_S * facts["steps"], "the time of both runs"


CUT_AT = STEPS * 2 + 2


@contextmanager
def over_in_mid_training(study: Path, at: int = CUT_AT) -> Iterator[None]:
    """The study's clock jumps past its ``wall_clock`` once so many steps are trained: how long a busy host takes until
    then is no matter."""

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return time.monotonic() + (3600 if steps(study) >= at else 0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "time", Clock)
        yield


def test_the_wall_clock_ends_a_training_and_the_user_is_told(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with over_in_mid_training(study):
        told = CliRunner().invoke(app, command(study, out)[3:])
    assert told.exit_code == 4, told.output
    text = " ".join(told.stderr.split())
    assert "0 variants evaluated; ended because of: wall_clock." in text
    missing = f"the time was over after 2 of {EPOCHS['baseline']} epochs. A resumed study continues it"
    assert f"2 of 2 variants are missing: the time is over (training of baseline: {missing})" in text
    assert f"Go on: edgedeploy search {study} --out {out} --resume" in text
    store = Store(out)
    assert store.failures() == store.measurements() == ()
    assert store.checkpoint("baseline").is_file()
    assert steps(study) == CUT_AT

    events = list[Any]()
    result = edgedeploy.load_study(study).run(
        edgedeploy.RunOptions(out=out, resume=True, board="here", confirm=False), observer=events.append
    )
    assert (result.reason, result.evaluated, result.cut, result.partial) == ("trials", 2, "", False)
    assert steps(study) == STEPS * (EPOCHS["baseline"] + EPOCHS["recovery"]), "not one step was trained again"
    training = [event for event in events if event.text.startswith("training baseline")]
    assert training and all(event.eta_s is not None and event.eta_at_least for event in training)
    recovery = [event for event in events if event.text.startswith("training width 0.5")]
    assert recovery and all(event.eta_s is not None for event in recovery)


def test_the_wall_clock_ends_trainings_of_several_boards(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with over_in_mid_training(study):
        result = edgedeploy.load_study(study).run(
            edgedeploy.RunOptions(out=out, boards=("here", "second"), confirm=False)
        )
    assert (result.reason, result.evaluated, result.partial) == ("wall_clock", 0, True)
    assert result.cut.startswith("training of baseline")
    assert Store(out).failures() == ()
    result = edgedeploy.load_study(study).run(
        edgedeploy.RunOptions(out=out, resume=True, boards=("here", "second"), confirm=False)
    )
    assert (result.reason, result.evaluated) == ("trials", 2)
    assert steps(study) == STEPS * (EPOCHS["baseline"] + EPOCHS["recovery"])


def test_the_wall_clock_ends_the_baselines_further_training_too(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    study.write_text(study.read_text().replace("recovered_baseline = false", "recovered_baseline = true"))
    options = edgedeploy.RunOptions(out=out, board="here", confirm=False)
    before = STEPS * (EPOCHS["baseline"] + EPOCHS["recovery"])
    events = list[Any]()
    with over_in_mid_training(study, before + CUT_AT):
        result = edgedeploy.load_study(study).run(options, observer=events.append)
    assert (result.reason, result.evaluated) == ("trials", 2), "every variant has its number"
    told = [event.text for event in events if event.text.startswith("the baseline after further training")]
    assert any(
        f"the time was over after 2 of {EPOCHS['recovery']} epochs. A resumed study continues it" in text
        for text in told
    )
    assert steps(study) == before + CUT_AT
    assert Store(out).failures() == ()

    edgedeploy.load_study(study).run(replace(options, resume=True))
    assert steps(study) == before + STEPS * EPOCHS["recovery"], "not one step was trained again"
    assert [item.variant.recovered for item in Store(out).measurements()].count(True) == 1
    assert list((out / "training").iterdir()) == []


def test_the_precision_of_the_training_is_kept_and_shown(study: Path, tmp_path: Path) -> None:
    """The recipe asks for bfloat16; what it ran in is a matter of the host."""
    result = edgedeploy.load_study(study).run(
        edgedeploy.RunOptions(out=tmp_path / "out", trials=1, board="here", confirm=False)
    )
    facts = Store(tmp_path / "out").baseline_training()
    assert facts["precision"] == ("bfloat16" if this_host().native_bfloat16 else "float32")
    assert facts["host"] == json.loads(json.dumps(this_host().as_json()))
    page = result.report().read_text()
    assert f"{EPOCHS['baseline']} epochs in {facts['precision']}" in page
