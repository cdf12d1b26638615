"""One folder for all splits of a bare ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from foreign_onnx import save
from onnx import TensorProto, helper
from small_onnx import convolutional

from edgedeploy import DataError, SpecError
from edgedeploy.tasks.onnx.task import OnnxOptions, OnnxTask


def made(folder: Path, count: int) -> OnnxTask:
    values = np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1) + np.zeros((count, 3, 16, 16), np.float32)
    np.savez(folder / "all.npz", image=values)
    return OnnxTask(convolutional(folder / "m.onnx"), OnnxOptions.from_table({"data": "all.npz"}), folder)


def test_cases_are_dealt_out_in_stretches_by_name(tmp_path: Path) -> None:
    task = made(tmp_path, 8)
    dealt = {
        split: [int(task.inputs(case)["image"].flat[0]) for case in task.cases(split)]
        for split in ("calibration", "selection", "confirmation")
    }
    assert dealt == {"calibration": [0, 1], "selection": [2, 3, 4, 5], "confirmation": [6, 7]}


def test_a_model_without_states_takes_its_own_inputs(tmp_path: Path) -> None:
    task = made(tmp_path, 8)
    (spec,) = task.input_specs()
    assert spec.shape == task.inputs(task.cases("selection")[0])["image"].shape == (1, 3, 16, 16)


def test_too_few_cases_and_two_ways_to_name_them_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="its 2 cases leave none for"):
        made(tmp_path, 2)
    with pytest.raises(SpecError, match="selection is given too"):
        OnnxOptions.from_table({"data": "all.npz", "selection": "all.npz"})
    with pytest.raises(SpecError, match=r"task\.options\.calibration: it is missing"):
        OnnxOptions.from_table({})


@pytest.mark.parametrize("split", ["calibration", "selection"])
def test_a_case_that_the_model_cannot_take_is_named(split: str, tmp_path: Path) -> None:
    save(
        tmp_path / "words.onnx",
        [helper.make_node("Gather", ["table", "ids"], ["rows"]), helper.make_node("Relu", ["rows"], ["y"])],
        inputs={"ids": (TensorProto.INT64, [4])},
        outputs={"y": (TensorProto.FLOAT, [4, 8])},
        weights={"table": np.ones((20, 8), np.float32)},
    )
    rng = np.random.default_rng(0)
    for name in ("calibration", "selection", "confirmation"):
        low = 30 if name == split else 0
        np.savez(tmp_path / f"{name}.npz", ids=rng.integers(low, low + 20, (6, 4)))
    options = {name: f"{name}.npz" for name in ("calibration", "selection", "confirmation")}
    with pytest.raises(DataError, match=rf"words\.onnx on case {split}/0: .*out of data bounds.* Correct the case"):
        OnnxTask(tmp_path / "words.onnx", OnnxOptions.from_table(options), tmp_path)


def grouped(folder: Path, rows: str) -> OnnxTask:
    values = np.arange(8, dtype=np.float32).reshape(-1, 1, 1, 1) + np.zeros((8, 3, 16, 16), np.float32)
    for number, split in enumerate(("calibration", "selection", "confirmation")):
        np.savez(folder / f"{split}.npz", image=values + 100 * number)
    (folder / "groups.csv").write_text("image,group\n" + rows)
    options = {name: f"{name}.npz" for name in ("calibration", "selection", "confirmation")}
    table = OnnxOptions.from_table({**options, "groups": "groups.csv"})
    return OnnxTask(convolutional(folder / "m.onnx"), table, folder)


def test_a_table_says_which_cases_belong_together(tmp_path: Path) -> None:
    rows = "".join(
        f"{split}/{number},{split} {number // 2}\n" for split in ("selection", "confirmation") for number in range(8)
    )
    task = grouped(tmp_path, rows)
    groups = [task.group_of(case) for case in task.cases("selection")]
    assert task.groups_known and len(set(groups)) == 4 and groups[0] == groups[1]
    assert task.group_of(task.cases("calibration")[0]) == "calibration/0"  # named nowhere: alone
    assert not made(tmp_path, 8).groups_known


def test_a_table_of_groups_that_helps_nobody_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="selection/0 and confirmation/0 are of one group"):
        grouped(tmp_path, "selection/0,one\nconfirmation/0,one\n")
    with pytest.raises(DataError, match="the table names none of the cases"):
        grouped(tmp_path, "elsewhere.png,one\n")
    with pytest.raises(SpecError, match=r"task\.options\.groups: got 3"):
        OnnxOptions.from_table({"data": "all.npz", "groups": 3})
