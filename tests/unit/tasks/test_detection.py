"""Detection without code: COCO files, boxes from outputs, mAP as pycocotools has it, detectors in ONNX and torch."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import picture_kit
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from edgedeploy import Grouped, Pictured, ReadyMade, ScoresSplit, Task
from edgedeploy.errors import DataError, MeasurementError, SpecError
from edgedeploy.interfaces.task import SPLITS
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.runtime.pipeline.boxes import suppressed
from edgedeploy.runtime.pipeline.run import Placement, finish, placement_of, prepare
from edgedeploy.runtime.pipeline.steps import Steps
from edgedeploy.study.scores import score
from edgedeploy.tasks.detection.boxes import Layout, rows_of
from edgedeploy.tasks.detection.coco import Box, Found, match, mean_precision
from edgedeploy.tasks.detection.task import Detection, OnnxDetection
from edgedeploy.tasks.load import load_task

NETWORK = """
import torch

class Net(torch.nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.head = torch.nn.Conv2d(3, 4 + classes, 8, stride=8)

    def forward(self, image):
        rows = self.head(image).flatten(2).sigmoid()
        return rows[:, :4].transpose(1, 2), rows[:, 4:].transpose(1, 2)

def make(classes):
    return Net(classes)
"""


def load(root: Path, **options: Any) -> Detection:
    task = load_task({"kind": "detection", "options": {"root": str(root), "resolutions": [32], **options}}, root.parent)
    assert isinstance(task, Detection)
    return task


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detection")
    (folder / "nets.py").write_text(NETWORK)
    return picture_kit.coco_data(folder / "data")


def perfect(task: Detection, case: Any, shift: float = 0.0, score_of: float = 0.9) -> dict[str, Any]:
    """What a detector would have to answer, in pixels of the input of 32 x 32."""
    at = placement_of(Steps(task.input_steps(resolution=32)), *task.image_of(case).shape[1:])
    scale = [at.inside_width / at.width, at.inside_height / at.height] * 2
    boxes, labels = [], []
    for box in task.truth(case):
        left, top, width, height = box.xywh
        ends = np.array([left, top, left + width, top + height]) * scale
        boxes.append(ends + [at.inside_left + shift, at.inside_top] * 2)
        labels.append(task._ids.index(box.category))
    return {
        "boxes": np.array([boxes], np.float32),
        "scores": np.full((1, len(boxes)), score_of, np.float32),
        "labels": np.array([labels], np.int64),
    }


def detections(seed: int, images: int = 25) -> tuple[list[list[Box]], list[list[Found]]]:
    """Objects of three categories, some of them crowds, and answers near and far."""
    rng = np.random.default_rng(seed)
    truth: list[list[Box]] = []
    found: list[list[Found]] = []
    for _ in range(images):
        boxes, answers = [], []
        for _ in range(rng.integers(0, 5)):
            left, top, width, height = (*rng.uniform(0, 60, 2), *rng.uniform(8, 30, 2))
            category = int(rng.choice([2, 5, 9]))
            boxes.append(Box(category, (left, top, width, height), width * height, bool(rng.random() < 0.1)))
            for _ in range(rng.integers(0, 3)):
                moved = (left + rng.normal(0, 3), top + rng.normal(0, 3), width, height)
                answers.append(Found(category, moved, float(rng.random())))
        for _ in range(rng.integers(0, 3)):
            answers.append(Found(int(rng.choice([2, 5, 9])), (*rng.uniform(0, 60, 2), 15.0, 15.0), float(rng.random())))
        truth.append(boxes)
        found.append(answers)
    return truth, found


def of_pycocotools(truth: list[list[Box]], found: list[list[Found]]) -> list[float]:
    """Its own numbers for the whole set, with all its areas and limits."""
    objects = [
        {
            "image_id": n, "category_id": b.category, "bbox": list(b.xywh), "area": b.area, "iscrowd": int(b.crowd)
        }
        for n, boxes in enumerate(truth)
        for b in boxes
    ]  # fmt: skip
    answers = [
        {"image_id": n, "category_id": b.category, "bbox": list(b.xywh), "score": b.score}
        for n, boxes in enumerate(found)
        for b in boxes
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        ground = COCO()
        ground.dataset = {
            "images": [{"id": n} for n in range(len(truth))],
            "annotations": [{"id": n, **row} for n, row in enumerate(objects, start=1)],
            "categories": [{"id": c} for c in (2, 5, 9)],
        }
        ground.createIndex()
        judge = COCOeval(ground, ground.loadRes(answers), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return [float(value) for value in judge.stats]


@pytest.mark.parametrize("seed", range(4))
def test_map_is_that_of_pycocotools(seed: int) -> None:
    truth, found = detections(seed)
    ours = mean_precision([match(t, f, (2, 5, 9)) for t, f in zip(truth, found, strict=True)], (2, 5, 9))
    theirs = of_pycocotools(truth, found)
    assert 0.05 < theirs[0] < 0.9
    assert ours["map"] == pytest.approx(theirs[0], abs=1e-12)
    assert ours["map_50"] == pytest.approx(theirs[1], abs=1e-12)
    assert ours["map_75"] == pytest.approx(theirs[2], abs=1e-12)
    assert ours["recall"] == pytest.approx(theirs[8], abs=1e-12)


def test_an_image_that_was_drawn_twice_counts_twice() -> None:
    truth, found = detections(1, images=10)
    matches = [match(t, f, (2, 5, 9)) for t, f in zip(truth, found, strict=True)]
    chosen = [0, 0, 3, 4, 4, 4, 7, 8]
    ours = mean_precision([matches[place] for place in chosen], (2, 5, 9))["map"]
    theirs = of_pycocotools([truth[place] for place in chosen], [found[place] for place in chosen])[0]
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_no_object_and_no_answer() -> None:
    box = Box(2, (0, 0, 10, 10), 100)
    assert mean_precision([match([], [], (2,))], (2,))["map"] is None
    assert mean_precision([match([box], [], (2,))], (2,))["map"] == 0
    assert match([], [], (2,)).found_half is None
    assert match([box], [], (2,)).found_half == 0
    assert match([box], [Found(2, (0, 0, 10, 9), 0.1)], (2,)).found_half == 1


def test_a_torch_detector_is_scored_and_shown(root: Path) -> None:
    task = load(root, network="nets.py:make")
    for protocol in (Task, ScoresSplit, Grouped, Pictured):
        assert isinstance(task, protocol)
    assert [len(task.cases(split)) for split in SPLITS] == [10, 2, 4, 4]
    boxes, scores = task.build(resolution=32)(torch.zeros(1, 3, 32, 32))
    assert (tuple(boxes.shape), tuple(scores.shape)) == ((1, 16, 4), (1, 16, 2))
    cases = task.cases("train")
    outputs = [perfect(task, case) for case in cases]
    found = score(task, cases, outputs)
    assert found.metrics == {"found_50": 1.0, "map": pytest.approx(1), "map_50": pytest.approx(1),
                             "map_75": pytest.approx(1), "recall": pytest.approx(1)}  # fmt: skip
    assert found.draws["map"].values.shape == (200,)
    away = score(task, cases, [perfect(task, case, shift=12.0) for case in cases])
    assert away.metrics["map_50"] < 0.2
    shown = task.picture(cases[0], None)
    assert shown.shape == (24, 40, 3)
    assert (shown != task.picture(cases[0], outputs[0])).any()


@pytest.mark.parametrize("fit", ["letterbox", "squeeze"])
def test_boxes_come_back_to_the_image(root: Path, fit: str) -> None:
    task = load(root, network="nets.py:make", fit=fit)
    case = task.cases("train")[0]
    answers = task.found(perfect(task, case), case)
    for found, box in zip(answers, task.truth(case), strict=True):
        assert found.category == box.category
        assert found.xywh == pytest.approx(box.xywh, abs=1e-4)


@pytest.mark.parametrize("fit", ["letterbox", "squeeze"])
def test_its_pipeline_is_what_it_is_scored_by(root: Path, fit: str) -> None:
    task = load(root, network="nets.py:make", fit=fit, first_label=0, nms_iou=0.5)
    case = task.cases("train")[0]
    answer = perfect(task, case)
    specs = [TensorSpec(name, "float32", value.shape) for name, value in answer.items()]
    steps = task.pipeline(specs, resolution=32)
    made, placement = prepare(steps, task.frame(case))
    assert np.array_equal(made["image"], task.inputs(case, resolution=32)["image"])
    rows = finish(steps, answer, placement)
    assert rows.shape == (len(task.truth(case)), 6)
    for row, found in zip(rows.tolist(), task.found(answer, case), strict=True):
        assert (row[:2], row[4], row[5]) == (list(found.xywh[:2]), found.score, found.category)


def test_a_letterbox_keeps_the_aspect(root: Path) -> None:
    task = load(root, network="nets.py:make")
    found = task.inputs(task.cases("train")[0], resolution=32)["image"]
    assert found.shape == (1, 3, 32, 32)
    assert found[0, 0, :6] == pytest.approx(114 / 255)
    assert found[0, 0, -7:] == pytest.approx(114 / 255)
    assert found[0, 0, 7:25].std() > 0.1


def test_patients_stay_together(root: Path) -> None:
    task = load(root, network="nets.py:make", group_key="patient")
    sides = [{int(case.id[-7:-4]) // 2 for case in task.cases(split)} for split in SPLITS]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 10


def test_an_onnx_detector_is_taken_as_it_is(root: Path) -> None:
    picture_kit.detector(root.parent / "detector.onnx")
    task = load(root, model="detector.onnx", labels="labels", first_label=1)
    assert isinstance(task, OnnxDetection)
    assert isinstance(task, ReadyMade)
    case = task.cases("train")[0]
    assert list(task.inputs(case)) == ["image"]
    answer = {
        "boxes": np.array([[[4, 6.4, 14, 14]]], np.float32),
        "scores": np.array([[0.8]]),
        "labels": np.array([[1]]),
    }
    (found,) = task.found(answer, case)
    assert found.category == 3
    assert found.xywh == pytest.approx((5.0, 0.505, 12.5, 9.6), abs=0.01)


def test_an_open_shape_is_fixed_by_the_input_that_is_named(root: Path) -> None:
    picture_kit.detector(root.parent / "open.onnx", open_shape=True)
    assert load(root, model="open.onnx", input="image").input_specs()[0].shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "neither is named"),
        ({"model": "detector.onnx", "network": "nets.py:make"}, "both are named"),
        ({"network": "nets.py:make", "box_format": "yxyx"}, "box_format is xyxy or xywh or cxcywh"),
        ({"network": "nets.py:make", "resolutions": [32, 64]}, 'box_unit = "share"'),
        ({"model": "detector.onnx", "boxes": "bxs"}, "the model's outputs are boxes, scores, labels"),
        ({"model": "detector.onnx", "colour": "grey"}, "its inputs are image float32"),
    ],
)
def test_options_that_are_wrong(root: Path, options: dict[str, Any], message: str) -> None:
    picture_kit.detector(root.parent / "detector.onnx")
    with pytest.raises(SpecError, match=message):
        load(root, **options)


# -- what outputs mean


def read(layout: Layout, outputs: dict[str, Any], height: int, width: int) -> Any:
    """The table of a frame that is the input."""
    whole = Placement(height, width, 0, 0, height, width, height, width, 0, 0, height, width)
    return rows_of(layout.steps(list(outputs)), outputs, whole)


def test_the_formats_of_boxes() -> None:
    outputs = {"b": np.array([[[0.5, 0.5, 0.2, 0.4]]]), "s": np.array([[[0.1, 0.7]]])}
    (row,) = read(Layout(box_format="cxcywh", box_unit="share"), outputs, 100, 200)
    assert row.tolist() == pytest.approx([80, 30, 120, 70, 0.7, 1])
    outputs = {"b": np.array([[1, 2, 3, 4]]), "s": np.array([0.9]), "l": np.array([0])}
    assert read(Layout(box_format="xywh"), outputs, 9, 9)[0].tolist() == [1, 2, 4, 6, 0.9, 0]


def test_one_output_of_boxes_and_scores() -> None:
    rows = np.zeros((1, 6, 50))
    rows[0, :, 3] = [16, 16, 8, 4, 0.1, 0.9]
    assert read(Layout(joined="out", box_format="cxcywh"), {"out": rows}, 32, 32).tolist() == [[12, 14, 20, 18, 0.9, 1]]


def test_overlapping_answers_are_suppressed_by_label() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [1, 0, 11, 10], [30, 0, 40, 10]], np.float64)
    rows = np.concatenate([boxes, [[0.9, 0], [0.8, 0], [0.7, 1], [0.6, 0]]], axis=1)
    assert suppressed(rows[::-1], 0.5)[:, 4].tolist() == [0.9, 0.7, 0.6]
    assert suppressed(rows, 0.9)[:, 4].tolist() == [0.9, 0.8, 0.7, 0.6]
    assert len(suppressed(rows, 0.9, 2)) == 2


@pytest.mark.parametrize(
    ("layout", "outputs", "message"),
    [
        (Layout(), {"x": np.zeros((1, 2, 5)), "s": np.zeros((1, 2))}, r"boxes \(2, 5\) and scores"),
        (Layout(), {"x": np.zeros((1, 2, 4)), "s": np.zeros((1, 2))}, "expected an output ''"),
        (Layout(), {"x": np.full((1, 2, 4), np.nan), "s": np.zeros((1, 2, 3))}, "NaN or inf"),
        (Layout(joined="x"), {"x": np.zeros((1, 2, 4))}, "one output of boxes and scores"),
        (Layout(joined="x"), {"x": np.zeros((1, 84, 21))}, r"more boxes N than that, but its shape is \(1, 84, 21\)"),
        (Layout(joined="x"), {"x": np.zeros((2, 84, 99))}, r"its shape is \(2, 84, 99\)"),
        (Layout(), {"x": np.zeros((1, 2, 4)), "s": np.float32(1)}, r"scores \(\)"),
        (Layout(), {"x": np.zeros((1, 1, 4)), "s": np.ones((1, 1)), "l": np.float32(0)}, r"labels \(\)"),
    ],
)
def test_outputs_of_another_form(layout: Layout, outputs: dict[str, Any], message: str) -> None:
    with pytest.raises(MeasurementError, match=message):
        read(layout, outputs, 32, 32)


def test_names_that_no_output_has() -> None:
    for layout, told in ((Layout(boxes="b"), "output 'b'.*there are x"), (Layout(), "output 2: there are x")):
        with pytest.raises(SpecError, match=told):
            layout.steps(["x"])


# -- annotation files


def set_first(**values: Any) -> Any:
    return lambda rows: rows[0].update(values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": set_first(file_name="../../x.png")}, "image 0.*leads out of"),
        ({"images": set_first(file_name="gone.png")}, "image 0: no file at"),
        ({"images": set_first(file_name=None)}, "its file_name is None"),
        ({"images": set_first(id=1)}, "19 different ids for 20 images"),
        ({"annotations": set_first(bbox=[1, 2, 3])}, r"annotation 1: its bbox is \[1, 2, 3\]"),
        ({"annotations": set_first(bbox=[1, 2, -3, 4])}, "annotation 1: its bbox"),
        ({"annotations": set_first(bbox=[1, 10**400, 3, 4])}, "annotation 1: its bbox"),
        ({"images": set_first(width=80, height=48)}, "image 000.png: it says 80 x 48 pixels.*shown at 40 x 24"),
        ({"annotations": set_first(iscrowd="0")}, "annotation 1: its iscrowd is '0'"),
        ({"categories": lambda rows: rows.append(dict(rows[0]))}, "two categories have one id"),
        ({"annotations": set_first(category_id=99)}, "image 0 and category 99"),
        ({"annotations": set_first(image_id="a")}, "its image_id is 'a'"),
    ],
)
def test_entries_that_cannot_be_used_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    picture_kit.coco_data(tmp_path / "data", **changes)
    (tmp_path / "nets.py").write_text(NETWORK)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "data", network="nets.py:make")


def test_boxes_of_an_image_that_exif_turns_are_of_the_upright_one(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(NETWORK)
    for stated, stored in (((24, 40), "turned"), ((40, 24), "as stored")):
        root = picture_kit.coco_data(
            tmp_path / stored, images=set_first(file_name="turned.jpg", width=stated[0], height=stated[1])
        )
        exif = Image.Exif()
        exif[274] = 6
        Image.new("RGB", (40, 24), (9, 9, 9)).save(root / "images" / "turned.jpg", exif=exif)
        if stored == "turned":
            assert load(root, network="nets.py:make").categories
        else:
            with pytest.raises(DataError, match=r"turned\.jpg: it says 40 x 24 pixels, .* shown at 24 x 40"):
                load(root, network="nets.py:make")


@pytest.mark.parametrize("text", ["", "[]", '{"images": {}}', "[" * 100_000])
def test_files_that_are_no_coco(tmp_path: Path, text: str) -> None:
    picture_kit.coco_data(tmp_path / "data")
    (tmp_path / "nets.py").write_text(NETWORK)
    (tmp_path / "data" / "annotations.json").write_text(text)
    with pytest.raises(DataError, match=r"annotations .*annotations.json"):
        load(tmp_path / "data", network="nets.py:make")
