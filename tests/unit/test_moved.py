"""A task's or a target's file of before the public names stood in edgedeploy itself still works, and says what to write."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import edgedeploy
from edgedeploy.interfaces.moved import MOVED

NAMES = {
    "ability": "Demand",
    "artifact": "Artifact ArtifactFile TensorSpec sha256_file",
    "measurement": "BoardInfo Job Measurement MetricInfo RawRun",
    "precision": "NO_RULES PrecisionPlan",
    "protocols": "SPLITS Board BuildRequest Calibrating Case Demanding FitsBoard PerLayer Pictured Readiness ReadyMade "
    "Split Target Task TrainRecipe Trainable",
    "variant": "PRECISIONS Scalar Variant",
}
"""What such a file may have imported, by module."""

OLD_FILE = """
from edgedeploy.artifact import TensorSpec
from edgedeploy.protocols import Case
"""


def test_every_moved_module_is_tried_here() -> None:
    assert {f"edgedeploy.{module}" for module in NAMES} == set(MOVED)


@pytest.mark.parametrize(("module", "name"), [(module, name) for module in NAMES for name in NAMES[module].split()])
def test_an_old_import_gives_the_name_and_says_the_new_one(module: str, name: str) -> None:
    found: dict[str, object] = {}
    with pytest.warns(FutureWarning, match=rf"edgedeploy.{module} is no more: import {name} from edgedeploy"):
        exec(f"from edgedeploy.{module} import {name}", found)
    if name in edgedeploy.__all__:
        assert found[name] is getattr(edgedeploy, name)


@pytest.mark.parametrize("module", NAMES)
def test_an_old_import_of_everything_gives_the_names_and_says_the_new_ones(module: str) -> None:
    found: dict[str, object] = {}
    with pytest.warns(FutureWarning, match=f"edgedeploy.{module} is no more") as said:
        exec(f"from edgedeploy.{module} import *", found)
    assert set(NAMES[module].split()) <= set(found)
    assert not {"annotations", "Any", "Mapping", "Path", "np", "dataclass"} & set(found)
    assert {warning.filename for warning in said} == {"<string>"}


def test_an_old_module_cannot_be_run_and_says_so() -> None:
    done = subprocess.run([sys.executable, "-m", "edgedeploy.protocols"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "No code object available for edgedeploy.protocols" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_warning_names_the_line_of_the_file_that_imports(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text(OLD_FILE)
    done = subprocess.run([sys.executable, "old.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    said = [line for line in done.stderr.splitlines() if "FutureWarning" in line]
    assert [line.partition("FutureWarning: ")[2] for line in said] == [
        "edgedeploy.artifact is no more: import TensorSpec from edgedeploy",
        "edgedeploy.protocols is no more: import Case from edgedeploy",
    ]
    assert [line.split(":")[1] for line in said] == ["2", "3"]


@pytest.mark.parametrize(
    "code", ["from edgedeploy.protocols import Nothing", "from edgedeploy.protocols import __wrapped__"]
)
def test_what_was_never_there_is_not_there(code: str) -> None:
    with pytest.raises(ImportError, match="cannot import name"):
        exec(code)


def test_other_modules_are_as_missing_as_ever() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'edgedeploy\.measuring'"):
        exec("import edgedeploy.measuring")


def test_nothing_of_ours_uses_an_old_path() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in edgedeploy.__all__:
            getattr(edgedeploy, name)
