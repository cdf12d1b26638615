"""One folder for all splits of a bare ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
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
