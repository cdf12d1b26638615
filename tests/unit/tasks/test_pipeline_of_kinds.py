"""Kinds of task say their steps once: what a product runs gives the inputs that a study measured with, and its answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from small_onnx import convolutional

from edgedeploy.errors import SpecError
from edgedeploy.interfaces.task import Piped
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.runtime.pipeline.run import finish, prepare
from edgedeploy.runtime.pipeline.steps import Steps, check_steps
from edgedeploy.tasks.load import load_task

pytestmark = pytest.mark.beside

RNG = np.random.default_rng(0)


def pictures(folder: Path, count: int, size: tuple[int, int], mode: str = "L") -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        shape = (*size, 3) if mode == "RGB" else size
        Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{number}.png")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """40 x 52 images of two classes, in colours, pairs for denoising, masks of one class, and splits for an ONNX file."""
    for name in ("benign", "malignant"):
        pictures(tmp_path / "classes" / name, 10, (40, 52), "RGB")
    for name in ("input", "target"):
        pictures(tmp_path / "pairs" / name, 12, (40, 52))
    for part in ("", "test/"):
        pictures(tmp_path / "masks" / f"{part}images", 14, (40, 52))
        (tmp_path / "masks" / f"{part}masks").mkdir()
        for path in (tmp_path / "masks" / f"{part}images").iterdir():
            mask = (np.asarray(Image.open(path)) > 200).astype(np.uint8)
            Image.fromarray(mask).save(tmp_path / "masks" / f"{part}masks" / path.name)
    for split in ("calibration", "selection", "confirmation"):
        pictures(tmp_path / "onnx" / split, 4, (20, 24), "RGB")
    convolutional(tmp_path / "net.onnx")
    return tmp_path


FIXED = {"intensity": "fixed", "mean": [0.4], "std": [0.2]}
KINDS: Mapping[str, Mapping[str, Any]] = {
    "classification": {"root": "classes", "colour": "rgb", "resolutions": [32]},
    "classification of grey": {"root": "classes", "resolutions": [32], **FIXED},
    "image-to-image": {"root": "pairs", "resolutions": [32]},
    "segmentation-folder": {
        **{
            "root": "masks",
            "classes": {"lesion": 1},
            "resolutions": [64],
            "calibration_cases": 2,
            "selection_cases": 2,
        },
        "near_copy_correlation": 1.0,
    },
    "segmentation-folder of fixed": {
        **{
            "root": "masks",
            "classes": {"lesion": 1},
            "resolutions": [64],
            "calibration_cases": 2,
            "selection_cases": 2,
        },
        **{"near_copy_correlation": 1.0, "colour": "rgb", **FIXED},
    },
}


def task_of(kind: str, folder: Path) -> Any:
    return load_task({"kind": kind.partition(" of ")[0], "options": dict(KINDS[kind])}, folder)


@pytest.mark.parametrize("kind", KINDS)
def test_the_steps_give_the_inputs_of_the_study_to_the_bit(kind: str, folders: Path) -> None:
    task = task_of(kind, folders)
    assert isinstance(task, Piped)
    arch = {name: values[0] for name, values in task.architecture.items()}
    channels = {"classification": 2, "image-to-image": 1}.get(kind.partition(" of ")[0], 2)
    shape = (1, 2) if kind.startswith("classification") else (1, channels, 32, 32)
    steps = task.pipeline((TensorSpec("y", "float32", shape),), **arch)
    check_steps(steps)
    for case in task.cases("selection")[:2]:
        frame = task.frame(case)
        assert frame.dtype == np.uint8 and frame.shape[:2] == (40, 52)
        found, _ = prepare(steps, frame)
        wanted = task.inputs(case, **arch)["image"]
        assert found["image"].shape == task.input_specs(**arch)[0].shape
        assert np.array_equal(found["image"], wanted)


def test_a_product_prepares_images_as_training_does(folders: Path) -> None:
    """Training resizes and normalises batches by code of its own; the difference is rounding."""
    task = task_of("classification", folders)
    case = task.cases("selection")[0]
    trained = task.normalise(task.resize(task.image_of(case), 32, 32))
    assert np.allclose(trained, task.inputs(case, resolution=32)["image"][0], atol=2e-5)


def test_answers_are_those_of_the_study(folders: Path) -> None:
    task = task_of("segmentation-folder", folders)
    case = task.cases("selection")[0]
    arch = {name: values[0] for name, values in task.architecture.items()}
    for channels in (1, 2):
        steps = task.pipeline((TensorSpec("y", "float32", (1, channels, 64, 64)),), **arch)
        outputs = {"y": RNG.standard_normal((1, channels, 64, 64)).astype(np.float32)}
        result = finish(steps, outputs, prepare(steps, task.frame(case))[1])
        assert result.shape == (40, 52) and result.dtype == np.uint8
        assert np.array_equal(result, task.answer(outputs, (40, 52)))
        full = F.interpolate(torch.from_numpy(outputs["y"]), size=(40, 52), mode="bilinear", align_corners=False)[0]
        by_torch = (full.argmax(0) if channels == 2 else full[0] > 0).numpy()
        assert np.mean(result != by_torch) < 0.002  # torch places pixels in single precision


def test_chances_are_those_of_the_study(folders: Path) -> None:
    options = {**KINDS["classification"], "positive": "benign"}
    task: Any = load_task({"kind": "classification", "options": options}, folders)
    for logits in (np.array([[1.5]], np.float32), np.array([[0.5, 1.5]], np.float32)):
        steps = task.pipeline((TensorSpec("y", "float32", logits.shape),), resolution=32)
        assert np.allclose(finish(steps, {"y": logits}, None), task.chances({"y": logits}), atol=1e-6)
    assert np.isclose(task.chances({"y": np.array([[1.5]])})[task.classes.index("benign")], 1 / (1 + np.exp(-1.5)))
    with pytest.raises(SpecError, match="5 columns"):
        task.pipeline((TensorSpec("y", "float32", (1, 5)),), resolution=32)


@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_an_onnx_file_has_the_preprocessing_of_its_study(colour: str, folders: Path) -> None:
    images = {"colour": colour, "mean": [100.0, 110.0, 120.0], "std": [50.0]}
    splits = {split: f"onnx/{split}" for split in ("calibration", "selection", "confirmation")}
    task: Any = load_task(
        {"kind": "onnx", "model": "net.onnx", "options": {**splits, "preprocessing": images}}, folders
    )
    steps = task.pipeline(task.taken.outputs)
    assert steps.output == ()
    case = task.cases("selection")[0]
    found, _ = prepare(steps, task.frame(case))
    assert np.array_equal(found["image"], task.inputs(case)["image"])
    small = np.asarray(Image.fromarray(task.frame(case)).resize((16, 16), Image.Resampling.BILINEAR), np.float32)
    small = small[..., ::-1] if colour == "bgr" else small
    wanted = ((small - np.array([100, 110, 120], np.float32)) / np.float32(50)).transpose(2, 0, 1)
    assert np.allclose(found["image"][0], wanted, atol=1e-6)
    shared: Any = load_task(
        {"kind": "onnx", "model": "net.onnx", "options": {"data": "onnx/selection", "preprocessing": images}}, folders
    )
    first = shared.cases("selection")[0]
    assert np.array_equal(prepare(steps, shared.frame(first))[0]["image"], shared.inputs(first)["image"])


def test_arrays_have_no_steps(folders: Path) -> None:
    np.savez(folders / "a.npz", image=RNG.standard_normal((8, 1, 3, 16, 16)).astype(np.float32))
    task: Any = load_task({"kind": "onnx", "model": "net.onnx", "options": {"data": "a.npz"}}, folders)
    assert task.pipeline(task.taken.outputs) == Steps()
