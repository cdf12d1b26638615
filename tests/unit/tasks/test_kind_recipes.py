"""The study files that ship for kinds without code hold with data as they describe it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import ct_kit
import picture_kit
import pytest

from edgedeploy.interfaces.scores import metrics_of
from edgedeploy.spec.study import parse_spec
from edgedeploy.tasks.load import KINDS, load_task

KNOWN_TARGETS = {"onnxruntime": ("float32", "int8", "int8-dynamic"), "openvino": ("float32", "int8")}


def classification(folder: Path) -> None:
    picture_kit.two_classes(folder / "data", cases=10)


def pairs(folder: Path) -> None:
    picture_kit.noisy_pairs(folder / "data", 10)


def low_and_normal_dose(folder: Path) -> None:
    ct_kit.hu_pairs(folder / "data", 10, side=128)


def detection(folder: Path) -> None:
    picture_kit.coco_data(folder / "data", 10)
    picture_kit.detector(folder / "detector.onnx")


def volumes(folder: Path) -> None:
    for number in range(8):
        picture_kit.volume(folder / "data", f"v{number}", number)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("classification", classification),
        ("image-to-image", pairs),
        ("low-dose-ct", low_and_normal_dose),
        ("detection", detection),
        ("volumes", volumes),
        ("promptable", lambda folder: None),
        ("multi-modal", lambda folder: None),
    ],
)
def test_a_recipe_holds_with_its_data(name: str, make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path)
    text = files("edgedeploy.study.recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    text = text.replace("# root =", "root =")  # low-dose CT makes its data where no folder is named
    spec, source = parse_spec(text, tmp_path / f"{name}.toml")
    assert spec.task.kind == name
    assert spec.evidence.margin is not None and spec.evidence.lost_case is not None
    task = load_task(spec.task.model_dump(), tmp_path)
    metrics = metrics_of(task)
    spec.check(source, architecture=task.architecture, task_metrics=metrics, known_targets=KNOWN_TARGETS)


def test_a_kind_is_one_row() -> None:
    assert {
        "classification",
        "segmentation-folder",
        "image-to-image",
        "low-dose-ct",
        "detection",
        "volumes",
        "promptable",
        "multi-modal",
    } <= set(KINDS)
