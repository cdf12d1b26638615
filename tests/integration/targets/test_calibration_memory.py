"""Calibration streams: 256 images of 512 x 512 fit beside the model, whatever way ranges are chosen. What is kept of each
image adds up, so a quarter of them shows it by a quarter of the limit; ``--long`` takes all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.beside

TESTS = Path(__file__).resolve().parents[2]
CASES = 256
LIMIT_BYTES = 1.5e9

MEASURED = """
import json, resource, sys, tempfile, time
from importlib import import_module
from pathlib import Path
import numpy as np
from small_onnx import convolutional, request

target, way, model = sys.argv[1], sys.argv[2], sys.argv[3]
cases = int(sys.argv[4])
name = {"onnxruntime": "OnnxRuntimeTarget", "openvino": "OpenVinoTarget"}[target]
make = getattr(import_module(f"edgedeploy.targets.{target}"), name)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
with tempfile.TemporaryDirectory() as folder:
    path = Path(model) if model != "-" else convolutional(Path(folder) / "m.onnx", side=512)
    made = []

    def source():
        rng = np.random.default_rng(0)
        for index in range(cases):
            made.append(index)
            yield {asked.inputs[0].name: rng.random(asked.inputs[0].shape, np.float32)}

    asked = request(path, "float32", source=source)
    make().build(asked, Path(folder) / "float")
    before = peak()
    started = time.monotonic()
    asked = request(path, "int8", calibrator=way, source=source)
    make().build(asked, Path(folder) / "int8")
    print(json.dumps({"above": peak() - before, "before": before, "seen": max(made) + 1,
                      "seconds": time.monotonic() - started}))
"""


def measure(target: str, way: str, model: str = "-", cases: int = CASES) -> dict[str, float]:
    """Peak resident memory of a process of its own, before and above it in bytes, and how many cases were seen."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, target, way, model, str(cases)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"},
        timeout=1500,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.timeout(1600)
@pytest.mark.parametrize("cases", [CASES // 4, pytest.param(CASES, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("target", "way"),
    [
        *[("onnxruntime", way) for way in ("minmax", "entropy")],
        *[("openvino", way) for way in ("mean-minmax", "minmax", "mse")],
        *[pytest.param(target, "percentile", marks=pytest.mark.long) for target in ("onnxruntime", "openvino")],
    ],
)
def test_images_of_512_by_512_are_not_kept(target: str, way: str, cases: int) -> None:
    found = measure(target, way, cases=cases)
    assert found["seen"] == cases
    assert found["above"] < LIMIT_BYTES * cases / CASES
