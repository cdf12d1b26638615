"""From the task table of a study to a task: options, the user's own task, and what is said when something is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgedeploy.errors import DataError, SpecError
from edgedeploy.interfaces.task import Task
from edgedeploy.tasks.load import load_task

OWN = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class Own:
    size: int = 8
    name: str = "own"
    architecture = {"width": (1, 2)}
    metrics = {}
    def build(self, **arch): ...
    def input_specs(self, **arch): ...
    def cases(self, split): return ()
    def inputs(self, case, **arch): ...
    def evaluate(self, outputs, case): ...

def broken(size=8):
    return {}["missing"]

def confused(size=8):
    return len(size)

def nothing():
    return object()

def leaving():
    raise SystemExit(0)
"""


def table(kind: str = "synthetic-ultrasound", **options: Any) -> dict[str, Any]:
    return {"kind": kind, "object": None, "options": options}


def own(name: str, **options: Any) -> dict[str, Any]:
    return {"kind": "python", "object": name, "options": options}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "my_task.py").write_text(OWN)
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "torn.py").write_text("def make(\n    return 1 +\n")
    return tmp_path


def test_options_change_the_embedded_task(tmp_path: Path) -> None:
    task = load_task(
        table(
            train_cases=12,
            resolutions=[96, 64],
            seed=4,
            baseline={"epochs": 3, "learning_rate": 1, "early_epochs": 2, "early_arch": {"resolution": 32}},
        ),
        tmp_path,
    )
    assert isinstance(task, Task)
    assert len(task.cases("train")) == 12
    assert task.architecture["resolution"] == (96, 64)
    assert (task.baseline_recipe.epochs, task.baseline_recipe.learning_rate) == (3, 1.0)  # type: ignore[attr-defined]
    assert task.baseline_recipe.early_arch == {"resolution": 32}  # type: ignore[attr-defined]
    assert task.recovery_recipe.distill_weight > 0  # type: ignore[attr-defined]


def test_a_table_without_options_gives_the_defaults(tmp_path: Path) -> None:
    task = load_task({"kind": "synthetic-ultrasound"}, tmp_path)
    assert [value[0] for value in task.architecture.values()] == [128, "transposed"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_case": 12}, r"task.options.train_case: unknown option.*Did you mean 'train_cases'"),
        ({"baseline": {"epoch": 3}}, r"task.options.baseline.epoch: unknown option.*Did you mean 'epochs'"),
        ({"baseline": 3}, r"task.options.baseline: expected a table"),
        ({"train_cases": "12"}, r"task.options.train_cases: expected a value such as 160, but got \"12\""),
        ({"train_cases": True}, r"train_cases: expected a value such as 160, but got true"),
        ({"resolutions": []}, r"resolutions: expected a value such as \[128, 96, 64\], but got \[\]"),
        ({"resolutions": 48}, r"resolutions: expected a value such as \[128, 96, 64\], but got 48"),
        ({"resolutions": [100]}, r"multiples of 16 .* but got 100"),
        ({"train_cases": 0}, r"train_cases must be at least 2, but got 0"),
        ({"selection_cases": 0}, r"selection_cases must be at least 1"),
        ({"image_size": 4}, r"image_size must be at least 32"),
        ({"seed": -1}, r"seed must be at least 0"),
        ({"base_channels": 0}, r"base_channels must be at least 1"),
        ({"baseline": {"epochs": 0}}, r"task.options.baseline: epochs must be at least 1"),
        ({"baseline": {"batch_size": 1}}, r"batch_size must be at least 2"),
        ({"baseline": {"learning_rate": 0.0}}, r"learning_rate must be positive"),
        ({"recovery": {"distill_weight": 1.5}}, r"distill_weight is a share, 0 to 1, but got 1.5"),
        (
            {"baseline": {"epochs": 3, "early_epochs": 4}},
            r"early_epochs are some of the 3 epochs, but got 4: write them beside",
        ),
        ({"baseline": {"early_arch": {"resolution": 40}}}, r"early_arch.resolution must be a multiple of 16 .* got 40"),
        (
            {"baseline": {"early_arch": {"upsampling": "resize"}}},
            r"may change the resolution alone, but got 'upsampling'",
        ),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message):
        load_task(table(**options), tmp_path)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from edgedeploy.reporting import read_front", "No module named 'edgedeploy.reporting'"),
        ("from edgedeploy.protocols import Nothing", "cannot import name 'Nothing' from 'edgedeploy.protocols'"),
        ("from edgedeploy import Taks", "cannot import name 'Taks' from 'edgedeploy'"),
    ],
)
def test_an_import_that_edgedeploy_does_not_have_is_answered_with_one_that_it_has(
    line: str, found: str, study: Path
) -> None:
    (study / "my_task.py").write_text(f"{OWN}\n{line}\n")
    with pytest.raises(
        SpecError, match=r"my_task.py asks for what is not there: .*from edgedeploy import Case"
    ) as caught:
        load_task(own("my_task.py:Own"), study)
    assert found in caught.value.found
    assert "Install" not in caught.value.remedy


def test_an_import_error_of_the_users_own_stays_one(study: Path) -> None:
    (study / "my_task.py").write_text(f"{OWN}\nfrom json import nothing_of_that_name\n")
    with pytest.raises(SpecError, match=r"my_task.py, line \d+: ImportError: .*nothing_of_that_name") as caught:
        load_task(own("my_task.py:Own"), study)
    assert isinstance(caught.value.__cause__, ImportError)


def test_whatever_an_import_of_the_users_file_raises_is_told_with_its_line(study: Path) -> None:
    (study / "my_task.py").write_text(f"{OWN}\nSIZES = [1, 2][5]\n")
    with pytest.raises(SpecError, match=r"my_task.py, line \d+: IndexError: list index out of range"):
        load_task(own("my_task.py:Own"), study)


def test_an_unknown_kind_names_the_near_miss(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="Did you mean 'segmentation-folder'"):
        load_task(table("segmentation-folders"), tmp_path)


def test_a_folder_task_needs_its_root(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"task.options.root: it is missing"):
        load_task(table("segmentation-folder"), tmp_path)


def test_a_task_from_a_file_beside_the_study(study: Path) -> None:
    task = load_task(own("my_task.py:Own", size=16), study)
    assert task.name == "own"
    assert task.size == 16  # type: ignore[attr-defined]


def test_a_file_may_be_named_from_here_or_from_above(study: Path) -> None:
    (study / "deeper").mkdir()
    assert load_task(own("./my_task.py:Own"), study).name == "own"
    assert load_task(own("../my_task.py:Own"), study / "deeper").name == "own"


def test_a_task_from_an_installed_module(tmp_path: Path) -> None:
    task = load_task(own("edgedeploy.tasks.segmentation.ultrasound:SyntheticUltrasound"), tmp_path)
    assert task.name == "synthetic-ultrasound"


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("my_task.py", {}, SpecError, "no factory is named"),
        ("my_task.py:", {}, SpecError, "no factory is named"),
        ("other.py:Own", {}, DataError, r"no file at .*other\.py"),
        ("my_task.py:Onw", {}, SpecError, "Did you mean 'Own'"),
        ("my_task.py:Own", {"sizes": 3}, SpecError, "does not take these options.*'sizes'"),
        ("my_task.py:nothing", {}, SpecError, "is no task: it lacks architecture, build, cases"),
        ("no_such_package_at_all:make", {}, SpecError, "no module named 'no_such_package_at_all'"),
        (".my_task:Own", {}, SpecError, "no factory is named"),
        ("my_task.py:leaving", {}, SpecError, "leaving ends the program"),
        ("leaves.py:Own", {}, SpecError, r"leaves.py ends the program"),
        ("torn.py:Own", {}, SpecError, r"torn\.py, line 1: "),
    ],
)
def test_what_is_wrong_with_the_object_is_said(
    name: str, options: dict[str, Any], error: type[Exception], message: str, study: Path
) -> None:
    with pytest.raises(error, match=message):
        load_task(own(name, **options), study)


@pytest.mark.parametrize(("factory", "error"), [("broken", KeyError), ("confused", TypeError)])
def test_a_mistake_inside_the_users_code_is_told_with_its_line(
    factory: str, error: type[Exception], study: Path
) -> None:
    with pytest.raises(SpecError, match=rf"my_task.py:{factory}.*my_task.py, line \d+: {error.__name__}") as caught:
        load_task(own(f"my_task.py:{factory}"), study)
    assert isinstance(caught.value.__cause__, error)
