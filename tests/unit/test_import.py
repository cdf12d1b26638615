"""Importing edgedeploy costs nothing and needs nothing heavy; the public names are pinned."""

from __future__ import annotations

import ast
import importlib
import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import edgedeploy
from edgedeploy import errors

HEAVY = (
    "torch",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
    "optuna",
    "pydantic",
    "paramiko",
    "monai",
    "typer",
    "numpy",
    "pytest",
)

PROBE = """
import json, sys, time
start = time.process_time()
import edgedeploy
spent = time.process_time() - start
print(json.dumps({"seconds": spent, "modules": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def probe(*blocked: str) -> dict[str, object]:
    block = "".join(f"import sys; sys.modules[{name!r}] = None\n" for name in blocked)
    done = subprocess.run([sys.executable, "-c", block + PROBE], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_import_stays_under_a_third_of_a_second() -> None:
    """Of processor time, which is all that it takes on a machine without other work."""
    assert statistics.median(float(str(probe()["seconds"])) for _ in range(5)) < 0.3


def test_torch_is_imported_where_a_network_is_made_and_not_before() -> None:
    rooms = (
        "api",
        "compress.model",
        "study.preflight",
        "study.run",
        "study.bundle.make",
        "diagnose.doctor",
        "tasks.load",
    )
    names = ", ".join(f"edgedeploy.{room}" for room in rooms)
    code = f"import sys; sys.modules['torch'] = None; import {names}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_loads_and_needs_no_heavy_dependency() -> None:
    assert not set(HEAVY) & set(probe()["modules"])  # type: ignore[call-overload]
    probe(*HEAVY)


PUBLIC = """
__version__
load_study Study RunOptions Event StudyResult
quantize measure
make_bundle BundleOptions
Task Trainable Trainer ReadyMade Pictured Piped ScoresSplit RanksCases FixedOnBaseline Grouped Sized Teaching Taught
Case Split SPLITS TensorSpec MetricInfo TrainRecipe
Target SessionSource Readiness BuildRequest Artifact BoardInfo Demand INT8_DOT_PRODUCTS look_for build_artifact
read_front Front Variant Measurement
EdgeDeployError SpecError DataError TargetUnavailable BuildError Unsupported Unrepeatable BoardError Unreachable HostKeyError
Busy Rebooted Hung LoginRefused UnknownHost Quarantined CommandFailed StorageError DamagedFile OutOfTime MeasurementError
DidNotRun Unstable ParityError GoalNotMet BundleError
"""
"""A name that goes from here is a promise that is broken: see docs/stability.md."""


def test_public_names() -> None:
    assert edgedeploy.__all__ == PUBLIC.split()
    assert set(edgedeploy.__all__) <= set(dir(edgedeploy))
    assert [name for name in edgedeploy.__all__ if getattr(edgedeploy, name, None) is None] == []


def test_every_error_is_public() -> None:
    classes = {name for name, value in vars(errors).items() if isinstance(value, type) and hasattr(value, "exit_code")}
    assert "EdgeDeployError" in classes
    assert classes <= set(edgedeploy.__all__)


def test_what_a_type_checker_is_told_is_what_is_looked_up() -> None:
    """The imports under TYPE_CHECKING name the module that each name comes from."""
    tree = ast.parse(Path(edgedeploy.__file__).read_text(encoding="utf-8"))
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    told = {name.name: node.module for node in typed.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert set(told) == set(edgedeploy.__all__) - {"__version__"}
    for name, module in told.items():
        assert getattr(importlib.import_module(str(module)), name) is getattr(edgedeploy, name), name


def test_a_task_or_a_target_is_written_with_numpy_alone() -> None:
    """All public names, but those that run and read studies, are there without what only the host needs."""
    needs_host = {"load_study", "Study", "StudyResult", "quantize", "measure", "read_front"}
    needs_host |= {"make_bundle", "BundleOptions"}
    names = [name for name in edgedeploy.__all__ if name not in needs_host]
    block = "".join(f"sys.modules[{name!r}] = None\n" for name in HEAVY if name != "numpy")
    code = f"import sys\n{block}import edgedeploy\nfor name in {names}: getattr(edgedeploy, name)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_refused_as_by_any_module() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Taks'"):
        getattr(edgedeploy, "Taks")  # noqa: B009
    with pytest.raises(ImportError, match="cannot import name 'Taks'"):
        exec("from edgedeploy import Taks")


def test_the_library_says_nothing_by_itself() -> None:
    code = "import logging, edgedeploy; logging.getLogger('edgedeploy.study').error('seen')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_a_command_without_its_packages_names_the_extra() -> None:
    code = "import sys; sys.modules['typer'] = None; from edgedeploy.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "edgedeploy[study]" in done.stderr
