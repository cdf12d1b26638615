"""Volumes without code: NIfTI files, one orientation and spacing, cuts that come back to their place, Dice."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import picture_kit
import pytest
import torch

from edgedeploy import Grouped, Pictured, Task, Trainable, TrainRecipe
from edgedeploy.compress.training import fit
from edgedeploy.errors import DataError, SpecError
from edgedeploy.interfaces.task import SPLITS
from edgedeploy.runtime.dicom import open_series
from edgedeploy.tasks.load import load_task
from edgedeploy.tasks.volumes import Volumes, placed

SMALL = {"size": [16, 16, 16], "base_channels": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("volumes")
    for number in range(12):
        picture_kit.volume(folder, f"v{number:02d}", number)
    return folder


def load(root: Path, **options: Any) -> Volumes:
    task = load_task({"kind": "volumes", "options": {"root": str(root), **SMALL, **options}}, root.parent)
    assert isinstance(task, Volumes)
    return task


def logits_of(labels: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {"out0": np.stack([labels == 0, labels == 1])[None].astype(np.float32)}


def test_volumes_train_score_and_show(root: Path) -> None:
    task = load(root)
    for protocol in (Task, Trainable, Grouped, Pictured):
        assert isinstance(task, protocol)
    assert [len(task.cases(split)) for split in SPLITS] == [7, 1, 2, 2]
    model = task.build()
    fit(model, task, TrainRecipe(epochs=1, batch_size=4, learning_rate=1e-3), arch={})
    case = task.cases("selection")[0]
    with torch.no_grad():
        outputs = {"out0": model(torch.from_numpy(task.inputs(case)["volume"])).numpy()}
    assert outputs["out0"].shape == (1, 2, 16, 16, 16)
    found = task.evaluate(outputs, case)
    assert set(found) == set(task.metrics) == {"dice_mean", "dice_structure", "nsd_structure", "hd95_structure_mm"}
    assert task.picture(case, None).shape == (18, 20, 3)
    truth = placed(task.load(case)[1], (16, 16, 16))
    assert (task.picture(case, logits_of(truth)) == task.picture(case, None)).all()


def test_a_cut_answer_comes_back_to_its_place(root: Path) -> None:
    task = load(root)
    case = task.cases("selection")[0]
    volume, truth = task.load(case)
    assert truth.shape == (20, 18, 12)
    kept = placed(truth, (16, 16, 16))
    lost = int(truth.sum()) - int(kept.sum())
    found = task.evaluate(logits_of(kept), case)
    assert found["dice_structure"] == pytest.approx(2 * kept.sum() / (2 * kept.sum() + lost))
    seen = task.inputs(case)["volume"][0, 0]
    assert seen[:, :, 2:14] == pytest.approx(volume[2:18, 1:17])
    assert not seen[:, :, :2].any()


def test_squeezed_labels_lie_where_the_squeezed_volume_does(tmp_path: Path) -> None:
    box = np.zeros((48, 48, 48), np.uint8)
    box[10:38, 10:38, 10:38] = 1
    for number in range(12):
        seen = 100 * box
        seen[0, 0, 0] = number  # equal images would be one group
        picture_kit.volume(tmp_path, f"v{number:02d}", number, values=seen, label=box)
    task = load(tmp_path, window=[0.0, 100.0], fit="squeeze", flip=False)
    volumes, labels = next(task.batches(0, 2))
    middle = np.argwhere(labels[0, 0].numpy()).mean(axis=0)
    assert middle == pytest.approx([7.5, 7.5, 7.5])
    bright = volumes[0, 0].numpy() > volumes[0, 0].numpy().max() / 2
    assert middle == pytest.approx(np.argwhere(bright).mean(axis=0))


def test_placing_there_and_back_keeps_every_voxel() -> None:
    for shape in ((7, 16, 20), (16, 17, 15)):
        values = np.random.default_rng(0).random(shape)
        back = placed(placed(values, (16, 16, 16)), shape)
        assert ((back == values) | (back == 0)).all()
        assert (back != 0).sum() == np.prod([min(side, 16) for side in shape])


def test_spacing_and_orientation_are_made_alike(tmp_path: Path) -> None:
    """The same head scanned from the other end, at 2 mm along the third axis: one grid comes of both."""
    for number in range(8):
        picture_kit.volume(tmp_path, f"v{number}", number)
        data = [nibabel.load(tmp_path / f / f"v{number}.nii.gz") for f in ("images", "labels")]
        flipped = [np.asarray(item.dataobj)[::-1] for item in data]
        affine = np.array([[-1.0, 0, 0, 19], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
        picture_kit.volume(tmp_path, f"w{number}", number, affine=affine, values=flipped[0], label=flipped[1])
    task = load(tmp_path, spacing_mm=[1.0, 1.0, 1.0])
    loaded = {case.id[-9:-7]: task.load(case) for split in SPLITS for case in task.cases(split)}
    assert len(loaded) == 16
    for number in range(8):
        assert loaded[f"v{number}"][0].shape[2] == pytest.approx(23, abs=1)
        assert loaded[f"v{number}"][0] == pytest.approx(loaded[f"w{number}"][0], abs=1e-4)
        assert (loaded[f"v{number}"][1] == loaded[f"w{number}"][1]).all()


def test_nobody_is_warned_of_what_monai_changes(root: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        load(root)


def test_a_window_and_squeezed_volumes(root: Path) -> None:
    task = load(root, window=[0.0, 100.0], fit="squeeze")
    case = task.cases("selection")[0]
    seen = task.inputs(case)["volume"]
    assert seen.shape == (1, 1, 16, 16, 16)
    assert seen.min() >= 0 and seen.max() <= 1
    volumes, labels = next(task.batches(0, 3))
    assert volumes.shape == labels.shape == (3, 1, 16, 16, 16)
    truth = task.load(case)[1]
    small = torch.nn.functional.interpolate(torch.from_numpy(truth)[None, None].float(), size=(16, 16, 16))[
        0, 0
    ].numpy()
    found = task.evaluate(logits_of(small), case)
    assert found["dice_structure"] is not None and found["dice_structure"] > 0.8


def test_every_second_cut_holds_a_structure(root: Path) -> None:
    task = load(root)
    cuts = [label for _, labels in task.batches(1, 7) for label in labels]
    assert len(cuts) == 7
    assert sum(bool(label.any()) for label in cuts) >= 4


def test_classes_without_truth_and_answer_are_undefined(tmp_path: Path) -> None:
    for number in range(6):
        picture_kit.volume(tmp_path, f"v{number}", number)
    task = load(tmp_path, classes={"ball": 1, "other": 2})
    case = task.cases("selection")[0]
    empty = np.zeros((1, 3, 16, 16, 16), np.float32)
    assert task.evaluate({"o": empty}, case) == {
        "dice_ball": 0.0,
        "nsd_ball": 0.0,
        "hd95_ball_mm": pytest.approx(np.linalg.norm([20, 18, 2 * 12])),  # its diagonal: 2 mm along the third axis
        "dice_other": None,
        "nsd_other": None,
        "hd95_other_mm": None,
        "dice_mean": 0.0,
    }


def test_distances_are_in_millimetres(tmp_path: Path) -> None:
    """A block that is answered one voxel further along an axis of 3 mm: all of its two ends is 3 mm away."""
    label = np.zeros((20, 18, 12), np.uint8)
    label[5:9, 5:9, 4:7] = 1
    for number in range(6):
        affine = np.diag([1.0, 1.0, 3.0, 1.0])
        values = np.random.default_rng(number).normal(size=label.shape).astype(np.float32)
        picture_kit.volume(tmp_path, f"v{number}", number, affine=affine, values=values, label=label)
    task = load(tmp_path, surface_tolerance_mm=2.0)
    case = task.cases("selection")[0]
    moved = placed(np.roll(task.load(case)[1], 1, axis=2), (16, 16, 16))
    found = task.evaluate(logits_of(moved), case)
    assert found["hd95_structure_mm"] == pytest.approx(3.0)
    assert found["dice_structure"] == pytest.approx(2 / 3)
    wider = load(tmp_path, surface_tolerance_mm=3.0).evaluate(logits_of(moved), case)
    assert found["nsd_structure"] is not None and found["nsd_structure"] < 0.9
    assert wider["nsd_structure"] == pytest.approx(1.0)
    with pytest.raises(SpecError, match="surface_tolerance_mm must be positive"):
        load(tmp_path, surface_tolerance_mm=0.0)


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ({"label": np.full((20, 18, 12), 5, np.uint8)}, "unknown label 5.*structure = 1"),
        ({"label": np.zeros((20, 18, 11), np.uint8)}, "must have the same voxels"),
        ({"values": np.full((20, 18, 12), np.nan, np.float32)}, "NaN or Inf"),
        ({"values": np.zeros((20, 18, 12, 3), np.float32)}, "One volume of at most"),
        ({"values": np.ones((20, 18, 12), np.complex64)}, "its voxels are complex64"),
    ],
)
def test_volumes_that_cannot_be_used_are_named(tmp_path: Path, of: dict[str, Any], message: str) -> None:
    for number in range(8):
        picture_kit.volume(tmp_path, f"v{number}", number)
    picture_kit.volume(tmp_path, "bad", 99, **of)
    with pytest.raises(DataError, match=message) as told:
        load(tmp_path)
    assert "bad.nii.gz" in str(told.value)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    for number in range(8):
        picture_kit.volume(tmp_path, f"v{number}", number)
    whole = (tmp_path / "images" / "v3.nii.gz").read_bytes()
    (tmp_path / "images" / "v3.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"v3.nii.gz: it cannot be read"):
        load(tmp_path)


def test_a_header_that_asks_for_too_much_is_refused_unread(tmp_path: Path) -> None:
    picture_kit.volume(tmp_path, "v0", 0)
    for number in range(1, 8):
        picture_kit.volume(tmp_path, f"v{number}", number)
    header = nibabel.Nifti1Header()
    header.set_data_shape((30000, 30000, 30000))
    header.set_data_dtype(np.uint8)
    (tmp_path / "images" / "v0.nii.gz").unlink()
    with (tmp_path / "images" / "v0.nii").open("wb") as stream:
        header.write_to(stream)
        stream.write(bytes(64))
    with pytest.raises(DataError, match="of at most 268435456 voxels"):
        load(tmp_path)


def test_a_spacing_that_asks_for_too_much_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match=r"spacing 0\.001, 0\.001, 0\.001 mm: one has .* widen spacing_mm"):
        load(root, spacing_mm=[0.001, 0.001, 0.001])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": [16, 16, 20]}, "three multiples of 16"),
        ({"size": [16000, 16000, 16000]}, "size is at most 268435456 voxels"),
        ({"classes": {f"c{value}": value for value in range(1, 256)}}, "at most 254 classes"),
        ({"orientation": "RAL"}, "names three axes"),
        ({"fit": "slide"}, "fit is crop or squeeze"),
        ({"window": [5.0, 1.0]}, "two rising values"),
        ({"classes": {"a": 1, "b": 1}}, "a value of its own"),
    ],
)
def test_options_that_are_wrong(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load(root, **options)


def test_a_series_is_an_image_and_its_answer_lies_where_the_image_does(root: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    affine = np.array([[0, -1.0, 0, 5], [-2.0, 0, 0, 7], [0, 0, 1.5, -9], [0, 0, 0, 1]])
    for number in range(6):
        label = np.zeros((9, 12, 10), np.uint8)
        label[2:5, 3:9, 4:8] = 7
        picture_kit.dicom_series(
            tmp_path / "images" / f"c{number}", label * 50 + rng.integers(0, 20, label.shape), affine
        )
        (tmp_path / "labels").mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(label, affine), tmp_path / "labels" / f"c{number}.nii.gz")
    task = load(tmp_path, classes={"block": 7})
    case = task.cases("selection")[0]
    truth = placed(task.load(case)[1], (16, 16, 16))
    assert task.evaluate(logits_of(truth), case)["dice_block"] == 1
    task.write_answer(logits_of(truth), case, tmp_path / "answer.nii.gz")
    answer = nibabel.load(tmp_path / "answer.nii.gz")
    assert np.allclose(answer.affine, open_series(tmp_path / "images" / "c0").affine)
    assert np.allclose(
        answer.affine[:3, 2], [0, 0, -1.5]
    )  # DICOM counts slices along the normal, these labels against it
    assert np.array_equal(np.asarray(answer.dataobj), label[:, :, ::-1])
    (tmp_path / "images" / "c1.nii").write_bytes(b"")
    with pytest.raises(DataError, match=r"c1 and c1\.nii have one name"):
        load(tmp_path, classes={"block": 7})
    (tmp_path / "images" / "c1.nii").unlink()
    (next((tmp_path / "images" / "c0").iterdir())).unlink()
    with pytest.raises(DataError, match=r"series .*c0"):
        load(tmp_path, classes={"block": 7})
