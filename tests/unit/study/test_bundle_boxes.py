"""A detector's bundle: boxes in pixels of the frame, the ones that the study scored; golden tables of boxes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import bundle_kit
import numpy as np
import picture_kit
import pytest

from edgedeploy.interfaces.task import Task
from edgedeploy.records.variant import Variant
from edgedeploy.runtime import load
from edgedeploy.runtime.bundle import golden
from edgedeploy.runtime.bundle import manifest as m
from edgedeploy.runtime.faults import BundleError
from edgedeploy.runtime.pipeline.boxes import share_alone
from edgedeploy.runtime.pipeline.run import FrameError, finish, placement_of, prepare
from edgedeploy.runtime.pipeline.steps import (
    AtLeast,
    Best,
    Categories,
    Detections,
    Letterbox,
    Resize,
    RestoreBoxes,
    Rgb,
    ShiftDown,
    Steps,
    Suppress,
    Take,
    ToTensor,
    Window,
    check_steps,
    read_steps,
)
from edgedeploy.study.bundle.golden import synthetic_frame
from edgedeploy.study.bundle.make import make_bundle
from edgedeploy.tasks.load import load_task

pytestmark = pytest.mark.beside

FLOAT = Variant("onnxruntime", "float32", 1.0, (("resolution", 32),), 1)
NETWORK = """
import torch


class Net(torch.nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU())
        self.head = torch.nn.Conv2d(8, 4 + classes, 8, stride=8)

    def forward(self, image):
        rows = self.head(self.body(image)).flatten(2).sigmoid()
        return rows[:, :4].transpose(1, 2), rows[:, 4:].transpose(1, 2)


def make_network(classes):
    return Net(classes)
"""
STUDY = """\
[study]
name = "a detector"
targets = ["onnxruntime"]
[task]
kind = "detection"
[task.options]
root = "data"
network = "nets.py:make_network"
resolutions = [32]
box_format = "cxcywh"
box_unit = "share"
nms_iou = 0.5
[[boards]]
name = "cart"
kind = "local"
[space]
precision = ["float32", "int8"]
[[objectives]]
metric = "map"
[[objectives]]
metric = "latency_ratio"
[budget]
trials = 2
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("boxes") / "study"
    place.mkdir()
    picture_kit.coco_data(place / "data")
    (place / "nets.py").write_text(NETWORK)
    variants = ((FLOAT, 6.0), (replace(FLOAT, precision="int8"), 2.0))
    bundle_kit.made_up_study(place, STUDY, "", variants)
    return place


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    return make_bundle(folder / "runs", replace(FLOAT, precision="int8").digest, folder / "bundle").folder


def test_a_detectors_bundle_gives_the_boxes_that_its_study_scores(folder: Path, bundle: Path) -> None:
    model = load(bundle, trust=None)
    assert model.proof.share_differing == 0.0
    task: Any = load_task({"kind": "detection", "options": {**_options(), "root": str(folder / "data")}}, folder)
    assert isinstance(task, Task)
    for case in task.cases("selection"):
        rows = model(task.frame(case))
        found = task.found(model.run(task.inputs(case, resolution=32)), case)
        assert len(rows) == len(found) > 0 and set(rows[:, 5]) <= set(task.categories)
        assert rows[:, 4].tolist() == [each.score for each in found]
        height, width = task.frame(case).shape[:2]
        assert (rows[:, :4] >= 0).all() and (rows[:, [0, 2]] <= width).all() and (rows[:, [1, 3]] <= height).all()


def _options() -> dict[str, Any]:
    import tomllib

    options: dict[str, Any] = tomllib.loads(STUDY)["task"]["options"]
    return options


def test_golden_boxes_that_moved_are_a_wrong_answer(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels that are right, and a step that is not: each box is shifted by a tenth of the frame."""
    from edgedeploy.runtime.pipeline import run

    def shifted(step: RestoreBoxes, rows: Any, at: run.Placement) -> Any:
        return rows + np.array([at.frame_width / 10, 0, at.frame_width / 10, 0, 0, 0])

    monkeypatch.setitem(run._ON_BOXES, RestoreBoxes, shifted)
    with pytest.raises(BundleError, match=r"wrong_answer: .* of the result differ"):
        load(bundle, trust=None)


ROWS = np.array([[0, 0, 10, 10, 0.9, 1], [20, 0, 30, 10, 0.8, 2], [0, 20, 10, 30, 0.7, 1.0]])


@pytest.mark.parametrize(
    ("change", "share"),
    [
        (lambda rows: rows, 0.0),
        (lambda rows: rows[::-1], 0.0),
        (lambda rows: rows + np.array([0.1, 0, 0.1, 0, 0.0005, 0]), 0.0),
        (lambda rows: rows[:2], 0.2),
        (lambda rows: rows + np.array([0, 0, 0, 0, 0.01, 0]), 1.0),
        (lambda rows: rows + np.array([0, 0, 0, 0, 0, 5]), 1.0),
        (lambda rows: rows[:0], 1.0),
    ],
)
def test_boxes_are_held_against_each_other_one_by_one(change: Callable[[Any], Any], share: float) -> None:
    assert share_alone(change(ROWS), ROWS, 0.001) == pytest.approx(share)


def test_a_golden_result_that_is_no_table_is_refused() -> None:
    case = m.GoldenCase("c0", None, {}, {}, "golden/c0.result.npy")
    held = m.Golden((case,), {"out": m.Tolerance(1e-3, None)}, m.ResultTolerance(0.1))
    for found in (np.zeros((3, 5)), np.zeros(6), np.zeros((3, 6), np.uint8), None):
        with pytest.raises(BundleError, match="no table of boxes"):
            golden._check_boxes(case, found, ROWS, held)


# -- steps

BOXES = Detections("b", "s", "", "", "xyxy", "pixel")
TENSOR = ToTensor("image", "NCHW", "float32")


def test_a_letterbox_and_the_way_back() -> None:
    steps = Steps((Rgb(), Letterbox(64, 96, "area", 114.0), TENSOR), (BOXES, AtLeast(0.5), Best(2), RestoreBoxes()))
    check_steps(steps)
    assert read_steps(**{f"{key}_steps": value for key, value in steps.as_json().items()}) == steps
    frame = np.full((40, 120), 200, np.uint8)
    made, placement = prepare(steps, frame)
    image = made["image"][0, 0]
    assert (image[:16] == 114).all() and (image[16:48] == 200).all() and (image[48:] == 114).all()
    outputs = {
        "b": np.array([[[0, 16, 96, 48], [8, 20, 16, 28], [0, 0, 9, 9]]]),
        "s": np.array([[[0.6], [0.9], [0.1]]]),
    }
    rows = finish(steps, outputs, placement)
    assert rows.tolist() == [[10, 5, 20, 15, 0.9, 0], [0, 0, 120, 40, 0.6, 0]]


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (Steps((TENSOR,), (Take("a"), Best(3))), "'best' stands after 'detections' alone"),
        (Steps((), (BOXES,)), "'detections' needs steps for the input"),
        (Steps((Letterbox(8, 8, "area", 0.0), Resize(4, 4, "area"), TENSOR)), "the only step that sizes"),
        (Steps((Letterbox(8, 0, "area", 0.0), TENSOR)), "sides are"),
        (Steps((TENSOR,), (Detections("", "", "", "", "xyxy", "pixel"),)), "'joined', or boxes and scores"),
        (Steps((TENSOR,), (Detections("b", "s", "", "", "yx", "pixel"),)), "form is one of"),
        (Steps((TENSOR,), (BOXES, Suppress(0.0, 5))), "overlap is above 0"),
        (Steps((TENSOR,), (BOXES, Suppress(0.5, 0))), "count is 1 to"),
        (Steps((TENSOR,), (BOXES, Categories((1, 1), (2, 3)))), "each with its id"),
        (Steps((Window(5, 5), TENSOR)), "low is below high"),
        (Steps((ShiftDown(4), TENSOR)), "before the only 'window'"),
        (Steps((Rgb(), Window(0, 4095), TENSOR)), "of the frame's own values"),
        (Steps((ShiftDown(16), Window(0, 1), TENSOR)), "bits are 1 to 15"),
    ],
)
def test_steps_that_cannot_be(steps: Steps, said: str) -> None:
    with pytest.raises(BundleError, match=said):
        check_steps(steps)


def test_frames_of_12_bits_are_brought_to_black_and_white() -> None:
    steps = Steps((ShiftDown(4), Window(100, 3100), TENSOR))
    check_steps(steps)
    values = np.array([[0, 100, 1600, 3100, 4095]], np.uint16)
    image = prepare(steps, values << 4)[0]["image"][0, 0, 0]
    assert image.tolist() == pytest.approx([0, 0, 127.5, 255, 255])
    hounsfield = Steps((Window(-160, 240), TENSOR))
    assert prepare(hounsfield, np.array([[-160, 40]], np.int16))[0]["image"].ravel().tolist() == [0, 127.5]
    for refused in (np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.float32)):
        with pytest.raises(FrameError, match="uint16 or int16, as its source gives it"):
            prepare(steps, refused)
    with pytest.raises(FrameError, match="uint16 here, but got int16"):
        prepare(steps, np.zeros((2, 2), np.int16))
    with pytest.raises(FrameError, match="uint8 or float32"):
        prepare(Steps((TENSOR,)), values)
    made = synthetic_frame(values, 1, steps)
    assert made.dtype == np.uint16 and (made & 15 == 0).all()
    assert (made >> 4).min() >= 100 and (made >> 4).max() <= 3100
    assert placement_of(steps, 1, 5).input_width == 5


def test_a_box_without_an_area_is_like_itself() -> None:
    rows = np.array([[5, 5, 5, 5, 0.9, 1], [9, 9, 2, 2, 0.8, 1]], np.float64)
    assert share_alone(rows, rows, 0.0) == 0.0
    assert share_alone(rows + np.array([0, 0, 1, 0, 0, 0]), rows, 0.0) == 1.0
