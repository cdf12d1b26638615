"""Where a baseline's weights come from, and when it is trained further for the sake of the comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import made_up
import made_up_report
import numpy as np
import pytest
import torch
from edges_task import Edges, TrainableEdges
from made_up_study import new_store
from PIL import Image
from small_task import SmallTask

from edgedeploy.compress.model import derive
from edgedeploy.compress.oversight import Oversight
from edgedeploy.errors import DataError, SpecError
from edgedeploy.files import write_json
from edgedeploy.interfaces.task import baseline_arch, can_train
from edgedeploy.records.variant import Variant
from edgedeploy.records.weights import BaselineWeights
from edgedeploy.report.page_sections import render_report
from edgedeploy.report.terminal import front_table
from edgedeploy.runtime.files import sha256_file
from edgedeploy.search.space import Space
from edgedeploy.spec.study import load_spec
from edgedeploy.study.baseline import find_baseline, recovered_baseline, require_same_weights
from edgedeploy.study.front import read_front
from edgedeploy.tasks.load import load_task

FILE = BaselineWeights("checkpoint", "unet.pt", "state_dict", "ab" * 32)


class Recovers(Edges):
    """Its baseline comes with weights: it has no recipe for one."""

    recovery_recipe = TrainableEdges.recovery_recipe
    batches = TrainableEdges.batches
    loss = TrainableEdges.loss


class Fits(Edges):
    def fit(self, model: Any, **_: Any) -> None: ...


def space(**parameters: tuple[Any, ...]) -> Space:
    precisions = {"onnxruntime": ("float32", "int8"), "openvino": ("float32", "int8")}
    return Space(("onnxruntime", "openvino"), parameters, {"mix": "wide", "size": 16}, precisions, 2)


@pytest.mark.parametrize(
    ("task", "parameters", "wanted"),
    [
        (TrainableEdges(), {"width": (1.0, 0.5)}, True),
        (TrainableEdges(), {"size": (16, 8)}, True),
        (Recovers(), {"width": (1.0, 0.5)}, True),
        (Fits(), {"width": (0.5,)}, True),
        (
            TrainableEdges(),
            {"precision": ("float32", "int8"), "width": (1.0,), "size": (16,), "threads": (1, 2)},
            False,
        ),
        (Edges(), {"width": (1.0, 0.5)}, False),
    ],
    ids=["pruned", "other inputs", "no recipe for a baseline", "own fit", "nothing is recovered", "no training"],
)
def test_the_baseline_is_trained_further_where_variants_are_recovered(
    task: Any, parameters: dict[str, tuple[Any, ...]], wanted: bool
) -> None:
    found = recovered_baseline(space(**parameters), task)
    assert (found is not None) == wanted
    if found is not None:
        assert found == Variant("onnxruntime", "float32", 1.0, (("mix", "wide"), ("size", 16)), 2, recovered=True)
        assert space(**parameters).params_of(found) is None, "no search proposes it"


def test_a_ready_made_model_is_never_trained_further(tmp_path: Path) -> None:
    assert recovered_baseline(space(width=(1.0, 0.5)), SmallTask(tmp_path)) is None


def test_a_baseline_with_weights_needs_no_recipe_of_its_own() -> None:
    task = Recovers()
    baseline = TrainableEdges().build(size=16, mix="wide").eval()
    told: list[int] = []
    narrow = Variant("onnxruntime", "float32", 0.5, (("mix", "wide"), ("size", 16)), 1)
    derive(task, narrow, baseline, oversight=Oversight(progress=lambda state: told.append(state.epoch)))
    assert told[-1] == 3, "a busy host tells its progress within an epoch too"
    assert not can_train(task)


def test_a_checkpoint_for_a_ready_made_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY.format(more='checkpoint = "unet.pt"'))
    with pytest.raises(SpecError, match=r"task\.checkpoint: the task is a ready-made model, which has its weights"):
        find_baseline(*load_spec(tmp_path / "study.toml"), SmallTask(tmp_path))


@pytest.mark.parametrize(
    "now",
    [
        BaselineWeights("checkpoint", "unet.pt", "state_dict", "cd" * 32),
        BaselineWeights("checkpoint", "unet.pt", "ema", "ab" * 32),
        BaselineWeights("task", sha256="ab" * 32),
        BaselineWeights(),
    ],
)
def test_other_weights_are_another_baseline(now: BaselineWeights, tmp_path: Path) -> None:
    study = {"baseline_weights": FILE.as_json()}
    require_same_weights(study, FILE, tmp_path)
    with pytest.raises(SpecError, match=r"others than when it began: unet.pt \(state_dict\), sha256 abababababab then"):
        require_same_weights(study, now, tmp_path)


def test_a_folder_of_before_trained_its_baseline(tmp_path: Path) -> None:
    require_same_weights({}, BaselineWeights(), tmp_path)
    require_same_weights({}, None, tmp_path)
    with pytest.raises(SpecError, match="trained by this study then"):
        require_same_weights({}, FILE, tmp_path)


@pytest.mark.parametrize("kept", [{"origin": "nowhere"}, {"origin": "task", "colour": "red"}])
def test_a_damaged_origin_is_told(kept: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"baseline_weights in study\.json"):
        require_same_weights({"baseline_weights": kept}, FILE, tmp_path)


STUDY = """\
[study]
name = "weights"
targets = ["onnxruntime"]
[task]
kind = "synthetic-ultrasound"
options = {{ train_cases = 2, calibration_cases = 1, selection_cases = 1, confirmation_cases = 1, depth = 2 }}
{more}
[[boards]]
name = "here"
kind = "local"
[space]
width = [1.0, 0.5]
[[objectives]]
metric = "dice_mean"
[budget]
trials = 2
"""


def test_a_task_without_code_takes_a_checkpoint_too(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(STUDY.format(more='checkpoint = "unet.pt"\ncheckpoint_key = "ema.model"'))
    spec, source = load_spec(path)
    task = load_task(spec.task.model_dump(), tmp_path)
    arch = baseline_arch(task)
    torch.save({"model": {}, "ema": {"model": task.build(**arch).state_dict()}}, tmp_path / "unet.pt")
    found = find_baseline(spec, source, task)
    assert found.weights == BaselineWeights("checkpoint", "unet.pt", "ema.model", sha256_file(tmp_path / "unet.pt"))
    assert found.notes == (f"the baseline is not trained: its weights are {found.weights.text}",)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('checkpoint_key = "ema"', "`checkpoint_key` goes with `checkpoint`"),
        ('checkpoint = ""', r"task\.checkpoint: String should have at least 1 character"),
        ('checkpiont = "unet.pt"', r"task\.checkpiont: unknown key.*Did you mean 'checkpoint'"),
    ],
)
def test_keys_about_weights_that_are_wrong_are_told_by_the_file_alone(more: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY.format(more=more))
    with pytest.raises(SpecError, match=message):
        load_spec(tmp_path / "study.toml")


def test_an_onnx_file_has_its_weights(tmp_path: Path) -> None:
    text = STUDY.format(more='checkpoint = "unet.pt"\nmodel = "unet.onnx"').replace("synthetic-ultrasound", "onnx")
    (tmp_path / "study.toml").write_text(text)
    with pytest.raises(SpecError, match=r"an \.onnx file has its weights"):
        load_spec(tmp_path / "study.toml")


def test_readers_see_where_the_weights_come_from_and_what_more_training_gains(tmp_path: Path) -> None:
    store = new_store(tmp_path / "study", made_up_report.BASELINES)
    further = Variant.from_json({**made_up_report.BASELINES[0].as_json(), "recovered": True})
    for item in (*made_up_report.measurements(), made_up.measurement(further, dice=0.871, latency_ms=6.9, seed=50)):
        store.keep(item)
    write_json(store.study_path, {**store.study(), "baseline_weights": FILE.as_json()})

    front = read_front(store.root)
    row = front.row(further.digest)
    assert row is not None
    assert (row.role, row.baseline) == ("baseline, recovered", False)
    assert row in front.shown
    assert front.reference == made_up_report.BASELINES[0].digest, "what ratios and the pick refer to stays"
    assert front.as_json()["baseline_weights"] == FILE.as_json()
    table = front_table(front)
    assert f"{further.label} (baseline, recovered)" in [cells[1] for cells in table.rows]
    assert f"The baseline was not trained: its weights are {FILE.text}." in table.notes
    page = render_report(made_up_report.report_data(front=front, training={}))
    assert f"{further.label} (baseline, recovered)" in page
    assert "what it gains, training gains" in page
    assert f"not trained: its weights are {FILE.text}" in page


def test_a_front_without_these_says_nothing_of_them(tmp_path: Path) -> None:
    store = new_store(tmp_path / "study", made_up_report.BASELINES)
    for item in made_up_report.measurements():
        store.keep(item)
    front = read_front(store.root)
    assert front.weights is None
    assert not [note for note in front_table(front).notes if "weights" in note]
    assert "baseline, recovered" not in render_report(made_up_report.report_data(front=front))


NETS = """
import torch
def colour(out_channels=3, classes=3):
    return torch.nn.Conv2d(3, out_channels, 3, padding=1)
def grey(): return torch.nn.Conv2d(1, 2, 3, padding=1)
def words(): return Words()
class Words(torch.nn.Module):
    def forward(self, image): return "nerve"
"""


def a_folder_study(root: Path, kind: str, network: str, **options: Any) -> tuple[Any, Any, Any]:
    """A study of pictures with a network of the user's: what it says, its file, its task."""
    rng = np.random.default_rng(0)
    for number in range(16):
        part = root / "data" / "held" if number > 13 else root / "data"
        for folder, pixels in (("images", rng.integers(0, 255, (32, 32))), ("masks", np.eye(32) * (1 + number % 2))):
            (part / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(part / folder / f"{number}.png")
    (root / "nets.py").write_text(NETS)
    table = {"root": "data", "network": f"nets.py:{network}", "resolutions": [32], **options}
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
    text = STUDY.format(more=f"[task.options]\n{lines}").replace("synthetic-ultrasound", kind)
    (root / "study.toml").write_text("\n".join(line for line in text.splitlines() if "options = {" not in line))
    spec, source = load_spec(root / "study.toml")
    return spec, source, load_task(spec.task.model_dump(), root)


SEGMENTATION = {
    "confirmation_images": "held/images",
    "confirmation_masks": "held/masks",
    "selection_cases": 2,
    "calibration_cases": 2,
}
PAIRS = {"inputs": "images", "targets": "images"}


@pytest.mark.parametrize(
    ("kind", "network", "options", "message"),
    [
        (
            "segmentation-folder",
            "colour",
            SEGMENTATION,
            r"study\.toml:\d+: task\.options\.network: the network does not answer the kind's image \(1 x 1 x 32 x 32, 1 "
            r"channel: grey\).*in_channels = 1, which 'segmentation-folder' offers.*colour = \"rgb\"",
        ),
        ("image-to-image", "colour", PAIRS, r'1 channel: grey\).*write colour = "rgb" in \[task\.options\]'),
        ("image-to-image", "grey", {**PAIRS, "colour": "rgb"}, r'3 channels: red, green, blue\).*colour = "grey"'),
        ("segmentation-folder", "grey", SEGMENTATION, r"its shape is \(1, 2, 32, 32\).*out_channels = 3"),
        ("image-to-image", "grey", PAIRS, r"its shape is \(1, 2, 32, 32\).*out_channels = 1"),
        ("segmentation-folder", "words", SEGMENTATION, "Return tensors from forward"),
    ],
)
def test_a_network_that_does_not_fit_is_told_in_the_kinds_words(
    kind: str, network: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    spec, source, task = a_folder_study(tmp_path, kind, network, **options)
    with pytest.raises(SpecError, match=message) as caught:
        find_baseline(spec, source, task)
    assert "input_specs" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_task_of_ones_own_with_weights_that_do_not_fit_its_inputs_is_refused(tmp_path: Path) -> None:
    class Misfits(Recovers):
        trained = True

        def build(self, **arch: Any) -> Any:
            torch.manual_seed(0)
            return torch.nn.Conv2d(5, 2, 3)

    text = STUDY.format(more='object = "edges_task.py:Edges"').replace("synthetic-ultrasound", "python")
    (tmp_path / "study.toml").write_text("\n".join(line for line in text.splitlines() if "options = {" not in line))
    with pytest.raises(SpecError, match=r"input_specs\(\) has to fit the model"):
        find_baseline(*load_spec(tmp_path / "study.toml"), Misfits())
