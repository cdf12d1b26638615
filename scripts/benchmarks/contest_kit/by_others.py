"""Olive and NeuroQuant, each in an environment of its own: they pin releases that this project's environment has not.

A recipe's environment is made once, below the contest's folder. What installs and runs leaves an artifact; what does not
leaves its reason in the table.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.contest_kit.by_tools import ONNX
from benchmarks.contest_kit.checkpoint import Source
from benchmarks.contest_kit.entries import Recipe
from edgedeploy.errors import BuildError

JOBS: Final = Path(__file__).parent / "elsewhere"
INSTALL_S: Final = 300.0
"""How long an installation may take; torch alone is several hundred megabytes."""
RUN_S: Final = 1800.0
TORCH: Final = "torch<2.14"
"""As this project pins it: an index that has a build for CPUs gives that one."""


def recipes() -> list[Recipe]:
    """Olive 0.13 imports requests and does not ask for it."""
    how = "OnnxStaticQuantization, QDQ, U8S8, per_channel"
    make = partial(_in_own_environment, name="olive", packages=("olive-ai", "onnxruntime", "requests"))
    olive = Recipe("olive-int8", "Olive", "onnxruntime", "int8", ONNX, how, make)
    how = "utils.onnx_export.quantize_onnx_static with its defaults"
    make = partial(_in_own_environment, name="neuroquant", packages=("neuroquant",))
    neuroquant = Recipe("neuroquant-int8", "NeuroQuant", "onnxruntime", "int8", ONNX, how, make)
    return [olive, neuroquant]


def _in_own_environment(source: Source, folder: Path, name: str, packages: tuple[str, ...]) -> None:
    """Run ``elsewhere/NAME_job.py`` with the float ONNX file, the calibration inputs (.npy, (cases, 1, H, W)) and the path
    to write. Raises ``BuildError`` with the last line of what was said."""
    python = _environment(source.folder / "environments" / name, packages)
    cases = source.folder / "calibration.npy"
    np.save(cases, np.concatenate([feed["image"] for feed in source.calibration()]))
    job = [str(python), str(JOBS / f"{name}_job.py"), str(source.reference.path), str(cases), str(folder / ONNX)]
    _run(job, f"a run of {name}", RUN_S)


def _environment(place: Path, packages: tuple[str, ...]) -> Path:
    python, ready = place / "bin" / "python", place / "ready"
    if not ready.is_file():
        _run([sys.executable, "-m", "venv", "--clear", str(place)], f"an environment at {place.name}", INSTALL_S)
        what = f"pip install {' '.join(packages)}"
        _run([str(python), "-m", "pip", "install", "--quiet", TORCH, *packages], what, INSTALL_S)
        ready.touch()
    return python


def _run(command: list[str], what: str, limit_s: float) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        raise BuildError(what, f"it was not done after {limit_s:g} s", "Try again on a faster machine") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        raise BuildError(what, said[-1].strip()[:200], "See whether a newer release does it")
