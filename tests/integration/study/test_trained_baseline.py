"""Studies of models that are trained already: the user's weights are the baseline, and training is optional."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from board_kit import squares_study
from typer.testing import CliRunner

import edgedeploy
from edgedeploy.cli.app import app
from edgedeploy.compress.model import train_baseline
from edgedeploy.errors import SpecError
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.weights import BaselineWeights
from edgedeploy.study.store import Store
from edgedeploy.tasks.load import load_task

pytestmark = pytest.mark.beside

CHANGES = (
    ("kernel = [3, 5]\n", ""),
    ('targets = ["onnxruntime", "openvino"]', 'targets = ["onnxruntime"]'),
    ('precision = ["float32", "int8"]', 'precision = ["float32"]'),
    ("trials = 6", "trials = 2"),
    ("recovered_baseline = false", "recovered_baseline = true"),
    ("queries = 64", "queries = 16"),
    ("cold_starts = 1", "cold_starts = 0"),
)
CHECKPOINT = ("options = { count = 32 }", 'options = { count = 32 }\ncheckpoint = "weights/squares.ckpt"')


def trained(folder: Path) -> Any:
    """A user's own training of the example's network, longer than the example's."""
    task: Any = load_task({"kind": "python", "object": "squares.py:make_task"}, folder)
    with torch.random.fork_rng(devices=[]):
        return task, train_baseline(task, {"kernel": 3})


def keep(model: Any, folder: Path) -> Path:
    path = folder / "weights" / "squares.ckpt"
    path.parent.mkdir(exist_ok=True)
    torch.save({"epoch": 3, "state_dict": {f"module.{n}": t for n, t in model.state_dict().items()}}, path)
    return path


def correct(task: Any, model: Any) -> float:
    """The model's accuracy on the selection split, as torch computes it."""
    found = []
    with torch.inference_mode():
        for case in task.cases("selection"):
            scores = model(torch.from_numpy(task.inputs(case)["image"])).numpy()
            found.append(task.evaluate({"scores": scores}, case)["correct"])
    return float(np.mean(found))


def run(study: Path, out: Path, **options: Any) -> tuple[Any, list[Any]]:
    events: list[Any] = []
    told = edgedeploy.RunOptions(out=out, board="here", **options)
    return edgedeploy.load_study(study).run(told, observer=events.append), events


def rows(out: Path) -> dict[str, Measurement]:
    return {item.variant.label.rpartition(" t")[0]: item for item in Store(out).measurements()}


def test_a_checkpoint_is_the_baseline_and_more_training_stands_beside_it(tmp_path: Path) -> None:
    study, out = squares_study(tmp_path, *CHANGES, CHECKPOINT), tmp_path / "out"
    task, model = trained(tmp_path)
    path = keep(model, tmp_path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()

    result, events = run(study, out)
    assert (result.reason, result.evaluated) == ("trials", 2), "the row beside the search is none of its trials"
    said = [event.text for event in events]
    assert f"the baseline is not trained: its weights are squares.ckpt (state_dict), sha256 {sha256[:12]}" in said
    assert not [text for text in said if text.startswith("training baseline")]
    found = rows(out)
    assert found.keys() == {
        "onnxruntime float32 w1 kernel=3",
        "onnxruntime float32 w0.5 kernel=3",
        "onnxruntime float32 recovered w1 kernel=3",
    }
    assert found["onnxruntime float32 w1 kernel=3"].metrics["correct"] == correct(task, model)
    kept = torch.load(out / "baseline" / "weights.pt", weights_only=True)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())

    further = found["onnxruntime float32 recovered w1 kernel=3"]
    assert [text.split(":")[0] for text in said if "epoch 1 of 1" in text] == [
        "training width 0.5 kernel=3",
        "training width 1 kernel=3 (baseline, recovered)",
    ]
    assert further.digest in {item.digest for item in Store(out).confirmations()}
    front = json.loads(CliRunner().invoke(app, ["front", str(out), "--json"]).stdout)
    assert front["baseline_weights"] == {
        "origin": "checkpoint",
        "file": "squares.ckpt",
        "key": "state_dict",
        "sha256": sha256,
    }
    assert front["reference"] == found["onnxruntime float32 w1 kernel=3"].digest
    assert {row["digest"]: row["baseline"] for row in front["rows"]}[further.digest] is False
    printed = CliRunner().invoke(app, ["front", str(out)]).stdout
    variants = " ".join(line.split("│")[2].strip() for line in printed.splitlines() if line.startswith("│"))
    assert "w1 kernel=3 t2 (baseline, recovered)" in variants
    table = " ".join(printed.split())
    assert f"its weights are squares.ckpt (state_dict), sha256 {sha256[:12]}" in table
    page = result.report().read_text(encoding="utf-8")
    assert "(baseline, recovered)" in page
    assert f"not trained: its weights are squares.ckpt (state_dict), sha256 {sha256[:12]}" in page

    _, again = run(study, out, resume=True)
    assert not [event for event in again if "epoch" in event.text or event.kind == "trial"]

    with torch.no_grad():
        model[0].bias += 1
    keep(model, tmp_path)
    with pytest.raises(SpecError, match="weights of its baseline are others than when it began") as caught:
        run(study, out, resume=True)
    assert sha256[:12] in caught.value.found


UNTRAINED = (
    ("    baseline_recipe =", "    #"),
    ("    recovery_recipe =", "    #"),
    ("    def batches(", "    def _unused("),
)


def without_training(folder: Path, *more: tuple[str, str]) -> None:
    path = folder / "squares.py"
    text = path.read_text()
    for old, new in (*UNTRAINED, *more):
        assert text.count(old) == 1
        text = text.replace(old, new)
    path.write_text(text)


TRAINED = (
    (
        '    name = "squares"\n',
        '    name = "squares"\n    trained = True\n',
    ),
    ("            return nn.Sequential(", "            return loaded("),
)


def test_a_task_that_builds_trained_weights_needs_no_training(tmp_path: Path) -> None:
    """One-shot pruning, and a module beside the task's file that loads the weights."""
    study, out = squares_study(tmp_path, *CHANGES), tmp_path / "out"
    task, model = trained(tmp_path)
    keep(model, tmp_path)
    without_training(tmp_path, *TRAINED, ("import torch\n", "import torch\nfrom weights_of_mine import loaded\n"))
    (tmp_path / "weights_of_mine.py").write_text(
        "from pathlib import Path\nimport torch\nfrom torch import nn\n\n"
        "def loaded(*layers):\n"
        "    model = nn.Sequential(*layers)\n"
        '    path = Path(__file__).with_name("weights") / "squares.ckpt"\n'
        '    state = torch.load(path, weights_only=True)["state_dict"]\n'
        '    model.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})\n'
        "    return model\n"
    )
    result, events = run(study, out, confirm=False)
    said = [event.text for event in events]
    assert result.evaluated == 2
    assert not [text for text in said if "epoch" in text]
    assert any(
        text.startswith("the baseline is not trained: its weights are the weights that the task builds")
        for text in said
    )
    assert "pruned variants keep the weights that are left: the task has no training that recovers them" in said
    found = rows(out)
    assert found.keys() == {"onnxruntime float32 w1 kernel=3", "onnxruntime float32 w0.5 kernel=3"}, (
        "nothing is recovered"
    )
    assert found["onnxruntime float32 w1 kernel=3"].metrics["correct"] == correct(task, model)
    assert json.loads((out / "study.json").read_text())["baseline_weights"]["origin"] == "task"
    assert "not trained: its weights are the weights that the task builds" in result.report().read_text(
        encoding="utf-8"
    )


FIT = """    def fit(self, model, *, arch, purpose, teacher, out_of_time, progress):
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
        epochs = 3 if purpose == "baseline" else 1
        for epoch in range(epochs):
            for images, truth in self._unused(epoch, 8):
                loss = self.loss(model(images), truth)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            progress(epoch + 1, epochs, float(loss))

    def evaluate("""


def test_a_fit_of_the_users_own_trains_and_the_comparison_can_be_asked_for_later(tmp_path: Path) -> None:
    study, out = squares_study(tmp_path, *CHANGES), tmp_path / "out"
    without_training(tmp_path, ("    def evaluate(", FIT))
    text = study.read_text()
    study.write_text(text.replace("recovered_baseline = true", "recovered_baseline = false"))
    result, events = run(study, out, confirm=False)
    trained_here = [event.text.split(", loss")[0] for event in events if "epoch" in event.text]
    assert trained_here == [
        *(f"training baseline: epoch {n} of 3" for n in (1, 2, 3)),
        "training width 0.5 kernel=3: epoch 1 of 1",
    ]
    assert len(rows(out)) == 2
    assert result.front.weights == BaselineWeights("training")
    assert "3 epochs by the task&#39;s own fit" in result.report().read_text(encoding="utf-8")

    study.write_text(text)
    result, events = run(study, out, confirm=False, resume=True)
    assert [event.text.split(", loss")[0] for event in events if "epoch" in event.text] == [
        "training width 1 kernel=3 (baseline, recovered): epoch 1 of 1"
    ]
    assert [(event.done, event.total) for event in events if event.kind == "trial"] == [(2, 2)]
    assert rows(out).keys() - {"onnxruntime float32 w1 kernel=3", "onnxruntime float32 w0.5 kernel=3"} == {
        "onnxruntime float32 recovered w1 kernel=3"
    }

    kept = json.loads((out / "study.json").read_text())
    begun = {name: value for name, value in kept.items() if name not in ("recovered_baseline", "baseline_weights")}
    (out / "study.json").write_text(json.dumps(begun))
    for path in (out / "measurements").glob("*.json"):
        if "recovered" in json.loads(path.read_text())["variant"]:
            path.unlink()
    run(study, out, confirm=False, resume=True)
    assert len(rows(out)) == 2, "a folder of before goes on as it was"


def test_several_boards_measure_it_once_also_where_it_is_all_that_is_missing(tmp_path: Path) -> None:
    second = f'kind = "local"\n\n[[boards]]\nname = "second"\nkind = "local"\nroot = "{tmp_path}/second"'
    study, out = squares_study(tmp_path, *CHANGES, ('kind = "local"', second)), tmp_path / "out"
    boards = edgedeploy.RunOptions(out=out, boards=("here", "second"), confirm=False)
    edgedeploy.load_study(study).run(boards)
    further = [path for path in (out / "measurements").glob("*.json") if '"recovered": true' in path.read_text()]
    assert len(further) == 1
    assert len(rows(out)) == 3
    further[0].unlink()
    events: list[Any] = []
    edgedeploy.load_study(study).run(replace(boards, resume=True), observer=events.append)
    assert further[0].is_file()
    assert ["(baseline, recovered)" in event.text for event in events if event.kind == "trial"] == [True]


# -- refused before anything starts


def test_without_weights_and_training_the_three_ways_are_told(tmp_path: Path) -> None:
    study = squares_study(tmp_path, *CHANGES)
    without_training(tmp_path)
    with pytest.raises(SpecError, match=r"study\.toml:\d+: task: nothing gives them") as caught:
        edgedeploy.load_study(study).check("here")
    for way in ("checkpoint =", "trained = True", "batches, loss"):
        assert way in caught.value.remedy
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, r"checkpoint squares\.ckpt: no file at"),
        (lambda path: torch.save({"state_dict": {"0.weight": torch.zeros(1)}}, path), "0 of the model's 6 tensors fit"),
        (lambda path: torch.save(torch.nn.Linear(1, 1), path), "runs code"),
    ],
)
def test_a_checkpoint_that_is_of_no_use_is_told_before_anything_starts(
    write: Any, message: str, tmp_path: Path
) -> None:
    study = squares_study(tmp_path, *CHANGES, CHECKPOINT)
    (tmp_path / "weights").mkdir()
    write(tmp_path / "weights" / "squares.ckpt")
    with pytest.raises(edgedeploy.EdgeDeployError, match=message):
        edgedeploy.load_study(study).check("here")


def test_weights_that_change_with_each_build_are_no_trained_ones(tmp_path: Path) -> None:
    study = squares_study(tmp_path, *CHANGES)
    without_training(tmp_path, TRAINED[0], ("            torch.manual_seed(0)\n", ""))
    path = tmp_path / "squares.py"
    path.write_text(
        path.read_text().replace("torch.random.fork_rng(devices=[])", "torch.random.fork_rng(enabled=False)")
    )
    with pytest.raises(SpecError, match=r"build\(\) gives other weights each time"):
        edgedeploy.load_study(study).check("here")


def test_qat_without_training_members_is_told_before_anything_starts(tmp_path: Path) -> None:
    study = squares_study(
        tmp_path,
        *(change for change in CHANGES if "precision" not in change[0]),
        CHECKPOINT,
        ("width = [1.0, 0.5]", 'width = [1.0, 0.5]\ntraining = ["ptq", "qat"]'),
    )
    _, model = trained(tmp_path)
    keep(model, tmp_path)
    without_training(tmp_path)
    with pytest.raises(SpecError, match=r"space\.training: \"qat\" trains the model.*batches, loss"):
        edgedeploy.load_study(study).check("here")
    study.write_text(study.read_text().replace('training = ["ptq", "qat"]', 'allocation = ["uniform", "bytes"]'))
    with pytest.raises(SpecError, match=r"space\.allocation: layers are weighed by the loss.*batches, loss"):
        edgedeploy.load_study(study).check("here")


def test_a_task_that_lacks_one_member_of_training_is_told_so(tmp_path: Path) -> None:
    study = squares_study(tmp_path, *CHANGES, CHECKPOINT)
    _, model = trained(tmp_path)
    keep(model, tmp_path)
    path = tmp_path / "squares.py"
    path.write_text(path.read_text().replace("    recovery_recipe =", "    second_recipe ="))
    from edgedeploy.study.baseline import find_baseline

    loaded = edgedeploy.load_study(study)
    task = load_task(loaded.spec.task.model_dump(), tmp_path)
    notes = find_baseline(loaded.spec, loaded._source, task).notes
    assert "task 'squares' counts as one without training: it lacks recovery_recipe" in notes
