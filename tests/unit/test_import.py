"""Importing edgedeploy costs nothing and needs nothing heavy; the public names are pinned."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

import edgedeploy

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
start = time.perf_counter()
import edgedeploy
spent = time.perf_counter() - start
print(json.dumps({"seconds": spent, "modules": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def probe(*blocked: str) -> dict[str, object]:
    block = "".join(f"import sys; sys.modules[{name!r}] = None\n" for name in blocked)
    done = subprocess.run([sys.executable, "-c", block + PROBE], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_import_stays_under_a_third_of_a_second() -> None:
    assert statistics.median(float(str(probe()["seconds"])) for _ in range(5)) < 0.3


def test_import_loads_and_needs_no_heavy_dependency() -> None:
    assert not set(HEAVY) & set(probe()["modules"])  # type: ignore[call-overload]
    probe(*HEAVY)


def test_public_names() -> None:
    assert edgedeploy.__all__ == ["Study", "__version__", "load_study"]


def test_a_command_without_its_packages_names_the_extra() -> None:
    code = "import sys; sys.modules['typer'] = None; from edgedeploy.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "edgedeploy[study]" in done.stderr
