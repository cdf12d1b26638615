"""A user's own task: what it returns wrongly is told with the case, and what it raises with file and line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import pytest
import torch
from small_task import SmallTask, bench

from edgedeploy.api import load_study
from edgedeploy.errors import DataError, EdgeDeployError, MeasurementError, SpecError
from edgedeploy.interfaces.task import Array, Case, Split
from edgedeploy.records.variant import Scalar
from edgedeploy.study.cases import check_cases, inputs_of, scores_of
from edgedeploy.study.options import RunOptions
from edgedeploy.study.store import Store

GOOD = np.zeros((1, 3, 16, 16), np.float32)


class Returning(SmallTask):
    """It answers with ``given`` when it is asked for inputs, and with ``scores`` when it is asked to evaluate."""

    given: Any = None
    scores: Any = None
    splits: Mapping[str, Sequence[Any]] = {}

    def inputs(self, case: Case, **arch: Scalar) -> dict[str, Array]:
        return super().inputs(case) if self.given is None else self.given

    def evaluate(self, outputs: Mapping[str, Array], case: Case) -> dict[str, float | None]:
        return self.scores

    def cases(self, split: Split) -> Sequence[Case]:
        return self.splits.get(split, super().cases(split))


@pytest.fixture
def task(tmp_path: Path) -> Returning:
    return Returning(tmp_path)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"image": GOOD.astype(np.float64)}, r"it is float64, and input_specs\(\) says float32"),
        ({"image": GOOD[0]}, r"shape \(3, 16, 16\).*Add the batch axis: array\[None\]"),
        ({"image": GOOD[:, :, :8]}, r"shape \(1, 3, 8, 16\)"),
        ({"image": np.repeat(GOOD, 2, axis=0)}, r"shape \(2, 3, 16, 16\)"),
        ({"image": GOOD * np.nan}, "768 of 768 values are NaN or Inf"),
        ({"image": GOOD + np.float32(np.inf)}, "NaN or Inf"),
        ({"picture": GOOD}, r"it has picture. input_specs\(\) names image"),
        ({"image": torch.zeros(1, 3, 16, 16)}, "torch tensor"),
        ({"image": GOOD.tolist()}, "it is a list"),
        (GOOD, "it returned a ndarray"),
    ],
    ids=["dtype", "batch", "shape", "two", "nan", "inf", "name", "torch", "list", "bare"],
)
def test_inputs_are_held_against_their_specs(task: Returning, given: Any, told: str, tmp_path: Path) -> None:
    task.given = given
    with pytest.raises(DataError, match=told) as caught:
        check_cases(task, {})
    assert "calibration-0" in str(caught.value)
    store = Store(tmp_path / "study")
    with pytest.raises(DataError, match=told):
        bench(store, task).inputs("selection", {"resolution": 128})


def test_every_case_is_looked_at_when_they_are_stacked(tmp_path: Path) -> None:
    class OneBad(SmallTask):
        def inputs(self, case: Case, **arch: Scalar) -> dict[str, Array]:
            return {"image": GOOD * (np.nan if case.id == "selection-4" else 1)}

    task = OneBad(tmp_path)
    check_cases(task, {})
    with pytest.raises(DataError, match="selection-4"):
        bench(Store(tmp_path / "study"), task).inputs("selection", {"resolution": 128})


def test_a_value_of_the_architecture_is_looked_at_before_a_board(tmp_path: Path) -> None:
    class Resolutions(SmallTask):
        def inputs(self, case: Case, **arch: Scalar) -> dict[str, Array]:
            return {"image": GOOD if arch["resolution"] == 128 else GOOD[0]}

    check_cases(Resolutions(tmp_path), {"width": [0.5]})
    with pytest.raises(DataError, match="batch axis"):
        check_cases(Resolutions(tmp_path), {"resolution": [128, 64]})


@pytest.mark.parametrize(
    ("splits", "told"),
    [
        ({"selection": ()}, "'selection'.*none.*variants are scored on it"),
        ({"calibration": ()}, "'calibration'.*none.*ranges are taken from it"),
        ({"selection": (Case("a", "selection"),) * 2}, "two cases have the id 'a'"),
        ({"selection": (Case("a", "train"),)}, "says it is of split 'train'"),
        ({"selection": ("a",)}, "it holds a str"),
        (
            {"selection": (Case("a", "selection"),), "confirmation": (Case("a", "confirmation"),)},
            "case 'a' is in selection and in confirmation",
        ),
    ],
)
def test_splits_that_cannot_be_right_are_named(task: Returning, splits: Any, told: str) -> None:
    task.splits = splits
    with pytest.raises(EdgeDeployError, match=told):
        check_cases(task, {})


def test_cases_of_two_splits_may_be_numbered_alike(tmp_path: Path) -> None:
    class Numbered(SmallTask):
        def cases(self, split: Split) -> Sequence[Case]:
            return tuple(Case(str(number), split) for number in range(3))

        def inputs(self, case: Case, **arch: Scalar) -> dict[str, Array]:
            return {"image": GOOD + len(case.split)}

    check_cases(Numbered(tmp_path), {})


@pytest.mark.parametrize(
    "value",
    [0.5, np.float32(0.5), np.array([0.5]), np.array(0.5), torch.tensor(0.5), torch.tensor([0.5], requires_grad=True)],
    ids=["float", "float32", "array", "rank 0", "tensor", "gradient"],
)
def test_scalars_of_numpy_and_torch_are_numbers(task: Returning, value: Any) -> None:
    task.scores = {"dice_mean": value, "hd95_px": None}
    found = scores_of(task, {}, Case("a", "selection"))
    assert found == {"dice_mean": 0.5, "hd95_px": None}
    assert type(found["dice_mean"]) is float
    task.scores = {"dice_mean": np.True_, "hd95_px": 3}
    assert scores_of(task, {}, Case("a", "selection")) == {"dice_mean": 1.0, "hd95_px": 3.0}


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ({"dice_mean": float("nan"), "hd95_px": None}, "dice_mean is nan.*Return None"),
        ({"dice_mean": 0.5, "hd95_px": -1e308}, "hd95_px is -1e.308, and at most 1e.100 is taken"),
        ({"dice_mean": 10**400, "hd95_px": None}, "dice_mean is inf.*Return None"),
        ({"dice_mean": np.inf, "hd95_px": None}, "dice_mean is inf"),
        ({"dice_mean": "good", "hd95_px": None}, "dice_mean is a str"),
        ({"dice_mean": np.zeros(3), "hd95_px": None}, "dice_mean has 3 values"),
        ({"dice": 1.0}, "'dice', which `metrics` does not name. Did you mean 'dice_mean'"),
        ({"dice_mean": 1.0}, "it lacks hd95_px"),
        ({}, "it lacks dice_mean, hd95_px"),
        (None, "it returned None"),
        (0.5, "it returned a float"),
    ],
)
def test_scores_that_are_none_are_named_with_the_case(task: Returning, scores: Any, told: str) -> None:
    task.scores = scores
    with pytest.raises(SpecError, match=told) as caught:
        scores_of(task, {}, Case("knee-7", "selection"))
    assert "knee-7" in str(caught.value)


def test_what_their_code_raises_is_told_with_file_and_line(tmp_path: Path) -> None:
    class Raising(SmallTask):
        def inputs(self, case: Case, **arch: Scalar) -> dict[str, Array]:
            return {"image": np.zeros(3)[5]}

        def evaluate(self, outputs: Mapping[str, Array], case: Case) -> dict[str, float | None]:
            if case.id == "nan":
                raise MeasurementError("finite values", "NaN")
            return {"dice_mean": float(outputs["mask"].mean()), "hd95_px": None}

    task = Raising(tmp_path)
    with pytest.raises(SpecError, match=r"evaluate\(\) of case 'a'.*test_cases.py, line \d+: KeyError: 'mask'"):
        scores_of(task, {"out": GOOD}, Case("a", "selection"))
    with pytest.raises(SpecError, match=r"inputs\(\) of case 'a'.*test_cases.py, line \d+: IndexError"):
        inputs_of(task, Case("a", "selection"), {})
    with pytest.raises(MeasurementError):
        scores_of(task, {}, Case("nan", "selection"))


def test_a_study_stops_before_a_board_is_touched(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(
        Path(made_up.__file__)
        .parents[1]
        .joinpath("docs/examples/squares.py")
        .read_text()
        .replace("[None, None]", "[None]")
    )
    (tmp_path / "study.toml").write_text(
        '[study]\nname = "x"\ntargets = ["onnxruntime"]\n[task]\nkind = "python"\nobject = "task.py:make_task"\n'
        '[[boards]]\nname = "gone"\nkind = "ssh"\nhost = "192.0.2.1"\n[space]\nprecision = ["float32"]\n'
        '[[objectives]]\nmetric = "correct"\n[budget]\ntrials = 1\n'
    )
    with pytest.raises(DataError, match="Add the batch axis"):
        load_study(tmp_path / "study.toml").run(RunOptions(out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
