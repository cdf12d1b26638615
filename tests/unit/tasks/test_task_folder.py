"""A folder of images and masks: how cases come about, and what is said of files that cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mask_folders import COUNTS, fill, load, logits_of, mask, names, picture, put
from picture_kit import Pixels, save
from PIL import Image

from edgedeploy.errors import DataError, SpecError
from edgedeploy.interfaces.task import SPLITS, Case, Pictured, Task, Trainable
from edgedeploy.tasks.images.reader import ImageReader
from edgedeploy.tasks.images.rules import ImageRules
from edgedeploy.tasks.options import read_options
from edgedeploy.tasks.segmentation.folder import FolderOptions, SegmentationFolder
from edgedeploy.tasks.segmentation.splits import deal


def read_grey(path: Path) -> Any:
    return ImageReader(ImageRules(), [path]).shades(path, colour=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fill(tmp_path)


# -- what a good folder gives


def test_it_is_a_task_with_disjoint_splits_of_the_asked_sizes(root: Path) -> None:
    task = load(root)
    assert isinstance(task, Task)
    assert isinstance(task, Trainable)
    assert isinstance(task, Pictured)
    assert {split: len(task.cases(split)) for split in SPLITS} == {
        "train": 14,
        "calibration": 4,
        "selection": 6,
        "confirmation": 5,
    }
    everything = [name for split in SPLITS for name in names(task, split)]
    assert len(everything) == len(set(everything)) == 29
    assert names(task, "confirmation") == {f"{number:04d}" for number in range(100, 105)}
    assert task.left_out == ()


def test_the_split_seed_decides_the_draw(root: Path) -> None:
    first, again, other = load(root), load(root), load(root, split_seed=2)
    assert first.cases("selection") == again.cases("selection")
    assert names(first, "selection") != names(other, "selection")
    assert first.cases("confirmation") == other.cases("confirmation")


def test_the_root_may_be_relative_to_the_study(root: Path) -> None:
    options = read_options(FolderOptions, FolderOptions(), {"root": root.name, **COUNTS}, "task.options")
    assert len(SegmentationFolder(options, root.parent).cases("train")) == 14


def test_inputs_of_all_sizes_fit_the_model_and_answers_are_scored_at_the_masks_size(root: Path) -> None:
    task = load(root)
    sizes = set()
    for case in task.cases("selection") + task.cases("train"):
        image, truth = task.load(case)
        sizes.add(truth.shape)
        array = task.inputs(case, resolution=64)["image"]
        assert (array.shape, array.dtype) == ((1, 1, 64, 64), np.float32)
        small = np.asarray(Image.fromarray(truth).resize((64, 64), Image.Resampling.NEAREST))
        dice = task.evaluate(logits_of(small), case)["dice_mean"]
        assert dice is not None
        assert dice > 0.9
        assert task.picture(case, None).shape == (*image.shape, 3)
    assert sizes == {(48, 60), (70, 50)}


def test_colour_and_grey_files_of_one_picture_are_the_same(root: Path) -> None:
    grey = read_grey(root / "images" / "0001.png")
    save(root / "images" / "0001.png", np.repeat(grey[..., None], 3, axis=2))
    assert np.array_equal(read_grey(root / "images" / "0001.png"), grey)
    assert len(load(root).cases("train")) == 14


def test_sixteen_bit_images_keep_their_shades(tmp_path: Path) -> None:
    shades = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    save(tmp_path / "deep.png", shades)
    found = ImageReader(ImageRules(), [tmp_path / "deep.png"]).shades(tmp_path / "deep.png", colour=False)
    assert found == pytest.approx(shades / 257, abs=1e-4)


@pytest.mark.parametrize("values", [{"nerve": 255}, {"nerve": 7, "vessel": 3}])
def test_mask_values_need_not_count_from_one(root: Path, values: dict[str, int]) -> None:
    for path in (*(root / "masks").iterdir(), *(root / "test" / "masks").iterdir()):
        labels = np.asarray(Image.open(path))
        chosen = np.zeros_like(labels)
        for label, value in enumerate(values.values(), start=1):
            chosen[labels == label] = value
        save(path, chosen)
    task = load(root, classes=values)
    case = task.cases("selection")[0]
    truth = task.load(case)[1]
    assert set(np.unique(truth)) == set(range(len(values) + 1))
    assert task.evaluate(logits_of(truth, len(values) + 1), case)["dice_mean"] == 1.0
    images, target = next(task.batches(0, 8, resolution=64))
    model = task.build(resolution=64, upsampling="resize")
    assert bool(task.loss(model(images), target).isfinite())


def deep(root: Path) -> None:
    """A folder of 12-bit pictures in 16-bit files, masks of 16 bits."""
    for place in (root, root / "test"):
        for path in (place / "images").iterdir():
            shades = np.asarray(Image.open(path)).astype(np.uint16)
            save(path, (shades * 16 + np.arange(shades.size).reshape(shades.shape) % 16).astype(np.uint16))
        for path in (place / "masks").iterdir():
            save(path, np.asarray(Image.open(path)).astype(np.uint16) * 300)


def test_twelve_bits_in_sixteen_train_and_are_told_apart(root: Path) -> None:
    deep(root)
    twin = np.asarray(Image.open(root / "images" / "0003.png")).copy()
    twin[0, 0] += 1  # 1 of 4096: not the same picture, though equal in 8 bits
    save(root / "images" / "twin.png", twin)
    (root / "masks" / "twin.png").write_bytes((root / "masks" / "0003.png").read_bytes())
    task = load(root, classes={"nerve": 300, "vessel": 600})
    assert "0 to 4095 (12 bits)" in task.notes[0]
    assert sum(len(task.cases(split)) for split in SPLITS) == 30
    case = task.cases("selection")[0]
    image, truth = task.load(case)
    assert image.dtype == np.float32
    assert 100 < float(image.max()) <= 255
    assert set(np.unique(truth)) == {0, 1, 2}
    assert len(np.unique(task.inputs(case, resolution=64)["image"])) > 256
    assert task.picture(case, None).dtype == np.uint8
    images, _ = next(task.batches(0, 8, resolution=64))
    assert images.dtype.is_floating_point
    stated = load(root, classes={"nerve": 300, "vessel": 600}, value_range=[0, 65535])
    assert float(stated.load(case)[0].max()) < 17
    with pytest.raises(SpecError, match="value_range"):
        load(root, classes={"nerve": 300, "vessel": 600}, value_range="raw")


def on_its_side(path: Path, orientation: int = 6) -> None:
    """The same picture as a camera stores it that was held upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(np.rot90(np.asarray(Image.open(path))))).save(path, exif=exif)


def test_image_and_mask_are_turned_alike(root: Path) -> None:
    before = load(root)
    for path in (root / "images" / "0001.png", root / "images" / "0004.png", root / "masks" / "0004.png"):
        on_its_side(path)
    drawn_before = np.rot90(np.asarray(Image.open(root / "masks" / "0005.png")))
    on_its_side(root / "images" / "0005.png")
    save(root / "masks" / "0005.png", np.ascontiguousarray(drawn_before))
    task = load(root)
    for split in SPLITS:
        for old, new in zip(before.cases(split), task.cases(split), strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(before.load(old), task.load(new), strict=True))


def test_a_mask_that_may_lie_either_way_is_asked(root: Path) -> None:
    put(root, ".", "square", picture(77, (50, 50)))
    on_its_side(root / "images" / "square.png")
    with pytest.raises(DataError, match="EXIF orientation 6 and the mask has none"):
        load(root)


# -- the same picture twice


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_equal_images_are_kept_once(root: Path, suffix: str) -> None:
    save(root / "images" / f"copy{suffix}", read_grey(root / "images" / "0003.png"))
    (root / "masks" / "copy.png").write_bytes((root / "masks" / "0003.png").read_bytes())
    task = load(root)
    kept = [name for split in SPLITS for name in names(task, split)]
    assert len({"0003", "copy"} & set(kept)) == 1
    assert len(kept) == 29


def near(image: Pixels, seed: int = 0) -> Pixels:
    """The next frame: a pixel further, with other noise and gain."""
    moved = np.roll(image, 1, axis=1).astype(float) * 0.9 + np.random.default_rng(seed).normal(size=image.shape) * 4
    return np.asarray(np.clip(moved, 0, 255), np.uint8)


@pytest.mark.parametrize("split_seed", range(6))
def test_near_copies_stay_on_one_side(root: Path, split_seed: int) -> None:
    for number in range(0, 24, 2):
        put(root, ".", f"{number:04d}-next", near(read_grey(root / "images" / f"{number:04d}.png")))
    task = load(root, split_seed=split_seed)
    for split in SPLITS:
        mine = names(task, split)
        assert {name.removesuffix("-next") for name in mine if name.endswith("-next")} <= mine
    assert sum(len(task.cases(split)) for split in SPLITS) == 24 + 12 + 5


@pytest.mark.parametrize("change", [near, lambda image: image], ids=["near", "equal"])
def test_copies_of_confirmation_images_are_left_out_of_the_search(
    root: Path, change: Callable[[Pixels], Pixels]
) -> None:
    put(root, ".", "seen", change(read_grey(root / "test" / "images" / "0101.png")))
    task = load(root)
    assert task.left_out == ("seen",)
    assert "0101" in names(task, "confirmation")
    assert all("seen" not in names(task, split) for split in SPLITS)


@pytest.mark.parametrize("seed", range(8))
def test_groups_are_dealt_whole_and_splits_filled(seed: int) -> None:
    groups = [0, 0, 0, 3, 3, 5, 6, 7, 8, 9, 10, 11]
    dealt = deal(groups, {"selection": 4, "calibration": 2}, "train", seed)
    assert sorted(index for indices in dealt.values() for index in indices) == list(range(12))
    assert (len(dealt["selection"]), len(dealt["calibration"])) == (4, 2)
    for indices in dealt.values():
        assert all(other in indices for index in indices for other in range(12) if groups[other] == groups[index])


# -- what cannot be used: each message names the file and what was found


def spoil_missing_root(root: Path) -> None:
    root.rename(root.with_name("moved"))


def spoil_missing_folder(root: Path) -> None:
    (root / "masks").rename(root / "labels")


def spoil_missing_confirmation(root: Path) -> None:
    (root / "test").rename(root / "tests")


def spoil_empty_folder(root: Path) -> None:
    for path in (root / "images").iterdir():
        path.unlink()


def spoil_no_mask(root: Path) -> None:
    (root / "masks" / "0007.png").unlink()


def spoil_size(root: Path) -> None:
    save(root / "masks" / "0007.png", mask((48, 61)).astype(np.uint8))


def spoil_label(root: Path) -> None:
    save(root / "masks" / "0007.png", mask(nerve=1, vessel=9).astype(np.uint8))


def spoil_colour_mask(root: Path) -> None:
    save(root / "masks" / "0007.png", np.eye(3, dtype=np.uint8)[mask()])


def spoil_truncated_image(root: Path) -> None:
    data = (root / "images" / "0007.png").read_bytes()
    (root / "images" / "0007.png").write_bytes(data[: len(data) // 2])


def spoil_truncated_mask(root: Path) -> None:
    data = (root / "masks" / "0007.png").read_bytes()
    (root / "masks" / "0007.png").write_bytes(data[:-30])


def spoil_flipped_bit(root: Path) -> None:
    data = bytearray((root / "images" / "0007.png").read_bytes())
    data[len(data) // 2] ^= 0x10
    (root / "images" / "0007.png").write_bytes(bytes(data))


def spoil_text(root: Path) -> None:
    (root / "images" / "0007.png").write_text("this is no picture")


def spoil_empty_file(root: Path) -> None:
    (root / "images" / "0007.png").write_bytes(b"")


def spoil_confirmation_image(root: Path) -> None:
    (root / "test" / "images" / "0102.png").write_bytes(b"\x89PNG\r\n\x1a\n")


def spoil_bomb(root: Path) -> None:
    """A few kilobytes that stand for 400 million pixels."""
    Image.new("1", (20000, 20000)).save(root / "images" / "0007.png")


def spoil_large(root: Path) -> None:
    """Below Pillow's own limit, above ours."""
    Image.new("1", (8100, 8100)).save(root / "images" / "0007.png")


def spoil_twin_names(root: Path) -> None:
    save(root / "images" / "0007.bmp", picture(500))


def spoil_folder_named_like_an_image(root: Path) -> None:
    (root / "images" / "0007.png").unlink()
    (root / "images" / "0007.png").mkdir()


def spoil_float_image(root: Path) -> None:
    (root / "images" / "0007.png").unlink()
    save(root / "images" / "0007.tif", picture(500).astype(np.float32))


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (spoil_missing_root, ["task.options.root", "no folder at"]),
        (spoil_missing_folder, ["no folder at", "masks"]),
        (spoil_missing_confirmation, ["no folder at", "test/images"]),
        (spoil_empty_folder, ["images", "the folder holds none"]),
        (spoil_no_mask, ["0007.png", "no file 0007.*", "Add the mask"]),
        (spoil_size, ["masks/0007.png", "60x48", "61x48"]),
        (spoil_label, ["masks/0007.png", "unknown label 9", "nerve = 1, vessel = 2"]),
        (spoil_colour_mask, ["masks/0007.png", "mode RGB"]),
        (spoil_truncated_image, ["images/0007.png", "cannot be decoded"]),
        (spoil_truncated_mask, ["masks/0007.png", "cannot be decoded"]),
        (spoil_flipped_bit, ["images/0007.png", "cannot be decoded"]),
        (spoil_text, ["images/0007.png", "no image"]),
        (spoil_empty_file, ["images/0007.png", "no image"]),
        (spoil_confirmation_image, ["test/images/0102.png"]),
        (spoil_bomb, ["images/0007.png"]),
        (spoil_large, ["images/0007.png", "8100x8100 pixels"]),
        (spoil_twin_names, ["0007.bmp", "0007.png", "Keep one"]),
        (spoil_folder_named_like_an_image, ["images/0007.png"]),
        (spoil_float_image, ["images/0007.tif", "values are 0 to 255", "value_range"]),
    ],
    ids=lambda value: value.__name__.removeprefix("spoil_") if callable(value) else "",
)
def test_unusable_data_is_named_before_anything_starts(
    root: Path, spoil: Callable[[Path], None], parts: Sequence[str]
) -> None:
    spoil(root)
    with pytest.raises(DataError) as caught:
        load(root)
    message = str(caught.value)
    assert [part for part in parts if part not in message] == []
    assert caught.value.remedy


@pytest.mark.parametrize("counts", [{"selection_cases": 20}, {"calibration_cases": 0}, {"selection_cases": 0}])
def test_counts_that_leave_a_split_empty_are_refused(root: Path, counts: dict[str, int]) -> None:
    with pytest.raises(DataError, match="24 images"):
        load(root, **counts)


@pytest.mark.parametrize("classes", [{"nerve": 0}, {"nerve": 1, "vessel": 1}])
def test_classes_need_values_of_their_own(root: Path, classes: dict[str, int]) -> None:
    with pytest.raises(SpecError, match=r"task.options.classes.*of its own"):
        load(root, classes=classes)


def test_an_image_that_goes_bad_later_is_named_too(root: Path) -> None:
    task = load(root)
    case = task.cases("selection")[0]
    path = root / "images" / f"{case.id.rpartition('/')[2]}.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=path.name):
        task.inputs(Case(case.id, case.split), resolution=64)
